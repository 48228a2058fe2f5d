// edgewise fit: the best model within a budget, found by measuring this machine.
#include "pipeline/fit.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
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
const std::map<std::string, double> kTimes = {{"us", 1e-3}, {"ms", 1.0}, {"s", 1e3}};

Result<uint64_t> ToBytes(double bytes, const char* flag) {
  if (bytes >= 0 && bytes < 0x1p60) return static_cast<uint64_t>(bytes);
  return MakeError(Code::kInvalidArgument, "%s must be a size from 0 B to 2^60 B", flag);
}

struct FitFlags {
  std::string model, kv = "f16", candidates;
  double memory = 0, size = 0;  // bytes
  uint32_t context = 0, repetitions = 5;
  bool dry_run = false;
  FitOptions options;
};

// Runs this program with `arguments` and returns its standard output; it ends when we do.
Result<std::string> RunSelf(const std::vector<std::string>& arguments) {
  std::vector<char*> argv = {const_cast<char*>("edgewise")};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  int ends[2];
  const pid_t parent = ::getpid();
  pid_t child = -1;
  if (::pipe2(ends, O_CLOEXEC) == 0) child = ::fork();
  if (child < 0) {
    return MakeError(Code::kIo, "cannot start a process: %s", std::strerror(errno));
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
  EW_TRY(Json json, ParseJson(text).In("edgewise bench"));
  const Json* error = json.Find("error");
  if (!error) return json;
  return MakeError(Code::kUnsupported, "edgewise bench: %s",
                   error->Find("message")->AsString()->c_str());
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
  EW_TRY(options.budget.memory_bytes, ToBytes(flags.memory, "--memory"));
  EW_TRY(options.budget.file_bytes, ToBytes(flags.size, "--size"));
  if (!(options.budget.p99_ms >= 0)) {
    return MakeError(Code::kInvalidArgument, "--p99 must be a time above 0");
  }
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
                 "Budget: resident memory at its peak while running, as 1GB or 900MiB")
      ->transform(CLI::AsNumberWithUnit(kSizes, CLI::AsNumberWithUnit::UNIT_OPTIONAL, "SIZE"));
  app.add_option("--size", flags->size, "Budget: bytes of the file, as 500MB")
      ->transform(CLI::AsNumberWithUnit(kSizes, CLI::AsNumberWithUnit::UNIT_OPTIONAL, "SIZE"));
  app.add_option("--p99", options.budget.p99_ms,
                 "Budget: 99th percentile of a token's latency, as 50ms")
      ->transform(CLI::AsNumberWithUnit(kTimes, CLI::AsNumberWithUnit::UNIT_OPTIONAL, "TIME"));
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
