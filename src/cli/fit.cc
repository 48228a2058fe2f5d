// edgewise fit: the best model within a budget, found by measuring this machine.
#include "pipeline/fit.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>

#include "base/file.h"
#include "base/strings.h"
#include "cli/command.h"
#include "cli/generation_flags.h"
#include "cli/output.h"
#include "cli/work_folder.h"
#include "model/checkpoint.h"
#include "pipeline/fit_report.h"
#include "pipeline/quality_card.h"

namespace edgewise::cli {
namespace {

const std::map<std::string, double> kSizes = {{"B", 1.0},     {"KB", 1e3},     {"MB", 1e6},
                                              {"GB", 1e9},    {"KiB", 0x1p10}, {"MiB", 0x1p20},
                                              {"GiB", 0x1p30}};
// A small model's step takes less than a millisecond: a moment's disturbance must not decide.
constexpr const char* kBenchSeconds = "0.5";
const std::map<std::string, double> kTimes = {{"us", 1e-3}, {"ms", 1.0}, {"s", 1e3}};

// Reads "2.5MB" by the table of units; without a unit it is one of 1. Empty: 0.
Result<double> ReadQuantity(const std::string& text, const std::map<std::string, double>& units,
                            const char* flag) {
  if (text.empty()) return 0.0;
  const size_t end = std::min(text.find_first_not_of("0123456789.eE+-"), text.size());
  const auto number = ParseDouble(std::string_view(text).substr(0, end));
  const auto unit = units.find(text.substr(end));
  if (number && *number > 0 && (end == text.size() || unit != units.end())) {
    return *number * (end == text.size() ? 1 : unit->second);
  }
  std::vector<std::string> names;
  for (const auto& row : units) names.push_back(row.first);
  return MakeError(Code::kInvalidArgument, "%s %s: must be a number above 0 with a unit of %s",
                   flag, Quote(text).c_str(), Join(names, ", ").c_str());
}

Result<uint64_t> ReadBytes(const std::string& text, const char* flag) {
  EW_TRY(const double bytes, ReadQuantity(text, kSizes, flag));
  if (text.empty() || (bytes >= 0.5 && bytes < 0x1p60)) {
    return static_cast<uint64_t>(std::llround(bytes));
  }
  return MakeError(Code::kInvalidArgument, "%s must be a size from 1 B to 2^60 B", flag);
}

struct FitFlags {
  std::string model, kv = "f16", candidates, memory, size, p99;
  uint32_t context = 0, repetitions = 5;
  bool dry_run = false;
  FitOptions options;
};

// What a run of this program that ended with `exit_code` says of it, in the object that it printed
// if it did.
Error FailureOf(int exit_code, const std::string& text) {
  Error error{CodeOfExit(exit_code), Format("it ended with exit code %d", exit_code)};
  const auto json = ParseJson(text);
  const Json* object = json ? json->Find("error") : nullptr;
  const Json* message = object ? object->Find("message") : nullptr;
  if (message && message->AsString()) error.message = *message->AsString();
  error.message = "edgewise bench: " + error.message;
  return error;
}

// Runs this program with `arguments` and returns its standard output; it ends when we do.
Result<std::string> RunSelf(const std::vector<std::string>& arguments) {
  std::vector<char*> argv = {const_cast<char*>("edgewise")};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  int ends[2] = {-1, -1};
  const pid_t parent = ::getpid();
  pid_t child = -1;
  if (::pipe2(ends, O_CLOEXEC) == 0) child = ::fork();
  if (child < 0) {
    const Error error = MakeError(Code::kIo, "cannot start a process: %s", std::strerror(errno));
    for (const int end : ends) ::close(end);
    return error;
  }
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    ::dup2(ends[1], STDOUT_FILENO);
    ::dup2(::open("/dev/null", O_WRONLY), STDERR_FILENO);
    ::execv("/proc/self/exe", argv.data());
    ::_exit(1);
  }
  ::close(ends[1]);
  const FileDescriptor out(ends[0]);
  std::string text;
  char piece[4096];
  for (ssize_t n; (n = ::read(out.get(), piece, sizeof(piece))) > 0 || (n < 0 && errno == EINTR);) {
    if (n > 0) text.append(piece, static_cast<size_t>(n));
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) != 0) return FailureOf(WEXITSTATUS(status), text);
  if (WIFSIGNALED(status)) {
    return MakeError(WTERMSIG(status) == SIGKILL ? Code::kOutOfMemory : Code::kCancelled,
                     "`edgewise %s` was ended by signal %d", arguments.front().c_str(),
                     WTERMSIG(status));
  }
  return text;
}

// `edgewise bench` on a model, in a process of its own: nothing of the search is in its memory.
Result<Json> Bench(const std::string& path, const std::vector<std::string>& settings) {
  std::vector<std::string> arguments = {"bench", path, "--json", "--quiet"};
  arguments.insert(arguments.end(), settings.begin(), settings.end());
  EW_TRY(const std::string text, RunSelf(arguments));
  return ParseJson(text).In("edgewise bench");
}

// How speed and memory are measured: decoding up to the end of a context of `--ctx` tokens.
Status SetBench(FitFlags* flags, const Common& common) {
  EW_TRY(const Checkpoint model, Checkpoint::Open(flags->model));
  const uint32_t trained = model.spec().context_length;
  const uint32_t context = flags->context > 0 ? flags->context : std::min(trained, 4096u);
  if (context > trained) {
    return MakeError(Code::kInvalidArgument, "--ctx %u: the model was trained for %u tokens",
                     context, trained);
  }
  const uint32_t decoded = std::min(128u, context / 4);
  const std::vector<std::string> settings = {"--prompt-tokens",
                                             std::to_string(context - decoded),
                                             "--decode-tokens",
                                             std::to_string(decoded),
                                             "--repetitions",
                                             std::to_string(flags->repetitions),
                                             "--min-seconds",
                                             kBenchSeconds,
                                             "--kv",
                                             flags->kv,
                                             "--threads",
                                             std::to_string(common.Threads())};
  flags->options.bench_settings = Join(settings, " ");
  flags->options.bench = [settings](const std::string& path) { return Bench(path, settings); };
  return Ok{};
}

std::string PlanText(const FitSummary& summary) {
  return TextTable(FitTable(summary, true)) +
         Format("\nbudget   %s\ntext     %s\nsearch   at most about %s\n",
                BudgetText(summary.budget).c_str(), summary.texts.c_str(),
                FormatSeconds(summary.estimated_seconds).c_str());
}

std::string ResultText(const FitSummary& summary, bool quiet) {
  std::string text = TextTable(FitTable(summary, false));
  const auto dropouts = FitDropouts(summary);
  if (!quiet && !dropouts.empty()) text += "\n" + TextTable(dropouts);
  if (!summary.chosen || quiet) return text;
  text += Format("\nbudget   %s\ntext     %s\n", BudgetText(summary.budget).c_str(),
                 summary.texts.c_str());
  return text +
         Format("wrote    %s, %s, %s in %s\n", summary.outputs.model.c_str(),
                summary.outputs.recipe.c_str(), summary.outputs.report.c_str(),
                FormatSeconds(summary.seconds).c_str()) +
         CardText(summary.card);
}

Status RunFit(FitFlags& flags, const Common& common) {
  FitOptions& options = flags.options;
  EW_TRY(options.budget.memory_bytes, ReadBytes(flags.memory, "--memory"));
  EW_TRY(options.budget.file_bytes, ReadBytes(flags.size, "--size"));
  EW_TRY(options.budget.p99_ms, ReadQuantity(flags.p99, kTimes, "--p99"));
  EW_TRY(options.kv_format, KvFormatFromName(flags.kv));
  if (!flags.candidates.empty()) {
    for (const std::string_view name : Split(flags.candidates, ",")) {
      options.candidates.emplace_back(Trim(name));
    }
  }
  options.threads = common.Threads();
  EW_TRY(SetBench(&flags, common));
  if (flags.dry_run) {
    EW_TRY(const WorkFolder folder, WorkFolder::Make("fit", ""));
    options.work_folder = folder.path();
    EW_TRY(const FitSummary plan, PlanFit(flags.model, options, common.progress));
    return common.json ? PrintJson("fit", ToJson(plan).Set("dry_run", true))
                       : Print(PlanText(plan));
  }
  EW_TRY(const FitSummary summary, Fit(flags.model, options, common.progress));
  EW_TRY(common.json ? PrintJson("fit", ToJson(summary).Set("dry_run", false))
                     : Print(ResultText(summary, common.quiet)));
  if (summary.chosen) return Ok{};
  return MakeError(Code::kUnsupported,
                   "%s; nothing was written. What was measured is kept: give another budget and "
                   "--resume",
                   summary.shortfall.c_str());
}

}  // namespace

Runner AddFit(CLI::App& app, const Common& common) {
  auto flags = std::make_shared<FitFlags>();
  FitOptions& options = flags->options;
  app.add_option("model", flags->model, "GGUF file, Hugging Face folder or llama2.c checkpoint")
      ->required();
  app.add_option("output,--output", options.output,
                 "GGUF file to write; its recipe, texts and report stand beside it")
      ->required();
  app.add_option("--text", options.text_path,
                 "Text like what the model will read: half of its documents calibrate, quality is "
                 "measured on the others")
      ->required();
  app.add_option("--memory", flags->memory,
                 "Budget: resident memory at its peak while running, as 1GB or 900MiB");
  app.add_option("--size", flags->size, "Budget: bytes of the file, as 500MB or 3MiB");
  app.add_option("--p99", flags->p99, "Budget: 99th percentile of a token's latency, as 50ms");
  app.add_option("--ctx", flags->context,
                 "Context that memory and speed are of (default: the trained one, at most 4096)")
      ->check(CLI::Range(8u, 1u << 30));
  AddKvFlag(app, &flags->kv);
  app.add_option("--repetitions", flags->repetitions, "Runs for each speed")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--candidates", flags->candidates,
                 "Only these of the space, separated by commas; --dry-run lists all");
  app.add_option("--tokenizer", options.tokenizer_path,
                 "Tokenizer file, where the model does not bring one (llama2.c)");
  app.add_flag("--resume", options.resume,
               "Go on where a stopped run left OUTPUT.journal; begins where there is none");
  app.add_flag("--force", options.overwrite,
               "Replace existing outputs, and without --resume a journal");
  app.add_flag("--dry-run", flags->dry_run,
               "Print the candidates with exact sizes and predicted speed, and how long the search "
               "takes at most; write nothing");
  return [flags, &common] { return RunFit(*flags, common); };
}

}  // namespace edgewise::cli
