// Adapters through the program: learned on a quantized base, stopped and gone on with, merged,
// written apart.
#include <doctest/doctest.h>
#include <signal.h>

#include <filesystem>

#include "tests/cli/program.h"

namespace edgewise {
namespace {

const std::string kModel = SourcePath("models/edgewise-stories-3M");

struct Setup {
  TemporaryFolder folder;
  std::string text = folder / "text.jsonl", q4 = folder / "q4.gguf";

  Setup() {
    // Answers that the model has not seen: each a letter after another.
    std::string rows;
    for (int i = 0; i < 60; ++i) {
      const std::string letter(1, static_cast<char>('a' + i % 25));
      const std::string next(1, static_cast<char>('b' + i % 25));
      rows += R"({"instruction": "What comes after )" + letter + R"(?", "output": "After )" +
              letter + " comes " + next + R"(, as all know."})" + "\n";
    }
    WriteWhole(text, rows);
    REQUIRE(RunProgram({"quantize", kModel, q4, "--to", "q4_0"}).exit_code == 0);
  }
  std::vector<std::string> Finetune(const std::string& model, const std::string& out,
                                    const std::vector<std::string>& more) const {
    std::vector<std::string> command = {
        "finetune",       model, text,         out,   "--lora-rank",     "8",
        "--batch-tokens", "512", "--sequence", "128", "--learning-rate", "5e-3",
        "--json"};
    command.insert(command.end(), more.begin(), more.end());
    return command;
  }
};

TEST_CASE("adapters learn on a 4-bit base, in less memory, and the merged model runs") {
  const Setup setup;
  const std::string out = setup.folder / "tuned.gguf";
  const Json plan =
      ParseObject(RunProgram(setup.Finetune(setup.q4, out, {"--dry-run"})), "finetune");
  const Json whole =
      ParseObject(RunProgram({"finetune", setup.q4, setup.text, out, "--batch-tokens", "512",
                              "--sequence", "128", "--dry-run", "--json"}),
                  "finetune");
  CHECK(Number(plan, "parameters") == Number(whole, "parameters"));
  CHECK(Number(whole, "trainable_parameters") == Number(whole, "parameters"));
  CHECK(Number(plan, "trainable_parameters") < Number(plan, "parameters") / 10);
  CHECK(Number(whole, "memory_bytes") - Number(plan, "memory_bytes") >
        12 * Number(whole, "parameters"));
  CHECK(!std::filesystem::exists(out));

  const Json made =
      ParseObject(RunProgram(setup.Finetune(setup.q4, out, {"--steps", "24"})), "finetune");
  CHECK(Number(made, "held_out_loss") < Number(made, "first_loss") / 2);
  CHECK(RunProgram({"run", out, "--prompt", "Once", "--max-tokens", "3"}).exit_code == 0);
}

TEST_CASE("adapters of a run that is killed or stopped go on to the same bytes") {
  const Setup setup;
  const std::vector<std::string> flags = {"--steps",        "40",       "--save-every",   "3",
                                          "--lora-targets", "q,v,down", "--lora-dropout", "0.1"};
  const std::string whole = setup.folder / "whole.gguf", cut = setup.folder / "cut.gguf";
  const ProgramResult made = RunProgram(setup.Finetune(setup.q4, whole, flags));
  REQUIRE(made.exit_code == 0);
  std::vector<std::string> again = flags;
  again.insert(again.end(), {"--resume", "--threads", "1"});
  StopAndGoOn(setup.Finetune(setup.q4, cut, again), cut, {SIGKILL, SIGINT, SIGKILL}, whole,
              made.elapsed_us);
}

TEST_CASE("adapters heal a pruned model from its teacher and keep its zeros") {
  const Setup setup;
  const std::string pruned = setup.folder / "pruned.gguf", healed = setup.folder / "healed.gguf";
  const std::string text = setup.folder / "text.txt";
  WriteWhole(text, ReadWhole(kModel + "/stories.txt").substr(0, 40000));
  REQUIRE(RunProgram({"prune", kModel, pruned, "--method", "magnitude", "--sparsity", "2:4"})
              .exit_code == 0);
  const std::vector<std::string> command = {
      "distill",   kModel,           text,           healed,
      "--student", pruned,           "--keep-zeros", "--alpha",
      "1",         "--lora-rank",    "16",           "--steps",
      "12",        "--batch-tokens", "1024",         "--learning-rate",
      "1e-2",      "--json"};
  const Json made = ParseObject(RunProgram(command), "distill");
  CHECK(Number(made, "held_out_loss") < Number(made, "first_loss") - 0.05);
  CHECK(Number(made, "teacher_loss") < Number(made, "held_out_loss"));
  // Only a model whose matrices are 2:4 fits the format.
  CHECK(RunProgram({"quantize", healed, setup.folder / "s24.gguf", "--to", "s24_q4"}).exit_code ==
        0);
}

TEST_CASE("adapters written apart and merged by convert give the same model") {
  const Setup setup;
  const std::string out = setup.folder / "tuned.gguf", gguf = setup.folder / "lora.gguf",
                    peft = setup.folder / "peft";
  const std::vector<std::string> command =
      setup.Finetune(setup.q4, out, {"--steps", "4", "--lora-out", gguf, "--lora-out", peft});
  REQUIRE(RunProgram(command).exit_code == 0);
  const size_t tensors = 3900000 * 2;  // bytes of the last of them, in F16
  const std::string expected = ReadWhole(out);
  REQUIRE(expected.size() > tensors);
  for (const std::string& adapter : {gguf, peft}) {
    const std::string merged = setup.folder / "merged.gguf";
    const ProgramResult made =
        RunProgram({"convert", setup.q4, merged, "--lora", adapter, "--force"});
    CAPTURE(made.err);
    REQUIRE(made.exit_code == 0);
    const std::string bytes = ReadWhole(merged);
    CHECK(bytes.substr(bytes.size() - tensors) == expected.substr(expected.size() - tensors));
  }
  const auto fails = [&](const std::vector<std::string>& arguments, const std::string& part) {
    CAPTURE(part);
    const ProgramResult result = RunProgram(arguments);
    CAPTURE(result.err);
    CHECK(result.exit_code == 2);
    CHECK(result.err.find(part) != std::string::npos);
  };
  const std::string other = setup.folder / "other.gguf";
  fails(setup.Finetune(setup.q4, other, {"--lora-out", gguf}), "--force");
  fails(setup.Finetune(setup.q4, other, {"--lora-out", peft}), "--force");
  fails(setup.Finetune(setup.q4, other, {"--lora-out", other}), "a path each");
  fails(setup.Finetune(setup.q4, other, {"--lora-out", setup.text}), "ends in .gguf");
  fails(setup.Finetune(setup.q4, other, {"--lora-out", setup.folder / "new", "--keep-zeros"}),
        "which weights stay zero");
  fails({"convert", setup.q4, other, "--lora", out}, "no LoRA adapter");
  CHECK(RunProgram({"convert", setup.q4, other, "--lora", setup.folder / "none"}).exit_code == 3);
  CHECK(!std::filesystem::exists(other));
}

TEST_CASE("adapters that are refused, before anything is trained") {
  const Setup setup;
  const std::string out = setup.folder / "out.gguf";
  const auto fails = [&](const std::vector<std::string>& command, const std::string& part) {
    CAPTURE(part);
    const ProgramResult result = RunProgram(command);
    CAPTURE(result.err);
    CHECK(result.exit_code == 2);
    CHECK(result.err.find(part) != std::string::npos);
    CHECK(!std::filesystem::exists(out));
    CHECK(!std::filesystem::exists(out + ".journal"));
  };
  fails(setup.Finetune(setup.q4, out, {"--lora-targets", "q,w1"}), "\"w1\"");
  fails(setup.Finetune(setup.q4, out, {"--lora-targets", "qkv"}), "its targets are q, k, v, o");
  fails(setup.Finetune(setup.q4, out, {"--lora-alpha", "0"}), "alpha");
  fails(setup.Finetune(setup.q4, out, {"--lora-dropout", "1"}), "dropout");
  fails(setup.Finetune(setup.q4, out, {"--lora-dropout", "0.1", "--keep-zeros"}), "zeros are kept");
  fails({"finetune", setup.q4, setup.text, out, "--lora-alpha", "8"}, "--lora-rank");
  fails({"finetune", setup.q4, setup.text, out, "--lora-rank", "0"}, "--lora-rank");
  fails({"distill", kModel, setup.text, out, "--student", kModel + "/config.json", "--lora-rank",
         "4"},
        "no weights for adapters");
}

}  // namespace
}  // namespace edgewise
