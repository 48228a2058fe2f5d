#include "compress/quantize/layerwise.h"

#include <algorithm>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "base/strings.h"
#include "calibrate/statistics.h"
#include "compress/quantize/targets.h"
#include "quant/block_parts.h"

namespace edgewise {
namespace {

// What both ways of quantizing a plan have in common.
class MatrixQuantizer {
 public:
  MatrixQuantizer(std::span<const TensorPlan> plan, const LayerwiseOptions& options,
                  ThreadPool* pool, Progress* progress, BlockSink sink)
      : plan_(plan), options_(options), pool_(pool), progress_(progress), sink_(sink) {
    for (const TensorPlan& entry : plan) {
      if (IsLayerwise(entry)) total_ += entry.shape.elements();
    }
  }
  // Quantizes plan entry `index`, towards `targets` of its size where there are any, and puts what
  // the blocks decode to in place of `values`.
  Status Run(size_t index, float* values, const ErrorMetric& metric,
             std::span<const float> targets = {});
  bool Finished(size_t index) const {
    return options_.finished && !options_.finished(index).empty();
  }
  // Puts what the blocks of a finished entry decode to in place of `values`.
  Status Restore(size_t index, float* values);
  Result<ErrorMetric> Metric(std::vector<float> h, size_t columns) const {
    return ErrorMetric::Create(std::move(h), columns, options_.damping, pool_);
  }

 private:
  Status Advance(const TensorPlan& entry);
  EncodeError Replace(const DTypeInfo& info, std::span<const std::byte> blocks, const Shape& shape,
                      float* values) const;
  std::span<const TensorPlan> plan_;
  const LayerwiseOptions& options_;
  ThreadPool* pool_;
  Progress* progress_;
  BlockSink sink_;
  uint64_t done_ = 0, total_ = 0;  // weights
};

EncodeError MatrixQuantizer::Replace(const DTypeInfo& info, std::span<const std::byte> blocks,
                                     const Shape& shape, float* values) const {
  EncodeError error;
  error.values = shape.elements();
  const size_t columns = shape.columns(), row_bytes = info.RowBytes(columns);
  std::vector<float> decoded(columns);
  for (size_t row = 0; row < shape.rows(); ++row, values += columns) {
    info.decode(blocks.data() + row * row_bytes, decoded.data(), columns);
    for (size_t c = 0; c < columns; ++c) {
      const double off = values[c] - decoded[c];
      error.squared_error += off * off;
      error.squared_value += static_cast<double>(values[c]) * values[c];
      values[c] = decoded[c];
    }
  }
  return error;
}

Status MatrixQuantizer::Run(size_t index, float* values, const ErrorMetric& metric,
                            std::span<const float> targets) {
  const TensorPlan& entry = plan_[index];
  const size_t count = entry.shape.elements();
  // Where too many values are other than 0, feedback leaves some out.
  const EncodeProblem problem = FindEncodeProblem(entry.to, values, count);
  if (problem.fault != EncodeFault::kNone && problem.fault != EncodeFault::kDense) {
    return EncodingError(entry.name, entry.shape.columns(), entry.to, problem);
  }
  const DTypeInfo& info = Info(entry.to);
  std::vector<std::byte> blocks(info.RowBytes(count));
  QuantizeWithFeedback(targets.empty() ? values : targets.data(), entry.shape.rows(), metric,
                       info.id, options_.feedback, pool_, blocks.data());
  const EncodeError error = Replace(info, blocks, entry.shape, values);
  EW_TRY(sink_(index, blocks, error));
  return Advance(entry);
}

Status MatrixQuantizer::Advance(const TensorPlan& entry) {
  done_ += entry.shape.elements();
  progress_->Update("quantizing", done_, total_);
  if (progress_->Cancelled()) return MakeError(Code::kCancelled, "stopped; nothing was written");
  return Ok{};
}

Status MatrixQuantizer::Restore(size_t index, float* values) {
  const TensorPlan& entry = plan_[index];
  const DTypeInfo& info = Info(entry.to);
  const std::span<const std::byte> blocks = options_.finished(index);
  if (blocks.size() != info.RowBytes(entry.shape.elements())) {
    return MakeError(Code::kBadData, "tensor %s: %zu bytes of it were kept, which is not all",
                     entry.name.c_str(), blocks.size());
  }
  Replace(info, blocks, entry.shape, values);
  return Advance(entry);
}

// What the matrices that read one input are quantized by.
struct InputMoments {
  ErrorMetric metric;
  std::vector<float> cross;  // CorrectTargets; empty: the input is the original model's
};

// Moves calibration sequences through the layers and quantizes each matrix before the next one sees
// what it gives. Beside them the sequences go through the original layers, to tell what the outputs
// should be.
class SequentialQuantizer {
 public:
  SequentialQuantizer(ActivationWalk* walk, ActivationWalk* original,
                      std::span<const TensorPlan> plan, ThreadPool* pool, MatrixQuantizer* matrices)
      : walk_(*walk), original_(*original), pool_(pool), matrices_(*matrices) {
    for (size_t i = 0; i < plan.size(); ++i) {
      if (IsLayerwise(plan[i])) entries_.emplace(plan[i].source, i);
    }
  }
  Status Run();

 private:
  Status QuantizeInput(LinearInput input);
  Result<InputMoments> Measure(LinearInput input, size_t columns);
  Status Compare(LinearInput input, size_t columns, ProductSum* sum, ProductSum* cross);

  ActivationWalk& walk_;
  ActivationWalk& original_;
  ThreadPool* pool_;
  MatrixQuantizer& matrices_;
  std::unordered_map<size_t, size_t> entries_;  // of the plan, by the checkpoint's index
  bool changed_ = false;                        // a matrix before is quantized
  bool passed_ = false;                         // the original layer
};

// Sums q q^T, and q (f - q)^T where f, the input of the original model, is another. With the last
// input the original layer is passed, and freed for what is done with the sums.
Status SequentialQuantizer::Compare(LinearInput input, size_t columns, ProductSum* sum,
                                    ProductSum* cross) {
  const bool last = input == LinearInput::kDown;
  std::vector<float> original, difference;
  const auto keep = [&](LinearInput which, const float* rows, size_t n, size_t stride) {
    for (size_t row = 0; which == input && row < n; ++row) {
      original.insert(original.end(), rows + row * stride, rows + row * stride + columns);
    }
    return which != input || last;
  };
  for (size_t i = 0; i < walk_.sequences().size(); ++i) {
    original.clear();
    if (cross != nullptr) {
      original.reserve(walk_.sequences()[i].size() * columns);
      EW_TRY(last ? original_.PassSequence(i, keep) : original_.VisitSequence(i, keep));
    }
    const float* f = original.data();
    EW_TRY(
        walk_.VisitSequence(i, [&](LinearInput which, const float* rows, size_t n, size_t stride) {
          if (which != input) return true;
          sum->Add(rows, n, stride);
          if (cross == nullptr) return false;
          difference.resize(n * columns);
          for (size_t at = 0; at < n * columns; ++at) {
            difference[at] = *f++ - rows[at / columns * stride + at % columns];
          }
          cross->AddCross(rows, stride, difference.data(), columns, n);
          return false;
        }));
  }
  if (cross != nullptr && last) {
    original_.Unload();
    passed_ = true;
  }
  return Ok{};
}

Result<InputMoments> SequentialQuantizer::Measure(LinearInput input, size_t columns) {
  std::vector<float> h, cross;
  {
    std::optional<ProductSum> sum, differences;
    EW_TRY(sum, ProductSum::Create(columns, pool_));
    if (changed_) {
      EW_TRY(differences, ProductSum::CreateCross(columns, pool_));
    }
    EW_TRY(Compare(input, columns, &*sum, differences ? &*differences : nullptr));
    const float* sums = sum->Finish();
    h.assign(sums, sums + columns * columns);
    sum.reset();
    if (differences) {
      sums = differences->Finish();
      cross.assign(sums, sums + columns * columns);
    }
  }
  EW_TRY(ErrorMetric metric, matrices_.Metric(std::move(h), columns));
  return InputMoments{std::move(metric), std::move(cross)};
}

Status SequentialQuantizer::QuantizeInput(LinearInput input) {
  std::optional<InputMoments> moments;
  bool changes = false;
  for (const LayerMatrix& matrix : walk_.matrices()) {
    const auto entry = entries_.find(matrix.tensor);
    if (matrix.input != input || entry == entries_.end()) continue;
    changes = true;
    if (matrices_.Finished(entry->second)) {
      EW_TRY(matrices_.Restore(entry->second, matrix.values));
      continue;
    }
    if (!moments) {
      EW_TRY(moments, Measure(input, matrix.columns).In(matrix.name));
    }
    std::vector<float> targets;
    if (!moments->cross.empty()) {
      const std::span<const float> values(matrix.values, matrix.rows * matrix.columns);
      targets = CorrectTargets(values, moments->metric, moments->cross, pool_);
    }
    EW_TRY(matrices_.Run(entry->second, matrix.values, moments->metric, targets));
  }
  changed_ = changed_ || changes;
  return Ok{};
}

Status SequentialQuantizer::Run() {
  for (uint32_t layer = 0; layer < walk_.spec().n_layers; ++layer) {
    EW_TRY(walk_.Load(layer));
    EW_TRY(original_.Load(layer));
    passed_ = false;
    for (size_t i = 0; i < kLinearInputs; ++i) {
      EW_TRY(QuantizeInput(static_cast<LinearInput>(i)));
    }
    if (layer + 1 == walk_.spec().n_layers) break;
    const auto look_on = [](LinearInput, const float*, size_t, size_t) { return true; };
    EW_TRY(walk_.Pass(look_on));
    if (!passed_) EW_TRY(original_.Pass(look_on));
  }
  return Ok{};
}

// The entries to quantize, those that read the same input one after the other.
std::vector<size_t> ByInput(std::span<const TensorPlan> plan) {
  std::vector<size_t> order;
  for (size_t i = 0; i < plan.size(); ++i) {
    if (IsLayerwise(plan[i])) order.push_back(i);
  }
  GroupByInput(&order, [&](size_t i) { return plan[i].name; });
  return order;
}

}  // namespace

bool IsLayerwise(const TensorPlan& entry) {
  return entry.name.starts_with("blk.") && entry.shape.rows() > 1 && FormOf(entry.to) != nullptr;
}

Status QuantizeByCalibration(const Checkpoint& checkpoint, std::span<const TensorPlan> plan,
                             const CalibrationFile& calibration, const LayerwiseOptions& options,
                             ThreadPool* pool, Progress* progress, BlockSink sink) {
  MatrixQuantizer matrices(plan, options, pool, progress, sink);
  std::optional<ErrorMetric> metric;
  std::string input;  // that it is of
  for (const size_t i : ByInput(plan)) {
    if (matrices.Finished(i)) continue;
    if (!metric || InputName(plan[i].name) != input) {
      const size_t columns = plan[i].shape.columns();
      metric.reset();
      EW_TRY(std::vector<float> h, calibration.Hessian(plan[i].name, columns));
      EW_TRY(metric, matrices.Metric(std::move(h), columns).In(plan[i].name));
      input = InputName(plan[i].name);
    }
    EW_TRY(const Tensor tensor, checkpoint.Load(plan[i].source).In(plan[i].name));
    std::vector<float> values(plan[i].shape.elements());
    tensor.view().Decode(0, values.size(), values.data());
    checkpoint.DropPages(plan[i].source);
    EW_TRY(matrices.Run(i, values.data(), *metric));
  }
  return Ok{};
}

Status QuantizeLayerwise(const Checkpoint& checkpoint, std::span<const TensorPlan> plan,
                         TokenSequences sequences, const LayerwiseOptions& options,
                         ThreadPool* pool, Progress* progress, BlockSink sink) {
  EW_TRY(ActivationWalk original, ActivationWalk::Create(checkpoint, sequences, pool));
  EW_TRY(ActivationWalk walk, ActivationWalk::Create(checkpoint, std::move(sequences), pool));
  MatrixQuantizer matrices(plan, options, pool, progress, sink);
  return SequentialQuantizer(&walk, &original, plan, pool, &matrices).Run();
}

}  // namespace edgewise
