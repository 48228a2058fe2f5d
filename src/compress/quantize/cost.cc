#include "compress/quantize/cost.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/process.h"
#include "compress/matrix.h"
#include "compress/quantize/output_error.h"
#include "compress/quantize/scale.h"
#include "compress/quantize/targets.h"

namespace edgewise {
namespace {

constexpr uint64_t kTrialValues = 1u << 20;  // that are encoded

struct FeedbackSeconds {
  double factor = 0;  // of the metric
  double matrix = 0;  // beside its rows
  double row = 0;
  double targets = 0;  // of a row
};

// Quantizes the first n columns of `w` (rows, columns).
Result<FeedbackSeconds> TryFeedback(std::span<const float> w, size_t columns, size_t n, DType type,
                                    const InputTrial& input, MomentSource source,
                                    ThreadPool* pool) {
  FeedbackSeconds seconds;
  const double start = NowSeconds();
  EW_TRY(const ErrorMetric metric, ErrorMetric::Create(LeadingBlock(input.h, input.kept, n, n), n,
                                                       LayerwiseOptions().damping, pool));
  seconds.factor = NowSeconds() - start;
  const size_t rows = w.size() / columns;
  const std::vector<float> corner = LeadingBlock(w, columns, rows, n);
  std::vector<std::byte> blocks(Info(type).RowBytes(rows * n));
  const auto quantize = [&](size_t count) {
    const double before = NowSeconds();
    QuantizeWithFeedback(corner.data(), count, metric, type, LayerwiseOptions().feedback, pool,
                         blocks.data());
    return NowSeconds() - before;
  };
  if (source == MomentSource::kSequences) {
    const std::vector<float> cross(n * n);
    const double before = NowSeconds();
    CorrectTargets(corner, metric, cross, pool);
    seconds.targets = (NowSeconds() - before) / static_cast<double>(rows);
  }
  quantize(rows / 2);  // the first time memory is new
  const double half = quantize(rows / 2), whole = quantize(rows);
  seconds.row = std::max(whole - half, whole / 2) / static_cast<double>(rows - rows / 2);
  seconds.matrix = std::max(0.0, whole - seconds.row * static_cast<double>(rows));
  return seconds;
}

// The same for all columns of plan entry `entry`, by trials on as many as the moments are of.
Result<FeedbackSeconds> EstimateFeedback(const Checkpoint& checkpoint, const TensorPlan& entry,
                                         const LayerTrial& trial, MomentSource source,
                                         ThreadPool* pool) {
  const size_t columns = entry.shape.columns();
  const InputTrial& input = FindInput(trial, columns);
  const size_t rows = 2 * kFeedbackRows * static_cast<size_t>(pool->size());
  EW_TRY(const std::vector<float> w, LoadRows(checkpoint, entry.source, rows));
  const size_t block = Info(entry.to).block, n = input.kept / block * block;
  EW_TRY(const FeedbackSeconds large, TryFeedback(w, columns, n, entry.to, input, source, pool));
  if (n == columns) return large;
  const size_t half = std::max(n / 2 / block, size_t{1}) * block;
  EW_TRY(const FeedbackSeconds small, TryFeedback(w, columns, half, entry.to, input, source, pool));
  // A row costs a n + b n^2, the factor c n^3.
  const auto x = static_cast<double>(columns), at = static_cast<double>(n),
             before = static_cast<double>(half);
  const double b = std::max(0.0, (large.row / at - small.row / before) / (at - before));
  const double a = large.row / at - b * at;
  const double ratio = x / at;
  return FeedbackSeconds{large.factor * ratio * ratio * ratio, large.matrix * ratio * ratio,
                         a * x + b * x * x, large.targets * ratio * ratio};
}

}  // namespace

Result<Cost> FeedbackCost(const Checkpoint& checkpoint, std::span<const TensorPlan> plan,
                          const LayerTrial& trial, MomentSource source,
                          const TokenSequences& sequences, ThreadPool* pool) {
  Cost cost;
  std::map<std::pair<size_t, DType>, FeedbackSeconds> kinds;  // by columns and format
  std::map<size_t, double> factors;                           // by columns
  std::set<std::string> factored;                             // inputs
  uint64_t working = 0;
  const bool sequential = source == MomentSource::kSequences;
  for (const TensorPlan& entry : plan) {
    if (!IsLayerwise(entry)) continue;
    const size_t columns = entry.shape.columns(), rows = entry.shape.rows();
    auto kind = kinds.find({columns, entry.to});
    if (kind == kinds.end()) {
      EW_TRY(const FeedbackSeconds seconds,
             EstimateFeedback(checkpoint, entry, trial, source, pool));
      kind = kinds.emplace(std::pair(columns, entry.to), seconds).first;
      factors.emplace(columns, seconds.factor);
    }
    const FeedbackSeconds& seconds = kind->second;
    cost.seconds += seconds.matrix + (seconds.row + seconds.targets) * static_cast<double>(rows);
    const bool first = factored.insert(InputName(entry.name)).second;
    if (!sequential && first) cost.seconds += factors[columns];
    // In F32: the matrix, or what it is corrected to. By then the original ffn_down is freed.
    const uint64_t matrix = entry.shape.elements() * sizeof(float);
    const uint64_t layers = entry.name.find(".ffn_down.") != std::string::npos ? 1 : 2;
    const uint64_t beside =
        sequential ? layers * trial.bytes + columns * columns * sizeof(float) : 0;
    const uint64_t blocks = Info(entry.to).RowBytes(entry.shape.elements());
    working = std::max({working, beside + (sequential ? 0 : matrix) + MetricPeakBytes(columns),
                        beside + matrix + blocks + FeedbackBytes(columns, entry.to, pool->size())});
  }
  cost.bytes = working;
  if (!sequential) return cost;
  const auto tokens = static_cast<double>(TokenCount(sequences));
  // The original layer goes beside the one that is quantized; a product of two inputs is no
  // triangle.
  double layer = 2 * (trial.load + tokens * trial.pass);
  const size_t longest = LongestOf(sequences);
  for (const InputTrial& input : trial.inputs) {
    const auto factor = factors.find(input.columns);
    if (factor == factors.end()) continue;
    layer += tokens * (2 * input.visit + 3 * input.products) + factor->second;
    const uint64_t row = input.columns * sizeof(float);
    cost.bytes =
        std::max(cost.bytes, 2 * trial.bytes + 2 * ProductSumBytes(input.columns, pool->size()) +
                                 row * (input.columns + longest + ProductSum::kPanel));
  }
  const ModelSpec& spec = checkpoint.spec();
  cost.seconds += layer * spec.n_layers;
  cost.bytes += 2 * StreamBytes(spec, sequences);
  return cost;
}

Result<Cost> EncodingCost(const Checkpoint& checkpoint, std::span<const TensorPlan> plan,
                          bool weighted, ThreadPool* pool) {
  struct Kind {
    const TensorPlan* largest = nullptr;
    uint64_t values = 0;
  };
  std::map<std::pair<DType, DType>, Kind> kinds;  // by formats before and after
  for (const TensorPlan& entry : plan) {
    Kind& kind = kinds[{entry.from, entry.to}];
    kind.values += entry.shape.elements();
    if (!kind.largest || entry.shape.elements() > kind.largest->shape.elements()) {
      kind.largest = &entry;
    }
  }
  Cost cost;
  for (const auto& [formats, kind] : kinds) {
    const double start = NowSeconds();
    EW_TRY(const Tensor tensor, checkpoint.Load(kind.largest->source));
    const double loading = NowSeconds() - start;
    const TensorView& view = tensor.view();
    const uint64_t columns = view.shape.columns();
    TensorView sample = view;
    if (view.layout == TensorLayout::kRows) {
      const uint64_t rows = std::clamp<uint64_t>(kTrialValues / columns, 1, view.shape.rows());
      sample.shape = {rows, columns};
      sample.bytes = rows * view.row_bytes();
    }
    std::vector<float> importance;
    if (weighted && Info(formats.second).quantized()) importance.assign(columns, 1.0f);
    const double before = NowSeconds();
    EW_TRY(EncodeTensor(kind.largest->name, sample, formats.second, importance, pool,
                        [](std::span<const std::byte>) -> Status { return Ok{}; }));
    const auto scale = [&](const TensorView& seen) {
      return static_cast<double>(kind.values) / static_cast<double>(seen.shape.elements());
    };
    cost.seconds += loading * scale(view) + (NowSeconds() - before) * scale(sample);
    cost.bytes = std::max(cost.bytes, (tensor.owned() ? view.bytes : 0) +
                                          EncodingBytes(view, formats.second, pool->size()));
    checkpoint.DropPages(kind.largest->source);
  }
  return cost;
}

Result<Cost> ScalingCost(const Checkpoint& checkpoint, std::span<const TensorPlan> plan,
                         const LayerTrial& trial, ThreadPool* pool) {
  Cost cost;
  for (const TensorPlan& entry : plan) {
    if (!IsLayerwise(entry) || !entry.name.starts_with("blk.0.")) continue;
    const size_t columns = entry.shape.columns();
    const InputTrial& input = FindInput(trial, columns);
    EW_TRY(const std::vector<float> w, LoadRows(checkpoint, entry.source, kScaleSearchRows));
    const size_t block = Info(entry.to).block, n = input.kept / block * block;
    const std::vector<float> corner = LeadingBlock(w, columns, w.size() / columns, n);
    const std::vector<float> h = LeadingBlock(input.h, input.kept, n, n), ones(n, 1.0f);
    const double start = NowSeconds();
    OutputError(corner, n, {entry.to, ones, ones}, h, pool);
    const double ratio = static_cast<double>(columns) / static_cast<double>(n);
    cost.seconds += kScaleTrials * (NowSeconds() - start) * ratio * ratio;
    cost.bytes = std::max<uint64_t>(cost.bytes, (columns * columns + 2 * w.size()) * sizeof(float));
  }
  cost.seconds *= checkpoint.spec().n_layers;
  return cost;
}

}  // namespace edgewise
