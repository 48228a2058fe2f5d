// Training through the program: what it learns, that it goes on where it stopped, what it refuses.
#include <doctest/doctest.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>

#include "tests/cli/training_files.h"

namespace edgewise {
namespace {

const std::string kModel = SourcePath("models/edgewise-stories-3M");

struct Setup : TrainingFiles {
  std::vector<std::string> Pretrain(const std::string& out, std::vector<std::string> more) const {
    std::vector<std::string> command = {
        "pretrain",       config, text,         out,  "--tokenizer", kModel,
        "--batch-tokens", "512",  "--sequence", "64", "--json"};
    command.insert(command.end(), more.begin(), more.end());
    return command;
  }
};

TEST_CASE("pretrain from a config: the model runs, the log tells each step") {
  const Setup setup;
  const std::string out = setup.folder / "new.gguf";
  const std::vector<std::string> command = setup.Pretrain(
      out,
      {"--steps", "30", "--learning-rate", "0.01", "--evaluate-every", "10", "--threads", "2"});
  const Json plan =
      ParseObject(RunProgram(setup.Pretrain(out, {"--steps", "30", "--dry-run", "--threads", "2"})),
                  "pretrain");
  CHECK(Number(plan, "steps") == 30);
  CHECK(Number(plan, "tokens_per_s") > 0);
  CHECK(Number(plan, "memory_bytes") > 4 * 4 * Number(plan, "parameters"));
  CHECK(!std::filesystem::exists(out));

  const Json made = ParseObject(RunProgram(command), "pretrain");
  CHECK(Number(made, "held_out_loss") < Number(made, "first_loss") - 1);
  CHECK(Number(made, "bad_row_count") == 0);
  // Most of so small a run is the program, with what a sanitizer or an emulator keeps of its own.
  const double memory = Number(made, "peak_rss_bytes") / Number(plan, "memory_bytes");
  CHECK(memory > 0.6);
  CHECK(memory < 2);
  const std::string log = ReadWhole(out + ".log.jsonl");
  CHECK(std::count(log.begin(), log.end(), '\n') == 30);
  CHECK(log.find("held_out_loss") != std::string::npos);
  CHECK(!std::filesystem::exists(out + ".journal"));
  CHECK(RunProgram({"run", out, "--prompt", "Once", "--max-tokens", "3"}).exit_code == 0);
  CHECK(RunProgram(command).exit_code == 2);  // the output exists
  CHECK(RunProgram(setup.Pretrain(out, {"--resume"})).exit_code == 2);
}

TEST_CASE("a run that is killed or stopped goes on to the same bytes") {
  const Setup setup;
  const std::vector<std::string> flags = {"--steps",      "60", "--save-every", "3",
                                          "--keep-every", "25", "--ema",        "0.9"};
  const std::string whole = setup.folder / "whole.gguf", cut = setup.folder / "cut.gguf";
  const ProgramResult made = RunProgram(setup.Pretrain(whole, flags));
  REQUIRE(made.exit_code == 0);
  std::vector<std::string> again = flags;
  again.push_back("--resume");
  StopAndGoOn(setup.Pretrain(cut, again), cut, {SIGKILL, SIGINT, SIGKILL, SIGKILL}, whole,
              made.elapsed_us);
  for (const char* kept : {"step-25.gguf", "step-50.gguf"}) {
    CAPTURE(kept);
    CHECK(ReadWhole(setup.folder / (std::string("cut.") + kept)) ==
          ReadWhole(setup.folder / (std::string("whole.") + kept)));
  }
}

TEST_CASE("models on the way are those of shorter runs, and old ones go") {
  const Setup setup;
  const std::string out = setup.folder / "new.gguf", shorter = setup.folder / "shorter.gguf";
  const auto kept = [&](const char* step) {
    return setup.folder / (std::string("new.step-") + step + ".gguf");
  };
  const auto train = [&](const std::string& to, const char* steps, std::vector<std::string> more) {
    more.insert(more.end(), {"--steps", steps, "--schedule", "constant", "--warmup", "0"});
    return RunProgram(setup.Pretrain(to, more));
  };
  REQUIRE(train(shorter, "20", {}).exit_code == 0);
  const Json made =
      ParseObject(train(out, "40", {"--keep-every", "10", "--keep-last", "2"}), "pretrain");
  REQUIRE(made.Find("kept") != nullptr);
  CHECK(made.Find("kept")->AsArray()->size() == 2);
  CHECK(!std::filesystem::exists(kept("10")));
  CHECK(!std::filesystem::exists(kept("40")));  // is the output
  const std::string tensors = ReadWhole(shorter), of_step = ReadWhole(kept("20"));
  constexpr size_t kTail = 100000;  // all but names, tokens and settings
  REQUIRE(of_step.size() > kTail);
  CHECK(of_step.substr(of_step.size() - kTail) == tensors.substr(tensors.size() - kTail));
  CHECK(ReadWhole(kept("30")) != of_step);
  CHECK(RunProgram({"run", kept("30"), "--prompt", "Once", "--max-tokens", "3"}).exit_code == 0);

  // They are not replaced unasked, nor is what is learned from.
  std::filesystem::remove(out);
  std::filesystem::remove(out + ".log.jsonl");
  std::filesystem::remove(out + ".log.html");
  const ProgramResult exists = train(out, "40", {"--keep-every", "15"});
  CHECK(exists.exit_code == 2);
  CHECK(exists.err.find("new.step-30.gguf: exists already") != std::string::npos);
  CHECK(ReadWhole(kept("20")) == of_step);
  const ProgramResult itself = RunProgram(
      {"finetune", kept("20"), setup.text, out, "--steps", "40", "--keep-every", "20", "--force"});
  CHECK(itself.exit_code == 2);
  CHECK(itself.err.find("would replace the input") != std::string::npos);
  CHECK(ReadWhole(kept("20")) == of_step);
}

TEST_CASE("a model on the way that a stop kept from being written is written by the next run") {
  const Setup setup;
  const std::string whole = setup.folder / "whole.gguf", cut = setup.folder / "cut.gguf";
  const std::string state = cut + ".journal/state.gguf", log = cut + ".journal/log.jsonl";
  std::vector<std::string> flags = {"--steps", "60", "--keep-every", "1", "--save-every", "0"};
  const ProgramResult made = RunProgram(setup.Pretrain(whole, flags));
  REQUIRE(made.exit_code == 0);
  flags.push_back("--resume");
  for (uint64_t delay_us = made.elapsed_us / 3; !std::filesystem::exists(state);) {
    REQUIRE(delay_us < 100000000);
    const int status = SignalProgram(setup.Pretrain(cut, flags), SIGINT, delay_us);
    const bool late = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    delay_us = late ? delay_us / 2 : delay_us + delay_us / 2;
    for (const char* end : {"", ".log.jsonl", ".log.html"}) std::filesystem::remove(cut + end);
  }
  const std::string lines = ReadWhole(log);
  const auto step = std::count(lines.begin(), lines.end(), '\n');
  REQUIRE(step > 0);
  const std::string kept = ".step-" + std::to_string(step) + ".gguf";
  std::filesystem::remove(setup.folder / ("cut" + kept));
  CHECK(RunProgram(setup.Pretrain(cut, flags)).exit_code == 0);
  CHECK(ReadWhole(setup.folder / ("cut" + kept)) == ReadWhole(setup.folder / ("whole" + kept)));
  CHECK(ReadWhole(cut) == ReadWhole(whole));
}

TEST_CASE("a run through a quantizer that is killed or stopped goes on to the same bytes") {
  const Setup setup;
  const std::string whole = setup.folder / "whole.gguf", cut = setup.folder / "cut.gguf";
  const auto command = [&](const std::string& out) {
    return std::vector<std::string>{"distill",    BaseModel(), setup.text,       out,
                                    "--student",  BaseModel(), "--qat",          "q3_k_s",
                                    "--alpha",    "1",         "--batch-tokens", "256",
                                    "--steps",    "12",        "--save-every",   "1",
                                    "--held-out", setup.text,  "--json"};
  };
  const ProgramResult made = RunProgram(command(whole));
  REQUIRE(made.exit_code == 0);
  std::vector<std::string> again = command(cut);
  again.push_back("--resume");
  StopAndGoOn(again, cut, {SIGKILL, SIGINT}, whole, made.elapsed_us);
}

TEST_CASE("a run that matches layers and learns on policy goes on to the same bytes") {
  const Setup setup;
  const std::string whole = setup.folder / "whole.gguf", cut = setup.folder / "cut.gguf";
  const auto command = [&](const std::string& out) {
    return std::vector<std::string>{"distill",
                                    kModel,
                                    setup.text,
                                    out,
                                    "--student",
                                    setup.config,
                                    "--alpha",
                                    "1",
                                    "--match-hidden",
                                    "0.5",
                                    "--match-attention",
                                    "0.5",
                                    "--on-policy",
                                    "0.5",
                                    "--on-policy-tokens",
                                    "16",
                                    "--sequence",
                                    "64",
                                    "--batch-tokens",
                                    "256",
                                    "--steps",
                                    "60",
                                    "--learning-rate",
                                    "0.01",
                                    "--save-every",
                                    "1",
                                    "--json"};
  };
  const ProgramResult run = RunProgram(command(whole));
  const Json made = ParseObject(run, "distill");
  CHECK(Number(made, "held_out_loss") < Number(made, "first_loss") - 0.5);
  CHECK(Number(made, "trainable_parameters") == Number(made, "parameters"));
  CHECK(ReadWhole(whole + ".log.jsonl").find("layer_loss") != std::string::npos);
  std::vector<std::string> again = command(cut);
  again.push_back("--resume");
  StopAndGoOn(again, cut, {SIGKILL, SIGINT, SIGKILL}, whole, run.elapsed_us);
}

TEST_CASE("adapters and quantized students match layers and learn on policy") {
  const Setup setup;
  const std::string pruned = setup.folder / "pruned.gguf", out = setup.folder / "out.gguf";
  REQUIRE(RunProgram({"prune", BaseModel(), pruned, "--method", "magnitude", "--sparsity", "2:4"})
              .exit_code == 0);
  const std::vector<std::string> kinds[] = {
      {"--lora-rank", "2", "--lora-dropout", "0.1"},
      {"--keep-zeros", "--qat", "s24_q4"},
      {"--recompute", "--moments", "8bit", "--ema", "0.5", "--teacher-engine", "floats"}};
  for (const auto& kind : kinds) {
    CAPTURE(kind.front());
    std::vector<std::string> command = {"distill",
                                        kModel,
                                        setup.text,
                                        out,
                                        "--student",
                                        pruned,
                                        "--match-hidden",
                                        "1",
                                        "--on-policy",
                                        "0.5",
                                        "--batch-tokens",
                                        "256",
                                        "--on-policy-tokens",
                                        "8",
                                        "--match-attention",
                                        "1",
                                        "--sequence",
                                        "64",
                                        "--steps",
                                        "5",
                                        "--accumulate",
                                        "2",
                                        "--alpha",
                                        "1",
                                        "--force",
                                        "--learning-rate",
                                        "1e-3",
                                        "--json"};
    command.insert(command.end(), kind.begin(), kind.end());
    const Json made = ParseObject(RunProgram(command), "distill");
    CHECK(Number(made, "held_out_loss") < Number(made, "first_loss"));
    const std::string log = ReadWhole(out + ".log.jsonl");
    const auto first = ParseJson(log.substr(0, log.find('\n')));
    REQUIRE(first);
    CHECK(Number(*first, "layer_loss") > 0.1);
  }
}

TEST_CASE("layer by layer, killed or stopped, a run goes on to the same bytes") {
  const Setup setup;
  const std::string whole = setup.folder / "whole.gguf", cut = setup.folder / "cut.gguf";
  const auto command = [&](const std::string& out, std::vector<std::string> more) {
    std::vector<std::string> all = {"distill",     BaseModel(),  setup.text, out,
                                    "--student",   BaseModel(),  "--qat",    "q3_k_s",
                                    "--layerwise", "--steps",    "4",        "--batch-tokens",
                                    "512",         "--held-out", setup.text, "--json"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  const Json plan = ParseObject(RunProgram(command(whole, {"--dry-run"})), "distill");
  CHECK(Number(plan, "steps") == 4);
  CHECK(Number(plan, "disk_bytes") > 1e6);
  CHECK(!std::filesystem::exists(whole));
  const ProgramResult run = RunProgram(command(whole, {"--threads", "1"}));
  const Json made = ParseObject(run, "distill");
  CHECK(made.Find("layers")->AsArray()->size() == 4);
  CHECK(Number(made, "teacher_loss") < Number(made, "held_out_loss"));
  const std::string log = ReadWhole(whole + ".log.jsonl");
  CHECK(std::count(log.begin(), log.end(), '\n') == 4);
  StopAndGoOn(command(cut, {"--resume"}), cut, {SIGKILL, SIGINT, SIGKILL}, whole, run.elapsed_us);
  const ProgramResult beside = RunProgram(command(cut, {"--force", "--alpha", "1"}));
  CHECK(beside.exit_code == 2);
  CHECK(beside.err.find("--layerwise and --alpha exclude each other") != std::string::npos);
}

TEST_CASE("scales alone: killed or stopped, a run goes on to the same bytes") {
  const Setup setup;
  const std::string whole = setup.folder / "whole.gguf", cut = setup.folder / "cut.gguf";
  const std::string student = setup.folder / "q4_0.gguf";
  REQUIRE(RunProgram({"quantize", BaseModel(), student, "--to", "q4_0"}).exit_code == 0);
  const auto command = [&](const std::string& out, std::vector<std::string> more) {
    std::vector<std::string> all = {
        "distill", BaseModel(), setup.text,       out,   "--student", student, "--scales-only",
        "--alpha", "1",         "--batch-tokens", "256", "--steps",   "8",     "--save-every",
        "1",       "--json"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  const ProgramResult run = RunProgram(command(whole, {"--threads", "1"}));
  const Json made = ParseObject(run, "distill");
  CHECK(Number(made, "trainable_parameters") < Number(made, "parameters") / 30);
  CHECK(Number(made, "held_out_loss") != Number(made, "first_loss"));
  CHECK(std::filesystem::file_size(whole) < std::filesystem::file_size(student) + 4096);
  StopAndGoOn(command(cut, {"--resume"}), cut, {SIGKILL, SIGINT}, whole, run.elapsed_us);
  const std::string kept = setup.folder / "kept.gguf", half = setup.folder / "kept.step-4.gguf";
  REQUIRE(RunProgram(command(kept, {"--keep-every", "4"})).exit_code == 0);
  CHECK(ReadWhole(kept) == ReadWhole(whole));
  CHECK(std::filesystem::file_size(half) < std::filesystem::file_size(whole) + 64);
  CHECK(RunProgram({"run", half, "--prompt", "Once", "--max-tokens", "3"}).exit_code == 0);
  const ProgramResult beside = RunProgram(command(cut, {"--force", "--to", "f16"}));
  CHECK(beside.exit_code == 2);
  CHECK(beside.err.find("--scales-only and --to exclude each other") != std::string::npos);
}

TEST_CASE("an interrupt ends a run after the step in work, and keeps that") {
  const Setup setup;
  const std::string out = setup.folder / "new.gguf", state = out + ".journal/state.gguf";
  std::vector<std::string> flags = {"--steps", "100000", "--save-every", "0"};
  for (uint64_t delay_us = 500000; !std::filesystem::exists(state); delay_us *= 2) {
    REQUIRE(delay_us < 100000000);
    const int status = SignalProgram(setup.Pretrain(out, flags), SIGINT, delay_us);
    CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 130));
    if (!std::filesystem::exists(state)) std::filesystem::remove_all(out + ".journal");
  }
  flags.push_back("--resume");
  const int again = SignalProgram(setup.Pretrain(out, flags), SIGINT, 2000000);
  CHECK((WIFEXITED(again) && WEXITSTATUS(again) == 130));
  CHECK(std::filesystem::exists(state));
  CHECK(!std::filesystem::exists(out));
}

TEST_CASE("another run's state is not gone on with") {
  const Setup setup;
  const std::string out = setup.folder / "out.gguf";
  const auto long_run = setup.Pretrain(out, {"--steps", "100000", "--save-every", "1"});
  for (uint64_t delay_us = 500000; !std::filesystem::exists(out + ".journal"); delay_us *= 2) {
    REQUIRE(delay_us < 100000000);
    CHECK(SignalProgram(long_run, SIGINT, delay_us) != 0);
  }
  const ProgramResult plain = RunProgram(setup.Pretrain(out, {"--steps", "100000"}));
  CHECK(plain.exit_code == 2);
  CHECK(plain.err.find("--resume") != std::string::npos);
  const ProgramResult other = RunProgram(setup.Pretrain(out, {"--steps", "9", "--resume"}));
  CHECK(other.exit_code == 2);
  CHECK(other.err.find("steps") != std::string::npos);
  const ProgramResult to = RunProgram(
      setup.Pretrain(out, {"--steps", "100000", "--save-every", "1", "--resume", "--to", "f32"}));
  CHECK(to.exit_code == 2);
  CHECK(to.err.find("to") != std::string::npos);
  CHECK(RunProgram(setup.Pretrain(out, {"--steps", "2", "--force"})).exit_code == 0);
}

TEST_CASE("healing a pruned model brings it nearer and keeps its zeros") {
  const Setup setup;
  const std::string pruned = setup.folder / "pruned.gguf", healed = setup.folder / "healed.gguf";
  REQUIRE(RunProgram({"prune", BaseModel(), pruned, "--method", "magnitude", "--sparsity", "2:4"})
              .exit_code == 0);
  const Json made = ParseObject(
      RunProgram({"distill", BaseModel(), setup.text, healed, "--student", pruned, "--keep-zeros",
                  "--alpha", "1", "--steps", "8", "--batch-tokens", "1024", "--json"}),
      "distill");
  CHECK(Number(made, "held_out_loss") < Number(made, "first_loss") - 0.08);
  CHECK(Number(made, "teacher_loss") < Number(made, "held_out_loss"));
  CHECK(Number(made, "held_out_kl") < Number(made, "first_kl") / 1.5);
  CHECK(Number(made, "held_out_kl") > 0);
  CHECK(ReadWhole(healed + ".log.jsonl").find("held_out_kl") != std::string::npos);
  // Only a model whose matrices are 2:4 fits the format.
  CHECK(RunProgram({"quantize", healed, setup.folder / "s24.gguf", "--to", "s24_q4"}).exit_code ==
        0);
}

TEST_CASE("a cache of a teacher: stopped and gone on, learned from without it, of its data only") {
  const Setup setup;
  const std::string whole = setup.folder / "whole.cache", cut = setup.folder / "cut.cache";
  const auto keep = [&](const std::string& out, std::vector<std::string> more) {
    std::vector<std::string> command = {"distill", "cache",      BaseModel(), setup.text,
                                        out,       "--sequence", "64",        "--json"};
    command.insert(command.end(), more.begin(), more.end());
    return command;
  };
  const Json plan = ParseObject(RunProgram(keep(whole, {"--dry-run"})), "distill");
  CHECK(!std::filesystem::exists(whole));
  const ProgramResult run = RunProgram(keep(whole, {}));
  const Json made = ParseObject(run, "distill");
  CHECK(Number(made, "bytes_per_token") == 218);
  CHECK(Number(plan, "bytes") <= Number(made, "bytes"));
  CHECK(Number(made, "bytes") < Number(plan, "bytes") + 4096);
  CHECK(Number(made, "tokens") == Number(plan, "tokens"));
  CHECK(!std::filesystem::exists(whole + ".journal"));
  StopAndGoOn(keep(cut, {"--resume", "--batch-tokens", "64", "--threads", "1"}), cut,
              {SIGKILL, SIGINT, SIGKILL}, whole, run.elapsed_us);

  const std::string out = setup.folder / "student.gguf";
  const auto learn = [&](const std::string& text, std::vector<std::string> more,
                         const char* batch_tokens = "512") {
    std::vector<std::string> command = {"distill",    text,
                                        out,          "--cache",
                                        whole,        "--student",
                                        setup.config, "--tokenizer",
                                        kModel,       "--batch-tokens",
                                        batch_tokens, "--steps",
                                        "20",         "--learning-rate",
                                        "0.01",       "--json"};
    command.insert(command.end(), more.begin(), more.end());
    return command;
  };
  const Json student = ParseObject(RunProgram(learn(setup.text, {"--sequence", "64"})), "distill");
  CHECK(Number(student, "held_out_loss") < Number(student, "first_loss") - 1);

  const auto refused = [&](const std::vector<std::string>& command, int exit_code,
                           const std::string& part) {
    CAPTURE(part);
    std::vector<std::string> forced = command;
    forced.push_back("--force");
    const ProgramResult result = RunProgram(forced);
    CAPTURE(result.err);
    CHECK(result.exit_code == exit_code);
    CHECK(result.err.find(part) != std::string::npos);
  };
  const std::string other = setup.folder / "other.txt";
  WriteWhole(other, ReadWhole(setup.text).substr(0, 30000));
  refused(learn(other, {"--sequence", "64"}), 2, "was not made of " + other);
  refused(learn(setup.text, {"--sequence", "32"}), 2, "--sequence 64");
  refused(learn(setup.text, {"--sequence", "64", "--temperature", "2"}), 2, "--temperature 1");
  refused(learn(setup.text, {"--sequence", "64"}, "32"), 2, "larger batches");
  refused({"distill", BaseModel(), setup.text, out, "--cache", whole, "--student", setup.config}, 2,
          "in place of the teacher");
  refused({"distill", setup.text, out, "--student", setup.config}, 2, "--cache FILE");
  refused(learn(setup.text, {"--sequence", "64", "--match-hidden", "1"}), 2, "name the teacher");
  refused(learn(setup.text, {"--sequence", "64", "--on-policy", "1"}), 2, "name the teacher");
  std::string damaged = ReadWhole(whole);
  damaged[damaged.size() / 2] ^= 4;
  WriteWhole(whole, damaged);
  refused(learn(setup.text, {"--sequence", "64"}), 4, "damaged: block");
}

TEST_CASE("a recipe heals from a cache, and from no other data") {
  const Setup setup;
  const std::string cache = setup.folder / "text.cache", recipe = setup.folder / "recipe.yaml";
  const std::string out = setup.folder / "out.gguf";
  REQUIRE(RunProgram({"distill", "cache", BaseModel(), setup.text, cache, "--teacher-engine",
                      "runtime", "--top", "16"})
              .exit_code == 0);
  const auto write = [&](const std::string& data) {
    WriteWhole(recipe, "model: " + BaseModel() + "\noutput: " + out +
                           "\npasses:\n  - prune: {method: magnitude, sparsity: \"2:4\"}\n" +
                           "  - distill: {data: " + data + ", cache: " + cache +
                           ", steps: 2, batch_tokens: 512}\n  - quantize: {to: s24_q4}\n");
  };
  const std::string other = setup.folder / "other.txt";
  WriteWhole(other, ReadWhole(setup.text).substr(0, 30000));
  write(other);
  const ProgramResult refused = RunProgram({"compress", recipe});
  CHECK(refused.exit_code == 2);
  CHECK(refused.err.find("was not made of") != std::string::npos);
  write(setup.text);
  const ProgramResult made = RunProgram({"compress", recipe, "--force"});
  CAPTURE(made.err);
  REQUIRE(made.exit_code == 0);
  CHECK(RunProgram({"run", out, "--prompt", "Once", "--max-tokens", "3"}).exit_code == 0);
}

TEST_CASE("the runtime teaches what floats teach, in less memory") {
  const Setup setup;
  const std::string teacher = setup.folder / "q8.gguf";
  REQUIRE(RunProgram({"quantize", BaseModel(), teacher, "--to", "q8_0"}).exit_code == 0);
  double losses[2], memory[2];
  for (const size_t i : {0, 1}) {
    const std::string out = setup.folder / (std::to_string(i) + ".gguf");
    const Json made = ParseObject(
        RunProgram({"distill", teacher, setup.text, out, "--student", setup.config, "--steps", "2",
                    "--batch-tokens", "512", "--sequence", "64", "--precision", "f32",
                    "--teacher-engine", i == 0 ? "runtime" : "floats", "--json"}),
        "distill");
    losses[i] = Number(made, "teacher_loss");
    memory[i] = Number(made, "memory_bytes");
  }
  CHECK(memory[0] < memory[1] - 5e6);
  CHECK(losses[0] != losses[1]);  // activations are rounded, weights are the same
  CHECK(losses[0] == doctest::Approx(losses[1]).epsilon(2e-3));
}

TEST_CASE("a range test finds a rate that learns, and writes nothing") {
  const Setup setup;
  const std::string out = setup.folder / "new.gguf";
  const Json found = ParseObject(
      RunProgram(setup.Pretrain(out, {"--find-learning-rate", "--steps", "60"})), "pretrain");
  const JsonArray& steps = *found.Find("steps")->AsArray();
  REQUIRE(steps.size() > 20);
  for (size_t i = 1; i < steps.size(); ++i) {
    CHECK(Number(steps[i], "learning_rate") > Number(steps[i - 1], "learning_rate"));
  }
  const double suggested = Number(found, "suggested");
  CHECK(suggested == doctest::Approx(Number(found, "lowest_at") / 10));
  CHECK(suggested > 1e-4);
  CHECK(suggested < 0.1);
  CHECK(Number(steps.front(), "loss") > 7.5);  // log 2048 = 7.62: nothing is learned yet
  CHECK(!std::filesystem::exists(out));
  CHECK(RunProgram(setup.Pretrain(out, {"--find-learning-rate", "--steps", "5"})).exit_code == 2);
}

TEST_CASE("a student is measured as the drafter of its teacher") {
  const Setup setup;
  const std::string out = setup.folder / "draft.gguf";
  const auto draft_of = [&](const std::string& student) {
    const Json made =
        ParseObject(RunProgram({"distill", kModel, setup.text, out, "--student", student, "--steps",
                                "1", "--learning-rate", "1e-9", "--batch-tokens", "512", "--draft",
                                "--to", "f32", "--force", "--json"}),
                    "distill");
    REQUIRE(made.Find("draft") != nullptr);
    return *made.Find("draft");
  };
  // What has learned nothing guesses as the teacher itself would, or at random.
  const Json same = draft_of(kModel), other = draft_of(setup.config);
  CHECK(Number(same, "prompts") > 0);
  CHECK(Number(same, "tokens") > Number(same, "prompts"));
  CHECK(Number(same, "drafted") > Number(same, "tokens") / 2);
  CHECK(Number(same, "acceptance") > 0.95);
  CHECK(Number(other, "drafted") > 0);
  CHECK(Number(other, "acceptance") < 0.2);
  CHECK(Number(same, "speed_up") > 0);
}

TEST_CASE("finetune on instructions, whose bad rows are told") {
  const Setup setup;
  const std::string rows = setup.folder / "rows.jsonl", out = setup.folder / "out.gguf";
  std::string text;
  for (int i = 0; i < 60; ++i) {
    text += R"({"instruction": "Say a word.", "output": "The cat sat on the mat."})"
            "\n";
  }
  WriteWhole(rows, text + "{broken\n" +
                       R"({"instruction": "x"})"
                       "\n");
  const std::vector<std::string> command = {
      "finetune", BaseModel(),       rows,  out, "--steps", "3", "--batch-tokens",
      "256",      "--learning-rate", "1e-3"};
  const ProgramResult told = RunProgram(command);
  CAPTURE(told.err);
  CHECK(told.exit_code == 0);
  CHECK(told.err.find("line 61") != std::string::npos);
  CHECK(told.err.find("2 bad rows were left out") != std::string::npos);
  std::vector<std::string> strict = command;
  strict.insert(strict.end(), {"--strict", "--force"});
  const ProgramResult refused = RunProgram(strict);
  CHECK(refused.exit_code == 4);
  CHECK(refused.err.find("line 61") != std::string::npos);
}

TEST_CASE("what is refused, before anything is trained") {
  const Setup setup;
  const std::string out = setup.folder / "out.gguf";
  const std::string link = setup.folder / "link.gguf";
  std::filesystem::create_symlink(setup.text, link);
  const ProgramResult linked = RunProgram(setup.Pretrain(link, {"--steps", "2", "--force"}));
  CHECK(linked.exit_code == 2);
  CHECK(linked.err.find("not a regular file") != std::string::npos);
  CHECK(std::filesystem::is_symlink(link));
  CHECK(!std::filesystem::exists(link + ".journal"));
  const auto fails = [&](const std::vector<std::string>& more, const std::string& part) {
    CAPTURE(part);
    const ProgramResult result = RunProgram(setup.Pretrain(out, more));
    CHECK(result.exit_code == 2);
    CHECK(result.err.find(part) != std::string::npos);
    CHECK(!std::filesystem::exists(out));
    CHECK(!std::filesystem::exists(out + ".journal"));
  };
  fails({"--learning-rate", "0"}, "learning rate");
  fails({"--steps", "5", "--schedule", "linear"}, "cosine");
  fails({"--precision", "f16"}, "bf16 and f32");
  fails({"--to", "q4_0"}, "f32, f16 and bf16");
  fails({"--to", "s24_f16"}, "f32, f16 and bf16");
  fails({"--qat", "q3_x"}, "q3_k_m");
  fails({"--qat", "q4_0", "--to", "f16"}, "--qat");
  fails({"--qat", "s24_q4", "--steps", "1"}, "prune the model first");
  fails({"--epochs", "-1"}, "epochs");
  fails({"--warmup", "2"}, "warm-up");
  fails({"--dropout", "1"}, "dropout");
  fails({"--format", "csv"}, "alpaca");
  // As one of two, which would write the same files.
  ProgramOptions two;
  two.environment = {{"OMPI_COMM_WORLD_SIZE", "2"}};
  const ProgramResult started = RunProgram(setup.Pretrain(out, {"--steps", "2"}), two);
  CHECK(started.exit_code == 9);
  CHECK(started.err.find("one of 2 processes, but this program knows one alone") !=
        std::string::npos);
  WriteWhole(setup.folder / "one.txt", "Once upon a time there was one document only.");
  const ProgramResult one =
      RunProgram({"pretrain", setup.config, setup.folder / "one.txt", out, "--tokenizer", kModel});
  CHECK(one.exit_code == 2);
  CHECK(one.err.find("--held-out") != std::string::npos);
  const std::string before = ReadWhole(setup.text);
  CHECK(RunProgram(
            {"pretrain", setup.config, setup.text, setup.text, "--tokenizer", kModel, "--force"})
            .exit_code == 2);
  CHECK(ReadWhole(setup.text) == before);
  const ProgramResult context = RunProgram(
      {"pretrain", setup.config, setup.text, out, "--tokenizer", kModel, "--sequence", "512"});
  CHECK(context.exit_code == 2);
  CHECK(context.err.find("context of 256") != std::string::npos);
  const ProgramResult none =
      RunProgram({"pretrain", setup.config, setup.text, out, "--steps", "2"});
  CHECK(none.exit_code == 3);  // no tokenizer beside the config
  CHECK(none.err.find("--tokenizer") != std::string::npos);
  CHECK(RunProgram({"finetune", setup.config, setup.text, out}).exit_code == 2);
  CHECK(RunProgram({"pretrain", BaseModel(), setup.text, out}).exit_code == 2);
  std::string wider = ReadWhole(setup.config);
  wider.replace(wider.find("2048"), 4, "2112");
  WriteWhole(setup.folder / "wider.json", wider);
  const ProgramResult rows =
      RunProgram({"distill", kModel, setup.text, out, "--student", setup.folder / "wider.json"});
  CHECK(rows.exit_code == 2);
  CHECK(rows.err.find("same vocabulary") != std::string::npos);
  const ProgramResult alpha =
      RunProgram({"distill", kModel, setup.text, out, "--student", setup.config, "--alpha", "2"});
  CHECK(alpha.exit_code == 2);
  CHECK(alpha.err.find("alpha") != std::string::npos);
  const auto distilling = [&](std::vector<std::string> more, const std::string& part) {
    CAPTURE(part);
    more.insert(more.begin(), {"distill", kModel, setup.text, out, "--student", setup.config});
    const ProgramResult result = RunProgram(more);
    CHECK(result.exit_code == 2);
    CHECK(result.err.find(part) != std::string::npos);
  };
  distilling({"--match-hidden", "-1"}, "matching hidden states must be from 0");
  distilling({"--match-attention", "1", "--teacher-engine", "runtime"}, "teacher in floats");
  distilling({"--on-policy", "2"}, "from 0 to 1");
  distilling({"--on-policy", "1", "--alpha", "0"}, "alpha 0");
  distilling({"--on-policy-tokens", "5"}, "--on-policy");
}

}  // namespace
}  // namespace edgewise
