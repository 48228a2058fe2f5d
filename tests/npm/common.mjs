// What the comparison scripts share: the packages, our program, and the way a script ends.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const folder = dirname(fileURLToPath(import.meta.url));
export const repository = join(folder, "..", "..");

const SKIPPED = 77; // ctest's SKIP_RETURN_CODE for these tests

export function skip(why) {
  console.log(`skipped: ${why}`);
  process.exit(SKIPPED);
}

export function loadPackage(name) {
  if (!existsSync(join(folder, "node_modules", name))) {
    skip(`the package ${name} is absent; run: npm ci --ignore-scripts --prefix tests/npm`);
  }
  return createRequire(join(folder, "package.json"))(name);
}

export function readJson(path) {
  return JSON.parse(readFileSync(path, "utf8"));
}

// Runs `PROGRAM subcommand files...`, where the last file holds `input` as JSON; returns its JSON lines.
export function runOurs(program, args, input) {
  const temporary = mkdtempSync(join(tmpdir(), "edgewise-npm-"));
  try {
    const path = join(temporary, "input.json");
    writeFileSync(path, JSON.stringify(input));
    const result = spawnSync(program, [...args, path], { encoding: "utf8", maxBuffer: 1 << 28 });
    if (result.error) throw result.error;
    if (result.status !== 0) throw new Error(`${program} ${args.join(" ")}: ${result.stderr}`);
    return result.stdout.split("\n").filter(Boolean).map((line) => JSON.parse(line));
  } finally {
    rmSync(temporary, { recursive: true });
  }
}

// Prints the differences and ends the script: success only when there was something to compare and all of it agreed.
export function finish(what, compared, differences) {
  for (const difference of differences) console.log(difference);
  console.log(`${what}: ${compared} compared, ${differences.length} differ`);
  process.exit(compared > 0 && differences.length === 0 ? 0 : 1);
}

export function programArgument() {
  const program = process.argv[2];
  if (!program) throw new Error("usage: node SCRIPT PATH_TO_OURS (the program built from tests/npm/ours.cc)");
  return program;
}
