// Help texts are part of the interface: a change must be seen in a diff of tests/cli/help/.
// EDGEWISE_UPDATE_HELP=1 rewrites the files.
#include <doctest/doctest.h>

#include <algorithm>

#include "tests/cli/program.h"

namespace edgewise {
namespace {

const std::vector<std::string> kVerbs = {
    "compress", "fit",    "reproduce", "inspect",    "convert", "calibrate", "quantize", "pack",
    "unpack",   "export", "prune",     "run",        "chat",    "eval",      "audit",    "bench",
    "report",   "doctor", "tokenize",  "detokenize", "distill", "finetune",  "pretrain"};

void CheckHelp(const std::vector<std::string>& arguments, const std::string& name) {
  const ProgramResult result = RunProgram(arguments);
  CHECK(result.exit_code == 0);
  CHECK(result.err.empty());
  const std::string path = SourcePath("tests/cli/help/" + name + ".txt");
  if (std::getenv("EDGEWISE_UPDATE_HELP")) WriteWhole(path, result.out);
  CHECK(result.out == ReadWhole(path));
}

TEST_CASE("help texts are as recorded") {
  CheckHelp({"--help"}, "edgewise");
  for (const std::string& verb : kVerbs) CheckHelp({verb, "--help"}, verb);
  CheckHelp({"audit", "data", "--help"}, "audit_data");
  CheckHelp({"distill", "cache", "--help"}, "distill_cache");
  CheckHelp({"recipe", "--help"}, "recipe");
  CheckHelp({"recipe", "check", "--help"}, "recipe_check");
  CheckHelp({"recipe", "init", "--help"}, "recipe_init");
}

TEST_CASE("every verb shows two examples and takes the common flags") {
  for (const std::string& verb : kVerbs) {
    const std::string help = RunProgram({verb, "--help"}).out;
    CAPTURE(verb);
    const size_t examples = help.find("Examples:\n  edgewise " + verb);
    CHECK(examples != std::string::npos);
    CHECK(help.find("\n  edgewise " + verb, examples + 12) != std::string::npos);
    for (const char* flag : {"--json", "--quiet", "--threads"})
      CHECK(help.find(flag) != std::string::npos);
  }
}

TEST_CASE("wrong usage is one clear line, a hint, and exit code 2") {
  const std::vector<std::vector<std::string>> wrong = {
      {},
      {"no-such-verb"},
      {"inspect"},
      {"inspect", "a", "b"},
      {"run", "m.gguf", "--no-such-flag"},
      {"quantize", "in", "out"},
      {"pack", "in"},
      {"unpack", "in"},
      {"export", "in", "out"},
      {"export", "in", "--to", "gptq"},
      {"bench", "m.gguf", "--threads", "0"},
      {"bench", "m.gguf", "--threads", "two"},
      {"fit", "m.gguf", "o.gguf"},
      {"fit", "m.gguf", "o.gguf", "--text", "t", "--size", "2 stones"},
      {"fit", "m.gguf", "o.gguf", "--text", "t", "--p99", "5 lightyears"},
      {"fit", "m.gguf", "o.gguf", "--text", "t", "--p99", "5ms", "--size", "0"},
      {"fit", "m.gguf", "o.gguf", "--text", "t", "--size", "-2MB"},
      {"fit", "m.gguf", "o.gguf", "--text", "t", "--p99", "5ms", "--ctx", "2"},
      {"audit"},
      {"audit", "b.gguf", "m.gguf"},
      {"audit", "data"},
      {"audit", "data", "f.jsonl", "--file", "t"},
      {"audit", "data", "f.jsonl", "--tokenizer", "t"},
      {"eval", "m.gguf"},
      {"eval", "m.gguf", "--kl", "b.gguf"},
      {"run", "m.gguf", "--max-tokens", "-5"},
      {"eval", "m.gguf", "--perplexity", "t", "--convention", "Z"}};
  for (const auto& arguments : wrong) {
    CAPTURE(arguments.size());
    const ProgramResult result = RunProgram(arguments);
    CHECK(result.exit_code == 2);
    CHECK(result.out.empty());
    CHECK(!result.err.empty());
    CHECK(std::count(result.err.begin(), result.err.end(), '\n') <= 2);
  }
  CHECK(RunProgram({"--version"}).out.rfind("edgewise ", 0) == 0);
}

TEST_CASE("an unknown instruction set is an error that lists those that run here") {
  ProgramOptions options;
  options.environment = {{"EDGEWISE_ISA", "mmx"}};
  const ProgramResult result = RunProgram({"doctor"}, options);
  CHECK(result.exit_code == 2);
  CHECK(result.err.find("mmx") != std::string::npos);
  CHECK(result.err.find("scalar") != std::string::npos);
}

}  // namespace
}  // namespace edgewise
