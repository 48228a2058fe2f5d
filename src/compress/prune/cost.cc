#include "compress/prune/cost.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/process.h"
#include "compress/matrix.h"
#include "compress/prune/alps.h"
#include "compress/prune/dsnot.h"
#include "compress/prune/input_metric.h"
#include "compress/prune/schedule.h"
#include "compress/prune/score.h"
#include "compress/prune/select.h"
#include "compress/prune/sparsegpt.h"
#include "compress/quantize/output_error.h"

namespace edgewise {
namespace {

constexpr size_t kTrialRows = 256;
constexpr size_t kTrialColumns = 1024;  // of updates, whose cost grows with their square or cube

// What a method takes for an input of n columns, and for a row of a matrix that reads it.
struct PruneSeconds {
  double input = 0;
  double row = 0;
};

Result<PruneSeconds> TryScores(std::span<const float> w, size_t columns,
                               const PruneOptions& options, ThreadPool* pool) {
  const std::vector<float> norms(columns, 1.0f);
  const std::vector<double> moment(columns, 1.0);
  const auto prune = [&]() -> Status {
    EW_TRY(const std::vector<float> scores,
           Scores(ScoreOf(options.method), w, columns, norms, options.seed));
    EW_TRY(const Mask mask, SelectMask(scores, columns, options.sparsity, PruneScope::kRow, pool));
    if (!SwapsWeights(options.method)) return Ok{};
    EW_TRY(SwapWeights(w, {moment, moment, norms}, mask, options.sparsity, DsnotOptions(), pool));
    return Ok{};
  };
  PruneSeconds seconds;
  EW_TRY(prune());  // the first time memory is new
  EW_TRY(seconds.row, Seconds(prune));
  seconds.row /= static_cast<double>(w.size() / columns);
  return seconds;
}

// Prunes the first n columns of `w` (rows, columns), a multiple of M.
Result<PruneSeconds> TryUpdates(std::span<const float> w, size_t columns, size_t n,
                                const InputTrial& input, const PruneOptions& options,
                                ThreadPool* pool) {
  PruneSeconds seconds;
  const double start = NowSeconds();
  EW_TRY(const InputMetric metric,
         InputMetric::Create(LeadingBlock(input.h, input.kept, n, n), n, pool));
  std::optional<SpectralMetric> spectral;
  if (options.method == PruneMethod::kAlps) {
    EW_TRY(spectral, SpectralMetric::Create(metric));
  }
  seconds.input = NowSeconds() - start;
  const size_t rows = w.size() / columns;
  const std::vector<float> corner = LeadingBlock(w, columns, rows, n);
  const auto prune = [&](size_t count) -> Status {
    const std::span<const float> some = std::span(corner).first(count * n);
    if (spectral) {
      EW_TRY(PruneAlps(some, *spectral, options.sparsity, AlpsOptions(), pool));
    } else {
      EW_TRY(PruneSparseGpt(some, metric, options.sparsity, nullptr, pool));
    }
    return Ok{};
  };
  EW_TRY(const double half, Seconds([&] { return prune(rows / 2); }));
  EW_TRY(const double whole, Seconds([&] { return prune(rows); }));
  seconds.row = std::max(whole - half, whole / 4) / static_cast<double>(rows - rows / 2);
  // ALPS inverts a matrix for each new penalty, whatever the rows.
  seconds.input += std::max(0.0, whole - seconds.row * static_cast<double>(rows));
  const double ratio = static_cast<double>(columns) / static_cast<double>(n);
  seconds.row *= ratio * ratio;
  seconds.input *= ratio * ratio * ratio;
  return seconds;
}

uint64_t WorkingBytes(PruneMethod method, uint64_t columns, uint64_t elements) {
  const uint64_t square = columns * columns;
  switch (method) {
    case PruneMethod::kSparseGpt:
      return MetricPeakBytes(columns) + 2 * elements * sizeof(float);
    case PruneMethod::kAlps:  // two matrices of the metric beside three in double precision
      return square * (2 * sizeof(float) + 3 * sizeof(double)) + 6 * elements * sizeof(float);
    default:
      return 2 * elements * sizeof(float);
  }
}

}  // namespace

Result<Cost> PruningCost(const Checkpoint& checkpoint, const PruneOptions& options,
                         const LayerTrial& trial, const TokenSequences& sequences,
                         ThreadPool* pool) {
  if (options.method == PruneMethod::kMask) return Cost();  // reading is counted with writing
  const bool updates = UpdatesWeights(options.method), sequential = !sequences.empty();
  const bool looks_first = options.owl || options.permute;
  std::map<size_t, PruneSeconds> kinds;  // by columns
  std::set<std::string> seen;
  std::vector<size_t> inputs;  // columns of each
  Cost layer;
  for (size_t i = 0; i < checkpoint.tensors().size(); ++i) {
    const CheckpointTensor& tensor = checkpoint.tensors()[i];
    if (!IsPrunable(tensor) || !tensor.name.starts_with("blk.0.")) continue;
    const size_t columns = tensor.shape.columns();
    if (!kinds.contains(columns)) {
      EW_TRY(const std::vector<float> w, LoadRows(checkpoint, i, kTrialRows));
      PruneSeconds seconds;
      if (updates) {
        const InputTrial& input = FindInput(trial, columns);
        const size_t group = std::max<size_t>(1, options.sparsity.group);
        const size_t n = std::min(kTrialColumns, input.kept) / group * group;
        EW_TRY(seconds, TryUpdates(w, columns, n, input, options, pool));
      } else {
        EW_TRY(seconds, TryScores(w, columns, options, pool));
      }
      kinds.emplace(columns, seconds);
    }
    if (seen.insert(InputName(tensor.name)).second) inputs.push_back(columns);
    const PruneSeconds& seconds = kinds[columns];
    layer.seconds += seconds.row * static_cast<double>(tensor.shape.rows());
    layer.bytes =
        std::max(layer.bytes, WorkingBytes(options.method, columns, tensor.shape.elements()));
  }
  for (const size_t columns : inputs) layer.seconds += kinds[columns].input;
  if (sequential) {
    const auto tokens = static_cast<double>(TokenCount(sequences));
    layer.seconds += (looks_first ? 2 : 1) * (trial.load + tokens * trial.pass);
    for (const InputTrial& input : trial.inputs) {
      if (input.columns == 0) continue;
      layer.seconds += tokens * (input.visit + input.moments);
      if (updates) layer.seconds += tokens * input.products;
      if (looks_first) layer.seconds += tokens * input.moments;
    }
    layer.bytes += trial.bytes + StreamBytes(checkpoint.spec(), sequences);
  }
  layer.seconds *= static_cast<double>(checkpoint.spec().n_layers *
                                       PruneSchedule(options.sparsity, options.steps).size());
  return layer;
}

}  // namespace edgewise
