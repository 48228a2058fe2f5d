// Training on several processes through the program: the same bytes as one makes, wherever it
// stops, and one message where it cannot be.
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <regex>
#include <thread>

#include "tests/cli/training_files.h"

namespace edgewise {
namespace {

const std::string kModel = SourcePath("models/edgewise-stories-3M");

// mpirun, which refuses root and more processes than CPUs unless it is told not to.
ProgramOptions Processes(int count) {
  ProgramOptions options;
  options.launcher = {
      EDGEWISE_MPIRUN,      "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n",
      std::to_string(count)};
  return options;
}

struct Setup : TrainingFiles {
  std::vector<std::string> Pretrain(const std::string& out, std::vector<std::string> more) const {
    std::vector<std::string> command = {"pretrain",    config,
                                        text,          out,
                                        "--tokenizer", kModel,
                                        "--sequence",  "64",
                                        "--threads",   "1",
                                        "--json",      "--batch-tokens",
                                        "256",         "--accumulate",
                                        "4",           "--evaluate-every",
                                        "4",           "--learning-rate",
                                        "0.01"};
    command.insert(command.end(), more.begin(), more.end());
    return command;
  }
};

// The command with another value of a flag.
std::vector<std::string> With(std::vector<std::string> command, const std::string& flag,
                              const std::string& value) {
  const auto found = std::find(command.begin(), command.end(), flag);
  REQUIRE(found != command.end());
  *(found + 1) = value;
  return command;
}

// The log without what a clock says.
std::string Log(const std::string& out) {
  static const std::regex seconds(R"("seconds": *[0-9.e+-]+)");
  return std::regex_replace(ReadWhole(out + ".log.jsonl"), seconds, "");
}

TEST_CASE("the program says that it has MPI") {
  CHECK(RunProgram({"--version"}).out.find("Open MPI") != std::string::npos);
}

TEST_CASE("two processes and four make the bytes of one, the log included") {
  const Setup setup;
  const std::string one = setup.folder / "one.gguf";
  const std::vector<std::string> flags = {"--steps", "12", "--dropout", "0.1"};
  const Json alone = ParseObject(RunProgram(setup.Pretrain(one, flags)), "pretrain");
  CHECK(Number(alone, "held_out_loss") < Number(alone, "first_loss") - 0.5);
  for (const int count : {2, 4}) {
    CAPTURE(count);
    const std::string out = setup.folder / (std::to_string(count) + ".gguf");
    const ProgramResult result = RunProgram(setup.Pretrain(out, flags), Processes(count));
    const Json together = ParseObject(result, "pretrain");  // one object, of rank 0
    CHECK(ReadWhole(out) == ReadWhole(one));
    CHECK(Log(out) == Log(one));
    CHECK(Number(together, "held_out_loss") == Number(alone, "held_out_loss"));
    CHECK(!std::filesystem::exists(out + ".journal"));
  }
}

TEST_CASE("a student learns from a teacher and its cache on two processes as on one") {
  const Setup setup;
  const std::string cache = setup.folder / "text.cache";
  REQUIRE(RunProgram({"distill", "cache", BaseModel(), setup.text, cache, "--sequence", "64",
                      "--top", "8"})
              .exit_code == 0);
  const auto distill = [&](const std::string& out, bool cached) {
    std::vector<std::string> command = {"distill"};
    if (!cached) command.push_back(BaseModel());
    for (const std::string& word :
         {setup.text, out, std::string("--student"), setup.config, std::string("--tokenizer"),
          kModel, std::string("--sequence"), std::string("64"), std::string("--batch-tokens"),
          std::string("256"), std::string("--accumulate"), std::string("2"), std::string("--steps"),
          std::string("3"), std::string("--json")}) {
      command.push_back(word);
    }
    if (cached) {
      command.insert(command.end(), {"--cache", cache});
    } else {
      command.insert(command.end(), {"--match-hidden", "1", "--match-attention", "1", "--on-policy",
                                     "0.5", "--on-policy-tokens", "8"});
    }
    return command;
  };
  for (const bool cached : {false, true}) {
    const std::string suffix = cached ? "-cached.gguf" : "-live.gguf";
    const std::string one = setup.folder / ("one" + suffix), two = setup.folder / ("two" + suffix);
    REQUIRE(RunProgram(distill(one, cached)).exit_code == 0);
    const ProgramResult together = RunProgram(distill(two, cached), Processes(2));
    CAPTURE(together.err);
    REQUIRE(together.exit_code == 0);
    CHECK(ReadWhole(two) == ReadWhole(one));
  }
}

TEST_CASE("adapters, a quantizer and scales are learned on two processes as on one") {
  const Setup setup;
  const std::string quantized = setup.folder / "q4_0.gguf";
  REQUIRE(RunProgram({"quantize", kModel, quantized, "--to", "q4_0"}).exit_code == 0);
  const std::pair<std::string, std::vector<std::string>> runs[] = {
      {quantized, {"--lora-rank", "4", "--lora-dropout", "0.1", "--ema", "0.9"}},
      {kModel, {"--qat", "q3_k_s", "--learn-scales", "--moments", "8bit"}},
      {quantized, {"--scales-only"}}};
  for (const auto& [model, flags] : runs) {
    CAPTURE(flags.front());
    const std::string one = setup.folder / (flags.front() + "-one.gguf"),
                      two = setup.folder / (flags.front() + "-two.gguf");
    const auto finetune = [&, &model = model, &flags = flags](const std::string& out) {
      std::vector<std::string> command = {
          "finetune", model, setup.text,     out, "--sequence", "64", "--batch-tokens", "256",
          "--steps",  "2",   "--accumulate", "2", "--json"};
      command.insert(command.end(), flags.begin(), flags.end());
      return command;
    };
    REQUIRE(RunProgram(finetune(one)).exit_code == 0);
    const ProgramResult together = RunProgram(finetune(two), Processes(2));
    CAPTURE(together.err);
    REQUIRE(together.exit_code == 0);
    CHECK(ReadWhole(two) == ReadWhole(one));
  }
}

TEST_CASE("a killed run goes on with another number of processes to the same bytes") {
  const Setup setup;
  const std::string whole = setup.folder / "whole.gguf", cut = setup.folder / "cut.gguf";
  const std::vector<std::string> flags = {"--steps", "40", "--save-every", "2"};
  REQUIRE(RunProgram(setup.Pretrain(whole, flags)).exit_code == 0);
  std::vector<std::string> again = flags;
  again.push_back("--resume");
  ProgramOptions limited = Processes(2);
  limited.launcher.insert(limited.launcher.begin(), {"/usr/bin/timeout", "-s", "KILL", "1.2"});
  const int killed = RunProgram(setup.Pretrain(cut, again), limited).exit_code;
  CHECK((killed == 128 + SIGKILL || killed == 0));
  // The processes outlive the launcher that was killed until they notice, or to their end.
  for (int tries = 0; tries < 60 && !std::filesystem::exists(cut); ++tries) {
    const ProgramResult rest = RunProgram(setup.Pretrain(cut, again), Processes(4));
    CAPTURE(rest.err);
    const bool busy = rest.err.find("another process works on it") != std::string::npos;
    const bool done = rest.err.find("exists already") != std::string::npos;
    REQUIRE((rest.exit_code == 0 || busy || done));
    if (busy) std::this_thread::sleep_for(std::chrono::milliseconds(500));
  }
  CHECK(ReadWhole(cut) == ReadWhole(whole));
  CHECK(Log(cut) == Log(whole));
}

TEST_CASE("what cannot be is told once, by one process") {
  const Setup setup;
  const std::string out = setup.folder / "out.gguf";
  const auto fails = [&](const std::vector<std::string>& command, const std::string& part) {
    CAPTURE(part);
    const ProgramResult result = RunProgram(command, Processes(2));
    CAPTURE(result.err);
    CHECK(result.exit_code != 0);
    const size_t found = result.err.find(part);
    CHECK(found != std::string::npos);
    CHECK(result.err.find(part, found + 1) == std::string::npos);
    CHECK(!std::filesystem::exists(out));
    CHECK(!std::filesystem::exists(out + ".journal"));
  };
  fails(With(setup.Pretrain(out, {"--steps", "2"}), "--accumulate", "3"),
        "a step of 3 batches cannot be shared by 2 processes: accumulate a multiple of 2");
  fails(With(setup.Pretrain(out, {"--steps", "2"}), "--learning-rate", "0"), "learning rate");
  fails(setup.Pretrain(setup.folder / "none/out.gguf", {"--steps", "2"}), "none/out.gguf");
  fails({"distill", "cache", BaseModel(), setup.text, setup.folder / "x.cache"},
        "one process makes a cache");
  // The second process has other data, or none.
  const std::string other = setup.folder / "other.txt";
  WriteWhole(other, ReadWhole(setup.text).substr(0, 30000));
  for (const auto& [data, part] :
       {std::pair<std::string, std::string>{
            other, "process 1: has other options, models or data than process 0"},
        {setup.folder / "missing.txt", "process 1: " + setup.folder / "missing.txt"}}) {
    std::vector<std::string> command = setup.Pretrain(out, {"--steps", "2"});
    const std::vector<std::string> same = command;
    command.insert(command.end(), {":", "-n", "1", EDGEWISE_PROGRAM});
    for (const std::string& word : same) command.push_back(word == setup.text ? data : word);
    ProgramOptions first = Processes(1);
    const ProgramResult result = RunProgram(command, first);
    CAPTURE(result.err);
    CHECK(result.exit_code != 0);
    CHECK(result.err.find(part) != std::string::npos);
  }
}

}  // namespace
}  // namespace edgewise
