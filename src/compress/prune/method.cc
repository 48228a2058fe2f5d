#include "compress/prune/method.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/strings.h"
#include "compress/prune/sparsegpt.h"

namespace edgewise {
namespace {

struct Method {
  const char* name;
  PruneMethod method;
  std::optional<ScoreMethod> score;  // empty: weights are updated too, or masks given
  PruneScope scope;                  // of the score
  bool swaps = false;                // DSnoT afterwards
  bool global = false;               // all weights of the model compete
};
constexpr Method kMethods[] = {
    {"magnitude", PruneMethod::kMagnitude, ScoreMethod::kMagnitude, PruneScope::kMatrix},
    {"random", PruneMethod::kRandom, ScoreMethod::kRandom, PruneScope::kMatrix},
    {"wanda", PruneMethod::kWanda, ScoreMethod::kWanda, PruneScope::kRow},
    {"ria", PruneMethod::kRia, ScoreMethod::kRia, PruneScope::kRow},
    {"sparsegpt", PruneMethod::kSparseGpt, {}, PruneScope::kMatrix},
    {"alps", PruneMethod::kAlps, {}, PruneScope::kMatrix},
    {"global-magnitude", PruneMethod::kGlobalMagnitude, ScoreMethod::kMagnitude,
     PruneScope::kMatrix, false, true},
    {"magnitude+dsnot", PruneMethod::kMagnitudeDsnot, ScoreMethod::kMagnitude, PruneScope::kMatrix,
     true},
    {"wanda+dsnot", PruneMethod::kWandaDsnot, ScoreMethod::kWanda, PruneScope::kRow, true},
    {"mask", PruneMethod::kMask, {}, PruneScope::kMatrix},
};

const Method& RowOf(PruneMethod method) { return kMethods[static_cast<size_t>(method)]; }

Result<Mask> Select(const PruneOptions& options, const MatrixToPrune& matrix,
                    const Sparsity& sparsity, const MatrixInput& input, GlobalSelection* selection,
                    ThreadPool* pool) {
  if (options.method == PruneMethod::kMask) {
    return options.masks->Load(
        {matrix.name, matrix.values.size() / matrix.columns, matrix.columns});
  }
  const Method& method = RowOf(options.method);
  EW_TRY(const std::vector<float> scores, Scores(*method.score, matrix.values, matrix.columns,
                                                 input.norms(), options.seed + matrix.index));
  if (selection != nullptr) return selection->Select(scores, matrix.columns);
  EW_TRY(Mask mask, SelectMask(scores, matrix.columns, sparsity, method.scope, pool));
  if (!method.swaps || !options.swap) return mask;
  return SwapWeights(matrix.values, input.distribution(), mask, sparsity, DsnotOptions(), pool);
}

}  // namespace

Result<PruneMethod> ParsePruneMethod(std::string_view name) {
  std::vector<std::string> names;
  for (const Method& known : kMethods) {
    if (name == known.name) return known.method;
    names.emplace_back(known.name);
  }
  return MakeError(Code::kInvalidArgument, "--method %s: no such method; known are %s",
                   Quote(name).c_str(), Join(names, ", ").c_str());
}

const char* PruneMethodName(PruneMethod method) { return RowOf(method).name; }

size_t ComparedWeights(PruneMethod method, size_t rows, size_t columns) {
  return RowOf(method).scope == PruneScope::kRow ? columns : rows * columns;
}

bool UpdatesWeights(PruneMethod method) {
  return !RowOf(method).score && method != PruneMethod::kMask;
}

ScoreMethod ScoreOf(PruneMethod method) { return *RowOf(method).score; }

bool NeedsCalibration(PruneMethod method) {
  const Method& row = RowOf(method);
  return UpdatesWeights(method) || (row.score && NeedsNorms(*row.score)) || row.swaps;
}

bool IsGlobal(PruneMethod method) { return RowOf(method).global; }

bool SwapsWeights(PruneMethod method) { return RowOf(method).swaps; }

Result<MatrixInput> MatrixInput::Create(PruneMethod method, const ColumnMoments& moments,
                                        FunctionRef<Result<std::vector<float>>()> h,
                                        ThreadPool* pool) {
  MatrixInput input;
  if (!UpdatesWeights(method)) {
    input.norms_ = ColumnNorms(moments);
    if (SwapsWeights(method) && !moments.sum.empty()) input.SetDistribution(moments);
    return input;
  }
  EW_TRY(std::vector<float> sums, h());
  EW_TRY(InputMetric metric, InputMetric::Create(std::move(sums), moments.columns(), pool));
  input.metric_ = std::make_unique<InputMetric>(std::move(metric));
  if (method == PruneMethod::kAlps) {
    EW_TRY(input.spectral_, SpectralMetric::Create(*input.metric_));
  }
  return input;
}

void MatrixInput::SetDistribution(const ColumnMoments& moments) {
  const auto tokens = static_cast<double>(moments.tokens);
  for (size_t c = 0; c < moments.columns(); ++c) {
    mean_.push_back(moments.sum[c] / tokens);
    variance_.push_back(
        std::max(0.0, moments.sum_squares[c] / tokens - mean_.back() * mean_.back()));
  }
}

Result<std::vector<float>> PruneMatrix(const PruneOptions& options, const MatrixToPrune& matrix,
                                       const Sparsity& sparsity, const MatrixInput& input,
                                       GlobalSelection* selection, ThreadPool* pool) {
  if (UpdatesWeights(options.method)) {
    EW_TRY(PrunedMatrix pruned, options.method == PruneMethod::kAlps
                                    ? PruneAlps(matrix.values, input.spectral(), sparsity,
                                                AlpsOptions(), pool, matrix.within)
                                    : PruneSparseGpt(matrix.values, input.metric(), sparsity,
                                                     nullptr, pool, matrix.within));
    return std::move(pruned.values);
  }
  EW_TRY(const Mask mask, Select(options, matrix, sparsity, input, selection, pool));
  std::vector<float> pruned(matrix.values.begin(), matrix.values.end());
  mask.Apply(pruned);
  return pruned;
}

}  // namespace edgewise
