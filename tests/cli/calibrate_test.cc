// Calibration through the program, and what it is for: quantizing by what the layers see.
#include <doctest/doctest.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>

#include "tests/cli/program.h"

namespace edgewise {
namespace {

TEST_CASE("calibrate, then quantize by what the layers see") {
  TemporaryFolder folder;
  const std::string text = ReadWhole(SourcePath("models/edgewise-stories-3M/stories.txt"));
  WriteWhole(folder / "head.txt", text.substr(0, 12000));
  WriteWhole(folder / "tail.txt", text.substr(60000));
  const std::string calibration = folder / "c.gguf";
  const Json made = ParseObject(
      RunProgram({"calibrate", BaseModel(), folder / "head.txt", calibration, "--json"}),
      "calibrate");
  CHECK(Number(made, "weights") == 29);
  CHECK(Number(made, "tokens") > 2500);
  const auto divergence = [&](const std::string& model) {
    return Number(ParseObject(RunProgram({"eval", model, "--kl", BaseModel(), "--text",
                                          folder / "tail.txt", "--json"}),
                              "eval"),
                  "kl_mean");
  };
  double before = 1e9;
  for (const std::string method : {"rtn", "imatrix", "gptq"}) {
    CAPTURE(method);
    std::vector<std::string> command = {"quantize", BaseModel(), folder / method, "--to",
                                        "q3_k_s",   "--method",  method,          "--json"};
    if (method != "rtn") command.insert(command.end(), {"--calibration", calibration});
    ParseObject(RunProgram(command), "quantize");
    const double now = divergence(folder / method);
    MESSAGE(method << ": mean KL divergence " << now);
    if (method == "gptq") CHECK(now < 0.7 * before);
    before = std::min(before, now);
  }
  // A text in place of the file: each layer sees what the quantized layers before it give.
  ParseObject(RunProgram({"quantize", BaseModel(), folder / "text", "--to", "q3_k_s", "--method",
                          "gptq", "--calibration", folder / "head.txt", "--json"}),
              "quantize");
  CHECK(divergence(folder / "text") < 1.2 * divergence(folder / "gptq"));
  // Any number of threads gives the same bytes.
  ParseObject(RunProgram({"quantize", BaseModel(), folder / "one", "--to", "q3_k_s", "--method",
                          "gptq", "--calibration", calibration, "--threads", "1", "--json"}),
              "quantize");
  CHECK(ReadWhole(folder / "one") == ReadWhole(folder / "gptq"));
}

TEST_CASE("a calibration that was stopped goes on where it was") {
  TemporaryFolder folder;
  const std::string text = ReadWhole(SourcePath("models/edgewise-stories-3M/stories.txt"));
  WriteWhole(folder / "text.txt", text.substr(0, 24000));
  const std::vector<std::string> command = {
      "calibrate", BaseModel(), folder / "text.txt", folder / "whole.gguf", "--part-tokens",
      "1500",      "--json"};
  ParseObject(RunProgram(command), "calibrate");
  std::vector<std::string> again = command;
  again[3] = folder / "again.gguf";
  // Ends the program when its first part is there.
  const pid_t child = ::fork();
  if (child == 0) {
    std::vector<char*> words = {const_cast<char*>(EDGEWISE_PROGRAM)};
    for (std::string& word : again) words.push_back(word.data());
    words.push_back(nullptr);
    ::execv(EDGEWISE_PROGRAM, words.data());
    ::_exit(98);
  }
  const std::string part = folder / "again.gguf.part";
  int status = 0;
  while (!std::filesystem::exists(part) && ::waitpid(child, &status, WNOHANG) == 0) ::usleep(1000);
  ::kill(child, SIGKILL);
  ::waitpid(child, &status, 0);
  REQUIRE(WIFSIGNALED(status));
  CHECK_FALSE(std::filesystem::exists(folder / "again.gguf"));
  again.push_back("--resume");
  const Json resumed = ParseObject(RunProgram(again), "calibrate");
  CHECK(Number(resumed, "resumed_tokens") >= 1500);
  CHECK(ReadWhole(folder / "again.gguf") == ReadWhole(folder / "whole.gguf"));
  CHECK_FALSE(std::filesystem::exists(part));
  const Json merged =
      ParseObject(RunProgram({"calibrate", "--merge", folder / "whole.gguf", "--merge",
                              folder / "again.gguf", "--output", folder / "twice.gguf", "--json"}),
                  "calibrate");
  CHECK(Number(merged, "tokens") == 2 * Number(resumed, "tokens"));
}

}  // namespace
}  // namespace edgewise
