#include "compress/prune/prune.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "calibrate/statistics.h"
#include "compress/prune/owl.h"
#include "compress/prune/permute_model.h"
#include "compress/quantize/output_error.h"

namespace edgewise {
namespace {

// "blk.N." to N.
size_t LayerOf(const std::string& name) { return std::stoul(name.substr(4)); }

class Pruner {
 public:
  Pruner(const Checkpoint& checkpoint, const PruneOptions& options, const PrunedBefore& finished,
         ThreadPool* pool, Progress* progress, PruneSink sink)
      : options_(options), finished_(finished), pool_(pool), progress_(progress), sink_(sink) {
    for (const CheckpointTensor& tensor : checkpoint.tensors()) {
      if (IsPrunable(tensor)) total_ += tensor.shape.elements();
    }
  }
  // For OWL: the share of each layer's weights to prune.
  void SetRatios(std::vector<double> ratios) { ratios_ = std::move(ratios); }
  // For global methods; it has counted and refined all scores.
  void SetSelection(GlobalSelection* selection) { selection_ = selection; }
  // Whether Run needs no input for tensor `index`, because an earlier run has pruned it. A global
  // selection must see all.
  bool Finished(size_t index) const {
    return finished_ && selection_ == nullptr && finished_(index);
  }
  // Prunes tensor `index`, `values` (rows, columns), in place.
  Status Run(size_t index, const std::string& name, std::span<float> values, size_t columns,
             const MatrixInput& input);

 private:
  Result<std::vector<float>> Prune(size_t index, const std::string& name,
                                   std::span<const float> values, size_t columns,
                                   const MatrixInput& input) const;
  Sparsity SparsityOf(const std::string& name) const;
  const PruneOptions& options_;
  const PrunedBefore& finished_;
  ThreadPool* pool_;
  Progress* progress_;
  PruneSink sink_;
  std::vector<double> ratios_;            // by layer; empty: the same for all
  GlobalSelection* selection_ = nullptr;  // null: not global
  uint64_t done_ = 0, total_ = 0;         // weights
};

Sparsity Pruner::SparsityOf(const std::string& name) const {
  if (ratios_.empty()) return options_.sparsity;
  return Sparsity{.ratio = ratios_[LayerOf(name)]};
}

Result<std::vector<float>> Pruner::Prune(size_t index, const std::string& name,
                                         std::span<const float> values, size_t columns,
                                         const MatrixInput& input) const {
  const Sparsity sparsity = SparsityOf(name);
  const double zeros = ZeroShare(values);
  const bool may_have = options_.keep_zeros || options_.method == PruneMethod::kMask;
  const bool one_of_several = options_.goal > sparsity.ratio;
  if (zeros > 0 && zeros >= std::max(sparsity.ratio, options_.goal) && !may_have) {
    return MakeError(Code::kInvalidArgument,
                     "tensor %s is pruned already: %.1f %% of its weights are zero; start from the "
                     "dense model, or ask for more than that",
                     name.c_str(), 100 * zeros);
  }
  if (one_of_several && zeros >= sparsity.ratio && !sparsity.structured()) {
    return std::vector<float>(values.begin(), values.end());  // a later step goes on from here
  }
  std::optional<Mask> within;
  if (options_.keep_zeros || one_of_several) within = Mask::OfValues(values, columns);
  return PruneMatrix(options_, {index, name, values, columns, within ? &*within : nullptr},
                     sparsity, input, selection_, pool_)
      .In(name);
}

Status Pruner::Run(size_t index, const std::string& name, std::span<float> values, size_t columns,
                   const MatrixInput& input) {
  std::vector<float> pruned(values.size());
  if (Finished(index)) {
    finished_(index)->Decode(0, pruned.size(), pruned.data());
  } else {
    EW_TRY(pruned, Prune(index, name, values, columns, input));
  }
  EW_TRY(sink_(index, values, pruned));
  std::copy(pruned.begin(), pruned.end(), values.begin());
  done_ += values.size();
  progress_->Update("pruning", done_, total_);
  if (progress_->Cancelled()) return MakeError(Code::kCancelled, "stopped; nothing was written");
  return Ok{};
}

// What `method` knows of one input of the loaded layer, of what the layers before give now.
Result<MatrixInput> SeeInput(ActivationWalk* walk, const LayerMatrix& matrix, PruneMethod method,
                             ThreadPool* pool) {
  ColumnMoments moments(matrix.columns);
  std::optional<ProductSum> products;
  if (UpdatesWeights(method)) {
    EW_TRY(products, ProductSum::Create(matrix.columns, pool));
  }
  EW_TRY(walk->Visit([&](LinearInput which, const float* rows, size_t n, size_t stride) {
    if (which != matrix.input) return true;
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
  return MatrixInput::Create(method, moments, h, pool).In(matrix.name);
}

Status PruneInput(ActivationWalk* walk, LinearInput input, PruneMethod method, Pruner* pruner,
                  ThreadPool* pool) {
  MatrixInput known;
  bool seen = false;
  for (const LayerMatrix& matrix : walk->matrices()) {
    if (matrix.input != input) continue;
    if (!seen && !pruner->Finished(matrix.tensor)) {
      EW_TRY(known, SeeInput(walk, matrix, method, pool));
      seen = true;
    }
    EW_TRY(pruner->Run(matrix.tensor, matrix.name, {matrix.values, matrix.rows * matrix.columns},
                       matrix.columns, known));
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
    EW_TRY(const auto moments, walk.PassWithMoments());
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

bool IsPrunable(const CheckpointTensor& tensor) {
  return tensor.name.starts_with("blk.") && tensor.shape.rank() == 2;
}

double ZeroShare(std::span<const float> values) {
  const auto zeros = std::count(values.begin(), values.end(), 0.0f);
  return static_cast<double>(zeros) / static_cast<double>(values.size());
}

PruneEffect EffectOf(std::span<const float> before, std::span<const float> after) {
  double off = 0, all = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    const double value = before[i], change = value - static_cast<double>(after[i]);
    all += value * value;
    off += change * change;
  }
  return {1 - ZeroShare(after), all > 0 ? std::sqrt(off / all) : 0};
}

Status CheckPruning(const Checkpoint& checkpoint, const PruneOptions& options) {
  if (options.method == PruneMethod::kMask) {
    for (const CheckpointTensor& tensor : checkpoint.tensors()) {
      if (!IsPrunable(tensor)) continue;
      EW_TRY(options.masks->Check({tensor.name, tensor.shape.rows(), tensor.shape.columns()}));
    }
    return Ok{};
  }
  if (options.sparsity.ratio <= 0) {
    return MakeError(Code::kInvalidArgument, "a sparsity of 0 prunes nothing");
  }
  if (options.sparsity.structured() && (options.owl || IsGlobal(options.method))) {
    return MakeError(
        Code::kInvalidArgument,
        "%s spreads a share of the weights over the layers, and %s is the same in all: "
        "give a share, such as 50%%",
        options.owl ? "OWL" : PruneMethodName(options.method), options.sparsity.ToString().c_str());
  }
  if (options.permute) EW_TRY(CheckPermutation(options));
  if (options.steps > 1 && (!NeedsCalibration(options.method) || options.owl)) {
    return MakeError(Code::kInvalidArgument,
                     "steps go with methods that look at inputs, which change with each step, and "
                     "not with %s",
                     options.owl ? "OWL" : PruneMethodName(options.method));
  }
  if (options.owl && !NeedsCalibration(options.method)) {
    return MakeError(Code::kInvalidArgument,
                     "OWL goes with methods that look at inputs, not with %s",
                     PruneMethodName(options.method));
  }
  for (const CheckpointTensor& tensor : checkpoint.tensors()) {
    if (!IsPrunable(tensor)) continue;
    EW_TRY(options.sparsity.CheckColumns(tensor.shape.columns()).In(tensor.name));
    const size_t compared =
        ComparedWeights(options.method, tensor.shape.rows(), tensor.shape.columns());
    if (options.sparsity.PrunedOf(compared) > 0) continue;
    return MakeError(Code::kInvalidArgument,
                     "tensor %s: %s of the %zu weights that %s compares is less than one",
                     tensor.name.c_str(), options.sparsity.ToString().c_str(), compared,
                     PruneMethodName(options.method));
  }
  return Ok{};
}

namespace {

// What a method knows from a calibration file of the input of a tensor.
Result<MatrixInput> KnownInput(const CalibrationFile& calibration, const CheckpointTensor& tensor,
                               const PruneOptions& options, ThreadPool* pool) {
  const PruneMethod method = options.method;
  const size_t columns = tensor.shape.columns();
  EW_TRY(const ColumnMoments moments, calibration.Moments(tensor.name, columns));
  if (SwapsWeights(method) && options.swap && moments.sum.empty()) {
    return MakeError(Code::kInvalidArgument,
                     "%s: a calibration file has no means of inputs, which %s needs; give a text",
                     calibration.path().c_str(), PruneMethodName(method));
  }
  const auto h = [&] { return calibration.Hessian(tensor.name, columns); };
  return MatrixInput::Create(method, moments, h, pool).In(tensor.name);
}

}  // namespace

Status PruneByCalibration(const Checkpoint& checkpoint, const PruneOptions& options,
                          const CalibrationFile* calibration, const PrunedBefore& finished,
                          ThreadPool* pool, Progress* progress, PruneSink sink) {
  EW_TRY(CheckPruning(checkpoint, options));
  Pruner pruner(checkpoint, options, finished, pool, progress, sink);
  if (options.owl) {
    EW_TRY(std::vector<double> ratios, RatiosOf(checkpoint, options.sparsity, *calibration));
    pruner.SetRatios(std::move(ratios));
  }
  std::optional<GlobalSelection> selection;
  if (IsGlobal(options.method)) {
    selection.emplace(options.sparsity);
    EW_TRY(ForEachScores(checkpoint, options, [&](auto scores) { selection->Count(scores); }));
    EW_TRY(ForEachScores(checkpoint, options, [&](auto scores) { selection->Refine(scores); }));
    pruner.SetSelection(&*selection);
  }
  const auto tensors = checkpoint.tensors();
  std::vector<size_t> order;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (IsPrunable(tensors[i])) order.push_back(i);
  }
  const bool calibrated = NeedsCalibration(options.method);
  if (calibrated) GroupByInput(&order, [&](size_t i) { return tensors[i].name; });
  MatrixInput input;
  std::string known;  // whose input it is
  for (const size_t i : order) {
    const CheckpointTensor& tensor = tensors[i];
    if (calibrated && InputName(tensor.name) != known && !pruner.Finished(i)) {
      input = MatrixInput();
      EW_TRY(input, KnownInput(*calibration, tensor, options, pool));
      known = InputName(tensor.name);
    }
    EW_TRY(std::vector<float> values, LoadRows(checkpoint, i, options.sample_rows));
    checkpoint.DropPages(i);
    EW_TRY(pruner.Run(i, tensor.name, values, tensor.shape.columns(), input));
  }
  return Ok{};
}

Status PruneLayerwise(const Checkpoint& checkpoint, const PruneOptions& options,
                      TokenSequences sequences, const PrunedBefore& finished, ThreadPool* pool,
                      Progress* progress, PruneSink sink) {
  EW_TRY(CheckPruning(checkpoint, options));
  Pruner pruner(checkpoint, options, finished, pool, progress, sink);
  if (options.owl) {
    EW_TRY(std::vector<double> ratios, RatiosOf(checkpoint, options.sparsity, sequences, pool));
    pruner.SetRatios(std::move(ratios));
  }
  EW_TRY(ActivationWalk walk, ActivationWalk::Create(checkpoint, std::move(sequences), pool));
  const uint32_t layers = walk.spec().n_layers;
  for (uint32_t layer = 0; layer < layers; ++layer) {
    EW_TRY(walk.Load(layer));
    for (size_t i = 0; i < kLinearInputs; ++i) {
      EW_TRY(PruneInput(&walk, static_cast<LinearInput>(i), options.method, &pruner, pool));
    }
    if (layer + 1 == layers) break;
    EW_TRY(walk.Pass([](LinearInput, const float*, size_t, size_t) { return true; }));
  }
  return Ok{};
}

}  // namespace edgewise
