// Fit: searches the recipes of fit_space.h for the model nearest to the original that this machine
// runs within a budget, and writes it with its recipe.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/progress.h"
#include "base/result.h"
#include "kernels/kernels.h"
#include "pipeline/fit_search.h"

namespace edgewise {

// Measures the GGUF at a path as `edgewise bench --json` does, best in a process of its own.
// Returns the members of that object.
using FitBench = std::function<Result<Json>(const std::string& path)>;

struct FitOptions {
  FitBudget budget;
  std::string output;                   // GGUF to write
  std::string text_path;                // split by SplitText
  std::string tokenizer_path;           // as in EngineOptions
  std::vector<std::string> candidates;  // names of fit_space.h; empty: all
  std::string work_folder;              // of a dry run: where its trial model is for a moment
  kernels::KvFormat kv_format = kernels::KvFormat::kF16;
  Json bench_settings;  // what `bench` runs with, apart from the model: what makes times comparable
  FitBench bench;
  int threads = 0;         // 0: all CPUs
  bool overwrite = false;  // the outputs, and without `resume` a journal that is there
  bool resume = false;     // go on with the journal of a stopped run, if there is one
};

// The files that a fit writes: OUT.gguf, OUT.recipe.yaml, OUT.calibration.txt, OUT.evaluation.txt,
// OUT.html.
struct FitOutputs {
  std::string model, recipe, calibration, evaluation, report;
};
FitOutputs OutputsOf(const std::string& output);

struct FitSummary {
  std::string model;
  FitOutputs outputs;
  FitBudget budget;
  std::vector<FitCandidate> candidates;
  std::vector<size_t> front;     // positions of the Pareto front of those measured
  std::optional<size_t> chosen;  // empty: see `shortfall`, or a dry run
  std::string shortfall;         // what the nearest candidate misses
  std::string texts;             // in words: how the text was split
  Json reference;                // FitBench of the model that predictions start from
  std::vector<uint32_t> rounds;  // windows of each
  Json card;                     // of the chosen file
  double estimated_seconds = 0;  // of a dry run: at most
  double seconds = 0;
  bool resumed = false;
};

// Plans every candidate, predicts what running it takes from one measured model and this machine's
// kernels, halves the candidates by KL divergence on ever more text (successive halving, Jamieson
// and Talwalkar 2016) and measures those that are left; writes the one with the lowest KL among
// those that meet the budget as measured, and its recipe, texts and report. Where none does,
// `chosen` is empty and nothing is written. What was measured stands in "OUTPUT.journal" until a
// model is written; a resumed run measures none of it again. Errors: those of Compress, SplitText
// and MeasureKl; kInvalidArgument (no budget; outputs exist; no candidate can be made, with the
// reason of the first).
Result<FitSummary> Fit(const std::string& model, const FitOptions& options, Progress* progress);

// The candidates with exact sizes, predicted figures and, at most, how long Fit takes; nothing but
// a trial model in `work_folder` is written.
Result<FitSummary> PlanFit(const std::string& model, const FitOptions& options, Progress* progress);

}  // namespace edgewise
