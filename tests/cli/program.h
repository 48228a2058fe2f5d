// Runs the built edgewise program as a user would and returns what it said.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/json.h"
#include "tests/test_data.h"

namespace edgewise {

struct ProgramResult {
  int exit_code = -1;  // 128 + signal when it was killed
  std::string out, err;
  uint64_t elapsed_us = 0;
};

inline void WriteWhole(const std::string& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary);
  file << bytes;
  REQUIRE(file.good());
}

struct ProgramOptions {
  std::string input;        // standard input
  std::string stdout_path;  // instead of a captured file
  std::vector<std::pair<std::string, std::string>> environment;
  int user = -1;  // run as this user id (needs root)
  // What starts the program: the words before its path, of which the first is the launcher's path.
  std::vector<std::string> launcher;
};

inline ProgramResult RunProgram(const std::vector<std::string>& arguments,
                                const ProgramOptions& options = {}) {
  TemporaryFolder folder;
  const std::string in = folder / "in", err = folder / "err";
  const std::string out = options.stdout_path.empty() ? folder / "out" : options.stdout_path;
  WriteWhole(in, options.input);
  const auto start = std::chrono::steady_clock::now();
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::dup2(::open(in.c_str(), O_RDONLY), STDIN_FILENO);
    ::dup2(::open(out.c_str(), O_WRONLY | O_CREAT, 0600), STDOUT_FILENO);
    ::dup2(::open(err.c_str(), O_WRONLY | O_CREAT, 0600), STDERR_FILENO);
    for (const auto& [name, value] : options.environment) ::setenv(name.c_str(), value.c_str(), 1);
    if (options.user >= 0 && ::setuid(static_cast<uid_t>(options.user)) != 0) ::_exit(99);
    std::vector<char*> argv;
    for (const std::string& word : options.launcher)
      argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(const_cast<char*>(EDGEWISE_PROGRAM));
    for (const std::string& argument : arguments)
      argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    ::execv(argv[0], argv.data());
    ::_exit(98);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  ProgramResult result;
  result.elapsed_us = static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(
                                                std::chrono::steady_clock::now() - start)
                                                .count());
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  if (options.stdout_path.empty()) result.out = ReadWhole(out);
  result.err = ReadWhole(err);
  return result;
}

// Starts the program and sends `signal` after `delay_us`. Returns waitpid's status.
inline int SignalProgram(std::vector<std::string> arguments, int signal, uint64_t delay_us) {
  std::vector<char*> argv = {const_cast<char*>(EDGEWISE_PROGRAM)};
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  // The test runner's own handler must not see a signal that comes before the program starts.
  sigset_t mask;
  ::sigemptyset(&mask);
  ::sigaddset(&mask, SIGINT);
  ::sigprocmask(SIG_BLOCK, &mask, nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGINT, SIG_DFL);
    ::sigprocmask(SIG_UNBLOCK, &mask, nullptr);
    ::execv(EDGEWISE_PROGRAM, argv.data());
    ::_exit(98);
  }
  ::sigprocmask(SIG_UNBLOCK, &mask, nullptr);
  std::this_thread::sleep_for(std::chrono::microseconds(delay_us));
  ::kill(child, signal);
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

// Stops runs of `again`, which resumes and writes `cut`, by each of `signals` a third of `whole_us`
// after their start, until `cut` is there; then lets one end. `whole` is what a run of `whole_us`
// that was not stopped has written: the bytes are the same.
inline void StopAndGoOn(const std::vector<std::string>& again, const std::string& cut,
                        const std::vector<int>& signals, const std::string& whole,
                        uint64_t whole_us) {
  int stops = 0;
  for (const int signal : signals) {
    if (std::filesystem::exists(cut)) break;
    const int status = SignalProgram(again, signal, whole_us / 3);
    const bool stopped = WIFSIGNALED(status) || WEXITSTATUS(status) == 130;
    CHECK((stopped || WEXITSTATUS(status) == 0));
    stops += stopped;
  }
  CHECK(stops > 0);
  if (!std::filesystem::exists(cut)) {
    const ProgramResult rest = RunProgram(again);
    CAPTURE(rest.err);
    REQUIRE(rest.exit_code == 0);
  }
  CHECK(ReadWhole(cut) == ReadWhole(whole));
}

// The object that `edgewise VERB --json` printed.
inline Json ParseObject(const ProgramResult& result, const std::string& verb) {
  CAPTURE(result.err);
  REQUIRE(result.exit_code == 0);
  auto json = ParseJson(result.out);
  REQUIRE(json);
  CHECK(*json->Find("schema")->AsString() == "edgewise." + verb + "/1");
  CHECK(json->Find("version") != nullptr);
  return *json;
}

inline double Number(const Json& object, const char* key) {
  CAPTURE(key);
  REQUIRE(object.Find(key) != nullptr);
  REQUIRE(object.Find(key)->AsDouble());
  return *object.Find(key)->AsDouble();
}

// The bundled model as F16, made once for a run of tests.
inline const std::string& BaseModel() {
  static const TemporaryFolder folder;
  static const std::string path = [] {
    const std::string out = folder / "base.gguf";
    REQUIRE(RunProgram({"convert", SourcePath("models/edgewise-stories-3M"), out}).exit_code == 0);
    return out;
  }();
  return path;
}

}  // namespace edgewise
