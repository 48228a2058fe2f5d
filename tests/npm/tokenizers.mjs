// Compares the ids of our reader of tokenizer.json with those of @huggingface/tokenizers.
// Usage: node tokenizers.mjs PATH_TO_OURS [TOKENIZER.json ...]; without files, those of the external test data.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { finish, loadPackage, programArgument, readJson, repository, runOurs, skip } from "./common.mjs";

const { Tokenizer } = loadPackage("@huggingface/tokenizers");

const data = process.env.EDGEWISE_TEST_DATA ?? join(repository, "..", "shared");

function tokenizerFiles() {
  if (process.argv.length > 3) return process.argv.slice(3);
  const folder = join(data, "tokenizers", "hf");
  if (!existsSync(folder)) skip(`no tokenizer files in ${folder}; set EDGEWISE_TEST_DATA`);
  return readdirSync(folder).filter((name) => name.endsWith(".json")).sort().map((name) => join(folder, name));
}

function inputs() {
  const texts = [
    "Hello, world!", " leading and trailing ", "tabs\tand\nnew\n\nlines\r\n", "Việt Nam: Hà Nội, 8 triệu người",
    "日本語のテキスト、漢字かな", "Привет, мир", "مرحبا بالعالم", "emoji 🙂👩‍👩‍👧‍👦🇻🇳", "1234567890 3.14159 1e-10",
    "def f(x):\n    return x ** 2  # square", "don't can't I'll we've", "a", " ", "  ", "\n", "ＦＵＬＬ　ｗｉｄｔｈ",
    "e\u0301 \u00e9", "x".repeat(500), "ab ".repeat(300), "\u0000\u0001\u007f", "<not a token> [INST] {{ x }}",
  ];
  const folder = join(data, "tokenizers");
  const file = join(folder, "ggml-vocab-llama-spm.gguf.inp");
  if (existsSync(file)) texts.push(...readFileSync(file, "utf8").split("\n__ggml_vocab_test__\n"));
  return texts;
}

const program = programArgument();
const texts = inputs();
const differences = [];
let compared = 0;
for (const path of tokenizerFiles()) {
  const tokenizer = new Tokenizer(readJson(path), {});
  const ours = runOurs(program, ["tokenize", path], texts);
  if (ours.length !== texts.length) throw new Error(`${ours.length} answers for ${texts.length} texts`);
  for (const [i, text] of texts.entries()) {
    const expected = Array.from(tokenizer.encode(text, { add_special_tokens: false }).ids);
    ++compared;
    if (JSON.stringify(ours[i].ids) !== JSON.stringify(expected)) {
      differences.push(
        `${basename(path)}: ${JSON.stringify(text.slice(0, 80))}\n  ours: ${JSON.stringify(ours[i].ids ?? ours[i].error)}\n  npm:  ${JSON.stringify(expected)}`);
    }
  }
}
finish("token ids", compared, differences);
