// The program: one table of subcommands, parsing, and the one place where errors become messages
// and exit codes.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "base/strings.h"
#include "base/thread_pool.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "kernels/kernels.h"
#include "train/communicator.h"

namespace edgewise::cli {

int Common::Threads() const { return threads > 0 ? threads : ThreadPool::AvailableCpus(); }

namespace {

constexpr Command kCommands[] = {
    {"inspect", "Show what a model file holds, and check all of it",
     "edgewise inspect model.gguf\n  edgewise inspect models/edgewise-stories-3M --json",
     AddInspect},
    {"convert", "Convert a Hugging Face folder, llama2.c or GGUF model to GGUF",
     "edgewise convert models/edgewise-stories-3M stories-f16.gguf\n"
     "  edgewise convert stories260K.bin stories.gguf --tokenizer tok512.bin --to f32",
     AddConvert},
    {"calibrate", "Run text through a model and keep what its linear layers see",
     "edgewise calibrate model-f16.gguf text.txt model.calibration.gguf\n"
     "  edgewise calibrate model-f16.gguf text.txt imatrix.gguf --no-hessians --tokens 100000\n"
     "  edgewise calibrate --merge a.gguf --merge b.gguf --output both.gguf",
     AddCalibrate},
    {"prune", "Set the weights that matter least to zero, or remove structure",
     "edgewise prune stories-f16.gguf stories-2of4.gguf --method alps --sparsity 2:4 --calibration "
     "text.txt\n"
     "  edgewise prune model.gguf half.gguf --method wanda --sparsity 50% --calibration "
     "calibration.gguf --json\n"
     "  edgewise prune stories-f16.gguf smaller.gguf --method flap --ffn 25% --heads 25% "
     "--calibration text.txt",
     AddPrune},
    {"distill", "Train a small model to give a large one's probabilities",
     "edgewise distill teacher.gguf text.txt student.gguf --student config.json --epochs 3\n"
     "  edgewise distill model-f16.gguf text.txt healed.gguf --student pruned.gguf --keep-zeros\n"
     "  edgewise distill text.txt student.gguf --cache text.cache --student config.json "
     "--tokenizer teacher.gguf\n"
     "  edgewise distill teacher.gguf text.txt student.gguf --student config.json --dry-run --json",
     AddDistill},
    {"finetune", "Train a model further on text",
     "edgewise finetune model-f16.gguf text.txt tuned.gguf --learning-rate 5e-5\n"
     "  edgewise finetune model-f16.gguf text.txt tuned.gguf --resume\n"
     "  edgewise finetune model-q4_0.gguf rows.jsonl tuned.gguf --lora-rank 8 --lora-out adapter",
     AddFinetune},
    {"pretrain", "Train a new model on text",
     "edgewise pretrain config.json stories.txt new.gguf --tokenizer models/edgewise-stories-3M "
     "--epochs 5\n"
     "  edgewise pretrain config.json stories.txt new.gguf --steps 2000 --held-out held-out.txt",
     AddPretrain},
    {"quantize", "Write a smaller GGUF in a quantized format",
     "edgewise quantize stories-f16.gguf stories-q4.gguf --to q4_k_m\n"
     "  edgewise quantize stories-f16.gguf stories-q4.gguf --to q4_k_m --method gptq --calibration "
     "text.txt\n"
     "  edgewise quantize model.gguf out.gguf --target-bpw 4.5 --method gptq --calibration "
     "calibration.gguf\n"
     "  edgewise quantize model.gguf out.gguf --to q4_0 --tensor-type 'ffn_down=q6_k' --dry-run",
     AddQuantize},
    {"pack", "Write a quantized GGUF as the kernels read it: it loads at once, in Edgewise only",
     "edgewise pack stories-q4.gguf stories-q4-packed.gguf\n"
     "  edgewise pack model.gguf model-packed.gguf --force --json",
     AddPack},
    {"unpack", "Write a packed GGUF in rows again, with the same tensors as before",
     "edgewise unpack stories-q4-packed.gguf stories-q4.gguf\n"
     "  edgewise unpack model-packed.gguf model.gguf --force --json",
     AddUnpack},
    {"export", "Write a Hugging Face folder: floats, or linear layers quantized for other runtimes",
     "edgewise export models/edgewise-stories-3M stories-gptq --to gptq\n"
     "  edgewise export model-folder model-awq --to awq --group-size 64 --json\n"
     "  edgewise export tuned.gguf tuned --to f16 --config model-folder --tokenizer model-folder",
     AddExport},
    {"compress", "Compress a model as a recipe says, measure the result; goes on after a stop",
     "edgewise compress recipe.yaml\n  edgewise compress recipe.yaml --resume\n"
     "  edgewise compress recipe.yaml --dry-run --json",
     AddCompress},
    {"fit", "Search the model nearest to the original that this machine runs within a budget",
     "edgewise fit models/edgewise-stories-3M stories-fit.gguf --size 2MB --text text.txt\n"
     "  edgewise fit model.gguf small.gguf --memory 1GB --p99 50ms --text text.txt\n"
     "  edgewise fit model.gguf small.gguf --p99 50ms --text text.txt --dry-run",
     AddFit},
    {"recipe", "Write a recipe to begin with, or check one",
     "edgewise recipe init recipe.yaml --model models/edgewise-stories-3M\n"
     "  edgewise recipe check recipe.yaml",
     AddRecipe},
    {"reproduce", "Make a compressed file again from the recipe in it, and compare every byte",
     "edgewise reproduce stories-q4.gguf --recipe recipe.yaml\n"
     "  edgewise reproduce stories-q4.gguf --model stories.gguf --calibration text.txt "
     "--evaluation "
     "held-out.txt",
     AddReproduce},
    {"run", "Continue a prompt",
     "edgewise run stories-q4.gguf --prompt \"Once upon a time\" --max-tokens 100\n"
     "  edgewise run stories-q4.gguf --prompt \"One day\" --temperature 0 --quiet\n"
     "  edgewise run large.gguf --draft small.gguf --file question.txt --chat",
     AddRun},
    {"chat", "Talk with a model that has a chat template",
     "edgewise chat tinyllama-q4.gguf\n  edgewise chat tinyllama-q4.gguf --system \"Answer "
     "briefly.\" --temperature 0.5",
     AddChat},
    {"sample",
     "Write text of a model's own distribution: to learn from, to calibrate or measure with",
     "edgewise sample models/edgewise-stories-3M stories.txt --tokens 100000\n"
     "  edgewise sample model.gguf own.txt --tokens 50000 --seed 7",
     AddSample},
    {"eval", "Measure quality: perplexity, or divergence from a base model",
     "edgewise eval stories-q4.gguf --perplexity stories.txt\n"
     "  edgewise eval stories-q4.gguf --kl stories-f16.gguf --text stories.txt --json",
     AddEval},
    {"audit", "Show what compression changed in a model, or what was planted in a training set",
     "edgewise audit stories-f16.gguf stories-q4.gguf --file stories.txt --output audit.html\n"
     "  edgewise audit data train.jsonl",
     AddAudit},
    {"bench", "Measure speed, latency and memory",
     "edgewise bench stories-q4.gguf\n  edgewise bench model.gguf --prompt-tokens 512 "
     "--decode-tokens 128 --json",
     AddBench},
    {"report", "Quantize to several formats, measure each against the original, write a report",
     "edgewise report models/edgewise-stories-3M --output report.html\n"
     "  edgewise report model.gguf --formats q8_0,q4_k_m,q4_0 --text held-out.txt --output "
     "report.html",
     AddReport},
    {"doctor", "Show what this machine can do, and how near a model comes to it",
     "edgewise doctor\n  edgewise doctor stories-q4.gguf --json", AddDoctor},
    {"tokenize", "Turn text into token ids",
     "edgewise tokenize stories-q4.gguf --prompt \"Once upon a time\"\n"
     "  edgewise tokenize model.gguf --file prompt.txt --no-special --json",
     AddTokenize},
    {"detokenize", "Turn token ids into text",
     "edgewise detokenize stories-q4.gguf --ids 556,436,261\n  edgewise detokenize model.gguf "
     "--file ids.txt --json",
     AddDetokenize},
};

// "--ctx_size" is accepted for "--ctx-size", as scripts written for other tools have it.
std::vector<std::string> Arguments(int argc, char** argv) {
  std::vector<std::string> arguments;
  for (int i = argc - 1; i > 0; --i) {  // CLI11 takes them last first
    std::string argument = argv[i];
    if (argument.rfind("--", 0) == 0) {
      for (char& c : argument) {
        if (c == '=') break;
        if (c == '_') c = '-';
      }
    }
    arguments.push_back(std::move(argument));
  }
  return arguments;
}

void AddCommonFlags(CLI::App* app, Common* common) {
  app->add_flag("--json", common->json, "Print one JSON object on stdout");
  app->add_flag("--quiet", common->quiet, "Print results only: no progress, no remarks");
  app->add_option("--threads", common->threads,
                  "Threads to use (default: every CPU this process may use)")
      ->check(CLI::Range(1, 1024));
}

int Fail(const char* verb, const Common& common, const Error& error) {
  std::fprintf(stderr, "edgewise %s: %s\n", verb, error.message.c_str());
  if (common.json && !JsonPrinted()) {
    Json object;
    object.Set("error", Json().Set("code", CodeName(error.code)).Set("message", error.message));
    // The exit code tells the same when stdout is what failed.
    static_cast<void>(PrintJson(verb, object));
  }
  return ExitCode(error.code);
}

int Usage(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App* verb = &app;
  for (const CLI::App* sub : app.get_subcommands()) verb = sub;
  const std::string name = verb == &app ? "edgewise" : "edgewise " + verb->get_name();
  std::fprintf(stderr, "%s: %s\nRun `%s --help` for what it takes.\n", name.c_str(), error.what(),
               name.c_str());
  return ExitCode(Code::kInvalidArgument);
}

int Main(int argc, char** argv) {
  InstallSignalHandlers();
  CLI::App app(
      "Edgewise makes language models small and fast for edge devices, and shows what that cost.",
      "edgewise");
  const std::string mpi = train::MpiVersion();
  app.set_version_flag("--version",
                       std::string("edgewise ") + kVersion + (mpi.empty() ? "" : ", " + mpi));
  app.require_subcommand(1);
  app.footer(
      "Exit codes: 0 ok, 1 internal error, 2 usage, 3 input not found, 4 input malformed, 5 "
      "memory, 6 output,\n"
      "9 unsupported, 130 and 143 interrupted. `edgewise VERB --help` shows examples.");
  app.get_formatter()->column_width(34);

  Common common;
  struct Row {
    CLI::App* app;
    Runner run;
    const Command* command;
  };
  std::vector<Row> rows;
  for (const Command& command : kCommands) {
    CLI::App* sub = app.add_subcommand(command.name, command.summary);
    sub->footer(std::string("Examples:\n  ") + command.examples);
    Runner run = command.add(*sub, common);
    AddCommonFlags(sub, &common);
    for (CLI::App* nested : sub->get_subcommands([](CLI::App*) { return true; })) {
      AddCommonFlags(nested, &common);
    }
    rows.push_back({sub, std::move(run), &command});
  }

  try {
    app.parse(Arguments(argc, argv));
  } catch (const CLI::CallForHelp&) {
    return Print(app.help()) ? 0 : ExitCode(Code::kIo);
  } catch (const CLI::CallForVersion& version) {
    return Print(std::string(version.what()) + "\n") ? 0 : ExitCode(Code::kIo);
  } catch (const CLI::ParseError& error) {
    return Usage(app, error);
  }
  if (const char* problem = kernels::CheckIsa())
    return Fail("", common, Error{Code::kInvalidArgument, problem});
  for (const Row& row : rows) {
    if (!row.app->parsed()) continue;
    const std::unique_ptr<Progress> progress = MakeProgressBar(common.quiet);
    common.progress = progress.get();
    const Status status = row.run();
    if (!status) return Fail(row.command->name, common, status.error());
  }
  return 0;
}

}  // namespace
}  // namespace edgewise::cli

int main(int argc, char** argv) {
  try {
    return edgewise::cli::Main(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fputs(
        "edgewise: out of memory; close other programs or choose a smaller model or context\n",
        stderr);
    return 5;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "edgewise: internal error: %s; please report this\n", error.what());
    return 1;
  }
}
