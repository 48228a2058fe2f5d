#include "compress/quantize/layerwise.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <unordered_map>
#include <utility>

#include "base/strings.h"
#include "calibrate/statistics.h"
#include "quant/block_parts.h"

namespace edgewise {
namespace {

class Quantizer {
 public:
  Quantizer(ActivationWalk walk, std::span<const TensorPlan> plan, const LayerwiseOptions& options,
            ThreadPool* pool, Progress* progress, BlockSink sink)
      : walk_(std::move(walk)),
        plan_(plan),
        options_(options),
        pool_(pool),
        progress_(progress),
        sink_(sink) {
    for (size_t i = 0; i < plan.size(); ++i) {
      if (!IsLayerwise(plan[i])) continue;
      entries_.emplace(plan[i].source, i);
      total_ += plan[i].shape.elements();
    }
  }
  Status Run();

 private:
  Status QuantizeInput(LinearInput input);
  Status QuantizeMatrix(const LayerMatrix& matrix, size_t entry, const ErrorMetric& metric);
  Result<ErrorMetric> Measure(LinearInput input, size_t columns);
  Status Report(uint64_t more);

  ActivationWalk walk_;
  std::span<const TensorPlan> plan_;
  const LayerwiseOptions& options_;
  ThreadPool* pool_;
  Progress* progress_;
  BlockSink sink_;
  std::unordered_map<size_t, size_t> entries_;  // plan entries by the checkpoint's index
  uint64_t done_ = 0, total_ = 0;               // weights
};

Status Quantizer::Report(uint64_t more) {
  done_ += more;
  progress_->Update("quantizing", done_, total_);
  if (progress_->Cancelled()) return MakeError(Code::kCancelled, "stopped; nothing was written");
  return Ok{};
}

Result<ErrorMetric> Quantizer::Measure(LinearInput input, size_t columns) {
  EW_TRY(ProductSum sum, ProductSum::Create(columns, true, pool_));
  EW_TRY(walk_.Visit([&](LinearInput which, const float* rows, size_t n, size_t stride) {
    if (which == input) sum.Add(rows, nullptr, n, stride);
    return which != input;
  }));
  return ErrorMetric::Create({sum.Finish(), columns * columns}, columns, options_.damping, pool_);
}

Status Quantizer::QuantizeMatrix(const LayerMatrix& matrix, size_t entry,
                                 const ErrorMetric& metric) {
  const size_t count = matrix.rows * matrix.columns;
  for (size_t i = 0; i < count; ++i) {
    if (std::isfinite(matrix.values[i])) continue;
    return MakeError(Code::kBadData,
                     "tensor %s holds NaN or infinity at row %zu, column %zu: the weights are "
                     "damaged; get the model again",
                     matrix.name.c_str(), i / matrix.columns, i % matrix.columns);
  }
  const DTypeInfo& info = Info(plan_[entry].to);
  std::vector<std::byte> blocks(info.RowBytes(count));
  QuantizeWithFeedback(matrix.values, matrix.rows, metric, info.id, options_.feedback, pool_,
                       blocks.data());
  // From here on the layer computes with what the file will hold.
  EncodeError error;
  error.values = count;
  std::vector<float> row(matrix.columns);
  for (size_t r = 0; r < matrix.rows; ++r) {
    info.decode(blocks.data() + r * info.RowBytes(matrix.columns), row.data(), matrix.columns);
    float* values = matrix.values + r * matrix.columns;
    for (size_t c = 0; c < matrix.columns; ++c) {
      const double off = values[c] - row[c];
      error.squared_error += off * off;
      error.squared_value += static_cast<double>(values[c]) * values[c];
      values[c] = row[c];
    }
  }
  EW_TRY(sink_(entry, blocks, error));
  return Report(count);
}

Status Quantizer::QuantizeInput(LinearInput input) {
  std::optional<ErrorMetric> metric;
  for (const LayerMatrix& matrix : walk_.matrices()) {
    const auto entry = entries_.find(matrix.tensor);
    if (matrix.input != input || entry == entries_.end()) continue;
    if (!metric) {
      EW_TRY(metric, Measure(input, matrix.columns).In(matrix.name));
    }
    EW_TRY(QuantizeMatrix(matrix, entry->second, *metric));
  }
  return Ok{};
}

Status Quantizer::Run() {
  for (uint32_t layer = 0; layer < walk_.spec().n_layers; ++layer) {
    EW_TRY(walk_.Load(layer));
    for (size_t i = 0; i < kLinearInputs; ++i) {
      EW_TRY(QuantizeInput(static_cast<LinearInput>(i)));
    }
    if (layer + 1 == walk_.spec().n_layers) break;
    EW_TRY(walk_.Pass([](LinearInput, const float*, size_t, size_t) { return true; }));
  }
  return Ok{};
}

}  // namespace

bool IsLayerwise(const TensorPlan& entry) {
  return entry.name.starts_with("blk.") && entry.shape.rows() > 1 && FormOf(entry.to) != nullptr;
}

Status QuantizeLayerwise(const Checkpoint& checkpoint, std::span<const TensorPlan> plan,
                         TokenSequences sequences, const LayerwiseOptions& options,
                         ThreadPool* pool, Progress* progress, BlockSink sink) {
  EW_TRY(ActivationWalk walk, ActivationWalk::Create(checkpoint, std::move(sequences), pool));
  return Quantizer(std::move(walk), plan, options, pool, progress, sink).Run();
}

}  // namespace edgewise
