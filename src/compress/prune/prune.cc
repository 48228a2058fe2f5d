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
#include "compress/prune/dsnot.h"
#include "compress/prune/input_metric.h"
#include "compress/prune/owl.h"
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
      if (method.swaps) view.SetDistribution(moments);
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
  InputDistribution distribution() const { return {mean_, variance_, norms_}; }
  const InputMetric& metric() const { return *metric_; }
  const SpectralMetric& spectral() const { return *spectral_; }

 private:
  void SetDistribution(const ColumnMoments& moments) {
    const auto tokens = static_cast<double>(moments.tokens);
    for (size_t c = 0; c < moments.columns(); ++c) {
      mean_.push_back(moments.sum[c] / tokens);
      variance_.push_back(
          std::max(0.0, moments.sum_squares[c] / tokens - mean_.back() * mean_.back()));
    }
  }
  std::vector<float> norms_;
  std::vector<double> mean_, variance_;
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
  // For OWL: the share of each layer's weights to prune.
  void SetRatios(std::vector<double> ratios) { ratios_ = std::move(ratios); }
  // For global methods; it has counted and refined all scores.
  void SetSelection(GlobalSelection* selection) { selection_ = selection; }
  // Prunes tensor `index`, `values` (rows, columns), in place.
  Status Run(size_t index, const std::string& name, std::span<float> values, size_t columns,
             const InputView& input);

 private:
  Result<std::vector<float>> Prune(size_t index, std::span<const float> values, size_t columns,
                                   const Sparsity& sparsity, const InputView& input) const;
  Result<Mask> Select(size_t index, std::span<const float> values, size_t columns,
                      const Sparsity& sparsity, const InputView& input) const;
  Sparsity SparsityOf(const std::string& name) const;
  const Method& method_;
  const PruneOptions& options_;
  ThreadPool* pool_;
  Progress* progress_;
  PruneSink sink_;
  std::vector<double> ratios_;            // by layer; empty: the same for all
  GlobalSelection* selection_ = nullptr;  // null: not global
  uint64_t done_ = 0, total_ = 0;         // weights
};

// "blk.N." to N.
size_t LayerOf(const std::string& name) { return std::stoul(name.substr(4)); }

Sparsity Pruner::SparsityOf(const std::string& name) const {
  if (ratios_.empty()) return options_.sparsity;
  Sparsity sparsity;
  sparsity.ratio = ratios_[LayerOf(name)];
  return sparsity;
}

double ZeroShare(std::span<const float> values) {
  const auto zeros = std::count(values.begin(), values.end(), 0.0f);
  return static_cast<double>(zeros) / static_cast<double>(values.size());
}

Result<Mask> Pruner::Select(size_t index, std::span<const float> values, size_t columns,
                            const Sparsity& sparsity, const InputView& input) const {
  EW_TRY(const std::vector<float> scores,
         Scores(*method_.score, values, columns, input.norms(), options_.seed + index));
  if (selection_ != nullptr) return selection_->Select(scores, columns);
  EW_TRY(Mask mask, SelectMask(scores, columns, sparsity, method_.scope, pool_));
  if (!method_.swaps) return mask;
  return SwapWeights(values, input.distribution(), mask, sparsity, DsnotOptions(), pool_);
}

Result<std::vector<float>> Pruner::Prune(size_t index, std::span<const float> values,
                                         size_t columns, const Sparsity& sparsity,
                                         const InputView& input) const {
  if (method_.method == PruneMethod::kSparseGpt) {
    EW_TRY(PrunedMatrix pruned, PruneSparseGpt(values, input.metric(), sparsity, nullptr, pool_));
    return std::move(pruned.values);
  }
  if (method_.method == PruneMethod::kAlps) {
    EW_TRY(PrunedMatrix pruned,
           PruneAlps(values, input.spectral(), sparsity, AlpsOptions(), pool_));
    return std::move(pruned.values);
  }
  EW_TRY(const Mask mask, Select(index, values, columns, sparsity, input));
  std::vector<float> pruned(values.begin(), values.end());
  mask.Apply(pruned);
  return pruned;
}

Status Pruner::Run(size_t index, const std::string& name, std::span<float> values, size_t columns,
                   const InputView& input) {
  const Sparsity sparsity = SparsityOf(name);
  if (const double zeros = ZeroShare(values); zeros > 0 && zeros >= sparsity.ratio) {
    return MakeError(Code::kInvalidArgument,
                     "tensor %s is pruned already: %.1f %% of its weights are zero; start from the "
                     "dense model, or ask for more than that",
                     name.c_str(), 100 * zeros);
  }
  EW_TRY(const std::vector<float> pruned, Prune(index, values, columns, sparsity, input).In(name));
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

// Collects OWL's outliers, layer by layer.
class OutlierCount {
 public:
  // A matrix of the present layer, by Wanda's scores.
  Status Add(std::span<const float> values, size_t columns, std::span<const float> norms) {
    EW_TRY(std::vector<float> scores, Scores(ScoreMethod::kWanda, values, columns, norms, 0));
    scores_.push_back(std::move(scores));
    return Ok{};
  }
  void EndLayer() {
    const std::vector<std::span<const float>> spans(scores_.begin(), scores_.end());
    percent_.push_back(OutlierPercent(spans));
    scores_.clear();
  }
  Result<std::vector<double>> Ratios(const Sparsity& sparsity) const {
    return OwlRatios(percent_, sparsity.ratio);
  }

 private:
  std::vector<std::vector<float>> scores_;  // of the present layer
  std::vector<double> percent_;             // of the layers before
};

// OWL's ratios by what a calibration kept of the inputs.
Result<std::vector<double>> RatiosOf(const Checkpoint& checkpoint, const Sparsity& sparsity,
                                     const CalibrationFile& calibration) {
  OutlierCount outliers;
  for (uint32_t layer = 0; layer < checkpoint.spec().n_layers; ++layer) {
    const std::string prefix = Format("blk.%u.", layer);
    for (size_t i = 0; i < checkpoint.tensors().size(); ++i) {
      const CheckpointTensor& tensor = checkpoint.tensors()[i];
      if (!IsPrunable(tensor) || !tensor.name.starts_with(prefix)) continue;
      const size_t columns = tensor.shape.columns();
      EW_TRY(const ColumnMoments moments, calibration.Moments(tensor.name, columns));
      EW_TRY(const std::vector<float> values, LoadRows(checkpoint, i, SIZE_MAX));
      checkpoint.DropPages(i);
      EW_TRY(outliers.Add(values, columns, ColumnNorms(moments)).In(tensor.name));
    }
    outliers.EndLayer();
  }
  return outliers.Ratios(sparsity);
}

// The same by the inputs of the dense model.
Result<std::vector<double>> RatiosOf(const Checkpoint& checkpoint, const Sparsity& sparsity,
                                     const TokenSequences& sequences, ThreadPool* pool) {
  EW_TRY(ActivationWalk walk, ActivationWalk::Create(checkpoint, sequences, pool));
  OutlierCount outliers;
  for (uint32_t layer = 0; layer < walk.spec().n_layers; ++layer) {
    EW_TRY(walk.Load(layer));
    ColumnMoments moments[kLinearInputs];
    for (const LayerMatrix& matrix : walk.matrices()) {
      moments[static_cast<size_t>(matrix.input)] = ColumnMoments(matrix.columns);
    }
    EW_TRY(walk.Pass([&](LinearInput input, const float* rows, size_t n, size_t stride) {
      moments[static_cast<size_t>(input)].Add(rows, n, stride);
      return true;
    }));
    for (const LayerMatrix& matrix : walk.matrices()) {
      EW_TRY(outliers
                 .Add({matrix.values, matrix.rows * matrix.columns}, matrix.columns,
                      ColumnNorms(moments[static_cast<size_t>(matrix.input)]))
                 .In(matrix.name));
    }
    outliers.EndLayer();
  }
  return outliers.Ratios(sparsity);
}

// Shows the scores of every matrix to `see`. Only for methods that need no input.
Status ForEachScores(const Checkpoint& checkpoint, const PruneOptions& options,
                     FunctionRef<void(std::span<const float> scores)> see) {
  for (size_t i = 0; i < checkpoint.tensors().size(); ++i) {
    const CheckpointTensor& tensor = checkpoint.tensors()[i];
    if (!IsPrunable(tensor)) continue;
    EW_TRY(const std::vector<float> values, LoadRows(checkpoint, i, SIZE_MAX));
    checkpoint.DropPages(i);
    EW_TRY(const std::vector<float> scores,
           Scores(ScoreOf(options.method), values, tensor.shape.columns(), {}, options.seed)
               .In(tensor.name));
    see(scores);
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
  return !row.score || NeedsNorms(*row.score) || row.swaps;
}

bool SwapsWeights(PruneMethod method) { return RowOf(method).swaps; }

bool IsPrunable(const CheckpointTensor& tensor) {
  return tensor.name.starts_with("blk.") && tensor.shape.rank() == 2;
}

Status CheckPruning(const Checkpoint& checkpoint, const PruneOptions& options) {
  if (options.sparsity.ratio <= 0) {
    return MakeError(Code::kInvalidArgument, "a sparsity of 0 prunes nothing");
  }
  if (options.sparsity.structured() && (options.owl || RowOf(options.method).global)) {
    return MakeError(
        Code::kInvalidArgument,
        "%s spreads a share of the weights over the layers, and %s is the same in all: "
        "give a share, such as 50%%",
        options.owl ? "OWL" : PruneMethodName(options.method), options.sparsity.ToString().c_str());
  }
  if (options.owl && !NeedsCalibration(options.method)) {
    return MakeError(Code::kInvalidArgument,
                     "OWL goes with methods that look at inputs, not with %s",
                     PruneMethodName(options.method));
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
  if (options.owl) {
    EW_TRY(std::vector<double> ratios, RatiosOf(checkpoint, options.sparsity, *calibration));
    pruner.SetRatios(std::move(ratios));
  }
  std::optional<GlobalSelection> selection;
  if (pruner.method().global) {
    selection.emplace(options.sparsity);
    EW_TRY(ForEachScores(checkpoint, options, [&](auto scores) { selection->Count(scores); }));
    EW_TRY(ForEachScores(checkpoint, options, [&](auto scores) { selection->Refine(scores); }));
    pruner.SetSelection(&*selection);
  }
  const auto tensors = checkpoint.tensors();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const CheckpointTensor& tensor = tensors[i];
    if (!IsPrunable(tensor)) continue;
    const size_t columns = tensor.shape.columns();
    InputView input;
    if (NeedsCalibration(options.method)) {
      EW_TRY(const ColumnMoments moments, calibration->Moments(tensor.name, columns));
      if (SwapsWeights(options.method) && moments.sum.empty()) {
        return MakeError(
            Code::kInvalidArgument,
            "%s: a calibration file has no means of inputs, which %s needs; give a text",
            calibration->path().c_str(), PruneMethodName(options.method));
      }
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
  Pruner pruner(checkpoint, options, pool, progress, sink);
  if (options.owl) {
    EW_TRY(std::vector<double> ratios, RatiosOf(checkpoint, options.sparsity, sequences, pool));
    pruner.SetRatios(std::move(ratios));
  }
  EW_TRY(ActivationWalk walk, ActivationWalk::Create(checkpoint, std::move(sequences), pool));
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
