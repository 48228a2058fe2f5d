#include "compress/prune/prune.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "calibrate/statistics.h"
#include "compress/prune/alps.h"
#include "compress/prune/input_metric.h"
#include "compress/prune/score.h"
#include "compress/prune/select.h"
#include "compress/prune/sparsegpt.h"
#include "compress/quantize/output_error.h"

namespace edgewise {
namespace {

struct Method {
  const char* name;
  PruneMethod method;
  std::optional<ScoreMethod> score;  // empty: weights are updated too
  PruneScope scope;                  // of the score
};
constexpr Method kMethods[] = {
    {"magnitude", PruneMethod::kMagnitude, ScoreMethod::kMagnitude, PruneScope::kMatrix},
    {"random", PruneMethod::kRandom, ScoreMethod::kRandom, PruneScope::kMatrix},
    {"wanda", PruneMethod::kWanda, ScoreMethod::kWanda, PruneScope::kRow},
    {"ria", PruneMethod::kRia, ScoreMethod::kRia, PruneScope::kRow},
    {"sparsegpt", PruneMethod::kSparseGpt, {}, PruneScope::kMatrix},
    {"alps", PruneMethod::kAlps, {}, PruneScope::kMatrix},
};

const Method& RowOf(PruneMethod method) { return kMethods[static_cast<size_t>(method)]; }

// What is known of the input of the matrices that are pruned next.
class InputView {
 public:
  // Of the methods that need no input.
  InputView() = default;
  // `h` is asked for by the methods that update weights only.
  static Result<InputView> Create(const Method& method, const ColumnMoments& moments,
                                  FunctionRef<Result<std::vector<float>>()> h, ThreadPool* pool) {
    InputView view;
    if (method.score) {
      view.norms_ = ColumnNorms(moments);
      return view;
    }
    EW_TRY(std::vector<float> sums, h());
    EW_TRY(InputMetric metric, InputMetric::Create(std::move(sums), moments.columns(), pool));
    view.metric_ = std::make_unique<InputMetric>(std::move(metric));
    if (method.method == PruneMethod::kAlps) {
      EW_TRY(view.spectral_, SpectralMetric::Create(*view.metric_));
    }
    return view;
  }
  std::span<const float> norms() const { return norms_; }
  const InputMetric& metric() const { return *metric_; }
  const SpectralMetric& spectral() const { return *spectral_; }

 private:
  std::vector<float> norms_;
  std::unique_ptr<InputMetric> metric_;  // SpectralMetric keeps a reference to it
  std::optional<SpectralMetric> spectral_;
};

class Pruner {
 public:
  Pruner(const Checkpoint& checkpoint, const PruneOptions& options, ThreadPool* pool,
         Progress* progress, PruneSink sink)
      : method_(RowOf(options.method)),
        options_(options),
        pool_(pool),
        progress_(progress),
        sink_(sink) {
    for (const CheckpointTensor& tensor : checkpoint.tensors()) {
      if (IsPrunable(tensor)) total_ += tensor.shape.elements();
    }
  }
  const Method& method() const { return method_; }
  // Prunes tensor `index`, `values` (rows, columns), in place.
  Status Run(size_t index, const std::string& name, std::span<float> values, size_t columns,
             const InputView& input);

 private:
  Result<std::vector<float>> Prune(size_t index, std::span<const float> values, size_t columns,
                                   const InputView& input) const;
  const Method& method_;
  const PruneOptions& options_;
  ThreadPool* pool_;
  Progress* progress_;
  PruneSink sink_;
  uint64_t done_ = 0, total_ = 0;  // weights
};

double ZeroShare(std::span<const float> values) {
  const auto zeros = std::count(values.begin(), values.end(), 0.0f);
  return static_cast<double>(zeros) / static_cast<double>(values.size());
}

Result<std::vector<float>> Pruner::Prune(size_t index, std::span<const float> values,
                                         size_t columns, const InputView& input) const {
  if (method_.method == PruneMethod::kSparseGpt) {
    EW_TRY(PrunedMatrix pruned,
           PruneSparseGpt(values, input.metric(), options_.sparsity, nullptr, pool_));
    return std::move(pruned.values);
  }
  if (method_.method == PruneMethod::kAlps) {
    EW_TRY(PrunedMatrix pruned,
           PruneAlps(values, input.spectral(), options_.sparsity, AlpsOptions(), pool_));
    return std::move(pruned.values);
  }
  EW_TRY(const std::vector<float> scores,
         Scores(*method_.score, values, columns, input.norms(), options_.seed + index));
  EW_TRY(const Mask mask, SelectMask(scores, columns, options_.sparsity, method_.scope, pool_));
  std::vector<float> pruned(values.begin(), values.end());
  mask.Apply(pruned);
  return pruned;
}

Status Pruner::Run(size_t index, const std::string& name, std::span<float> values, size_t columns,
                   const InputView& input) {
  if (const double zeros = ZeroShare(values); zeros >= options_.sparsity.ratio) {
    return MakeError(Code::kInvalidArgument,
                     "tensor %s is pruned already: %.1f %% of its weights are zero; start from the "
                     "dense model, or ask for more than that",
                     name.c_str(), 100 * zeros);
  }
  EW_TRY(const std::vector<float> pruned, Prune(index, values, columns, input).In(name));
  double off = 0, all = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double before = values[i], change = before - static_cast<double>(pruned[i]);
    all += before * before;
    off += change * change;
  }
  std::copy(pruned.begin(), pruned.end(), values.begin());
  const PruneEffect effect{1 - ZeroShare(pruned), all > 0 ? std::sqrt(off / all) : 0};
  EW_TRY(sink_(index, values, effect));
  done_ += values.size();
  progress_->Update("pruning", done_, total_);
  if (progress_->Cancelled()) return MakeError(Code::kCancelled, "stopped; nothing was written");
  return Ok{};
}

// The matrices of one input of the loaded layer, against what the layers before give now.
Status PruneInput(ActivationWalk* walk, LinearInput input, Pruner* pruner, ThreadPool* pool) {
  std::optional<InputView> view;
  for (const LayerMatrix& matrix : walk->matrices()) {
    if (matrix.input != input) continue;
    if (!view) {
      ColumnMoments moments(matrix.columns);
      std::optional<ProductSum> products;
      if (!pruner->method().score) {
        EW_TRY(products, ProductSum::Create(matrix.columns, pool));
      }
      EW_TRY(walk->Visit([&](LinearInput which, const float* rows, size_t n, size_t stride) {
        if (which != input) return true;
        moments.Add(rows, n, stride);
        if (products) products->Add(rows, n, stride);
        return false;
      }));
      const auto h = [&]() -> Result<std::vector<float>> {
        const float* sums = products->Finish();
        std::vector<float> copy(sums, sums + matrix.columns * matrix.columns);
        products.reset();
        return copy;
      };
      EW_TRY(view, InputView::Create(pruner->method(), moments, h, pool).In(matrix.name));
    }
    EW_TRY(pruner->Run(matrix.tensor, matrix.name, {matrix.values, matrix.rows * matrix.columns},
                       matrix.columns, *view));
  }
  return Ok{};
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

bool UpdatesWeights(PruneMethod method) { return !RowOf(method).score; }

ScoreMethod ScoreOf(PruneMethod method) { return *RowOf(method).score; }

bool NeedsCalibration(PruneMethod method) {
  const Method& row = RowOf(method);
  return !row.score || NeedsNorms(*row.score);
}

bool IsPrunable(const CheckpointTensor& tensor) {
  return tensor.name.starts_with("blk.") && tensor.shape.rank() == 2;
}

Status CheckPruning(const Checkpoint& checkpoint, const PruneOptions& options) {
  if (options.sparsity.ratio <= 0) {
    return MakeError(Code::kInvalidArgument, "a sparsity of 0 prunes nothing");
  }
  for (const CheckpointTensor& tensor : checkpoint.tensors()) {
    if (!IsPrunable(tensor)) continue;
    EW_TRY(options.sparsity.CheckColumns(tensor.shape.columns()).In(tensor.name));
  }
  return Ok{};
}

Status PruneByCalibration(const Checkpoint& checkpoint, const PruneOptions& options,
                          const CalibrationFile* calibration, ThreadPool* pool, Progress* progress,
                          PruneSink sink) {
  EW_TRY(CheckPruning(checkpoint, options));
  Pruner pruner(checkpoint, options, pool, progress, sink);
  const auto tensors = checkpoint.tensors();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const CheckpointTensor& tensor = tensors[i];
    if (!IsPrunable(tensor)) continue;
    const size_t columns = tensor.shape.columns();
    InputView input;
    if (NeedsCalibration(options.method)) {
      EW_TRY(const ColumnMoments moments, calibration->Moments(tensor.name, columns));
      const auto h = [&] { return calibration->Hessian(tensor.name, columns); };
      EW_TRY(input, InputView::Create(pruner.method(), moments, h, pool).In(tensor.name));
    }
    EW_TRY(std::vector<float> values, LoadRows(checkpoint, i, SIZE_MAX));
    checkpoint.DropPages(i);
    EW_TRY(pruner.Run(i, tensor.name, values, columns, input));
  }
  return Ok{};
}

Status PruneLayerwise(const Checkpoint& checkpoint, const PruneOptions& options,
                      TokenSequences sequences, ThreadPool* pool, Progress* progress,
                      PruneSink sink) {
  EW_TRY(CheckPruning(checkpoint, options));
  EW_TRY(ActivationWalk walk, ActivationWalk::Create(checkpoint, std::move(sequences), pool));
  Pruner pruner(checkpoint, options, pool, progress, sink);
  const uint32_t layers = walk.spec().n_layers;
  for (uint32_t layer = 0; layer < layers; ++layer) {
    EW_TRY(walk.Load(layer));
    for (size_t i = 0; i < kLinearInputs; ++i) {
      EW_TRY(PruneInput(&walk, static_cast<LinearInput>(i), &pruner, pool));
    }
    if (layer + 1 == layers) break;
    EW_TRY(walk.Pass([](LinearInput, const float*, size_t, size_t) { return true; }));
  }
  return Ok{};
}

}  // namespace edgewise
