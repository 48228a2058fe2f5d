#include "compress/prune/structured.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <utility>

#include "base/check.h"
#include "base/strings.h"
#include "calibrate/statistics.h"
#include "compress/prune/channels.h"
#include "compress/prune/input_metric.h"
#include "compress/prune/reconstruct.h"
#include "compress/prune/unit_score.h"
#include "compress/quantize/output_error.h"

namespace edgewise {
namespace {

constexpr const char* kMethodNames[] = {"flap", "minitron", "magnitude", "random"};

bool LooksAtInputs(StructureMethod method) {
  return method == StructureMethod::kFlap || method == StructureMethod::kMinitron;
}

// Which of `units` indices are not in `kept`.
std::vector<uint32_t> RemovedOf(uint32_t units, std::span<const uint32_t> kept) {
  std::vector<uint32_t> removed;
  for (uint32_t unit = 0; unit < units; ++unit) {
    if (!std::binary_search(kept.begin(), kept.end(), unit)) removed.push_back(unit);
  }
  return removed;
}

// The groups and neurons of a model that has its layers and channels already.
class UnitPruner {
 public:
  UnitPruner(const Checkpoint& base, const StructureOptions& options, const StructurePlan& plan,
             ThreadPool* pool, Progress* progress, RepairSink sink)
      : base_(base),
        spec_(base.spec()),
        options_(options),
        plan_(plan),
        pool_(pool),
        progress_(progress),
        sink_(sink),
        kept_(Structure::First(SizesOf(spec_))) {}

  // By weights alone.
  Status RunBlind();
  // By what the layers see, one after the other. `dense` walks the model with all channels, whose
  // outputs those that read fewer are fitted to; null: no channel went, or nothing is repaired.
  Status Run(ActivationWalk* walk, ActivationWalk* dense);
  const Structure& kept() const { return kept_; }
  std::vector<LayerLoss> TakeLosses() { return std::move(losses_); }

 private:
  std::vector<uint32_t>& KeptOf(UnitKind kind) {
    return (kind == UnitKind::kGroup ? kept_.groups : kept_.neurons)[layer_];
  }
  uint32_t CountOf(UnitKind kind) const {
    return kind == UnitKind::kGroup ? plan_.kept.groups : plan_.kept.neurons;
  }
  UnitLoss& LossOf(UnitKind kind) {
    return kind == UnitKind::kGroup ? losses_[layer_].heads : losses_[layer_].ffn;
  }
  Result<std::vector<double>> BlindScores(UnitKind kind) const;
  Status Select(UnitKind kind, std::span<const double> scores);
  Status SelectByInput(UnitKind kind, ActivationWalk* walk);
  Status FitInputs(LinearInput input, ActivationWalk* walk, ActivationWalk* dense);
  Status Emit(const ActivationWalk& walk) const;

  const Checkpoint& base_;
  const ModelSpec& spec_;
  const StructureOptions& options_;
  const StructurePlan& plan_;
  ThreadPool* pool_;
  Progress* progress_;
  RepairSink sink_;
  Structure kept_;
  std::vector<LayerLoss> losses_;
  uint32_t layer_ = 0;
  std::set<size_t> repaired_;  // of the layer's matrices
};

Result<std::vector<double>> UnitPruner::BlindScores(UnitKind kind) const {
  if (options_.method == StructureMethod::kMagnitude) return WeightSquares(base_, kind, layer_);
  return RandomScores(UnitCount(spec_, kind),
                      options_.seed + 2 * layer_ + (kind == UnitKind::kGroup ? 0 : 1));
}

Status UnitPruner::Select(UnitKind kind, std::span<const double> scores) {
  EW_TRY(CheckScores(scores, "units").In(Format("layer %u", layer_)));
  KeptOf(kind) = KeepBest(scores, CountOf(kind));
  UnitLoss& loss = LossOf(kind);
  loss.removed = RemovedOf(UnitCount(spec_, kind), KeptOf(kind));
  loss.score = ScoreShareLost(scores, KeptOf(kind));
  return Ok{};
}

Status UnitPruner::RunBlind() {
  for (layer_ = 0; layer_ < spec_.n_layers; ++layer_) {
    losses_.push_back({.layer = layer_, .heads = {}, .ffn = {}});
    for (const UnitKind kind : {UnitKind::kGroup, UnitKind::kNeuron}) {
      if (CountOf(kind) == UnitCount(spec_, kind)) continue;
      EW_TRY(const std::vector<double> scores, BlindScores(kind));
      EW_TRY(Select(kind, scores));
    }
    progress_->Update("pruning", layer_ + 1, spec_.n_layers);
    if (progress_->Cancelled()) return MakeError(Code::kCancelled, "stopped; nothing was written");
  }
  return Ok{};
}

// Fitting fills zeros, so weights that were set to zero before must not be there. Columns that are
// all zero may be: they read nothing.
Status CheckDense(const LayerMatrix& matrix) {
  size_t zeros = 0, live = 0;
  for (size_t c = 0; c < matrix.columns; ++c) {
    size_t here = 0;
    for (size_t row = 0; row < matrix.rows; ++row) {
      here += matrix.values[row * matrix.columns + c] == 0 ? 1 : 0;
    }
    if (here == matrix.rows) continue;
    zeros += here;
    live += matrix.rows;
  }
  if (static_cast<double>(zeros) <= 0.05 * static_cast<double>(live)) return Ok{};
  return MakeError(Code::kInvalidArgument,
                   "tensor %s is pruned already, and fitting what is left of the structure would "
                   "fill its zeros: remove structure first",
                   matrix.name.c_str());
}

// Chooses among what attn_output or ffn_down reads, on what the loaded layer gives now, and sets
// the columns that go to zero, so that the walk goes on with the smaller model.
Status UnitPruner::SelectByInput(UnitKind kind, ActivationWalk* walk) {
  const uint32_t units = UnitCount(spec_, kind);
  if (CountOf(kind) == units) return Ok{};
  const bool heads = kind == UnitKind::kGroup;
  const LinearInput input = heads ? LinearInput::kAttnOutput : LinearInput::kDown;
  const auto matrices = walk->matrices();
  const auto found = std::find_if(matrices.begin(), matrices.end(),
                                  [&](const LayerMatrix& m) { return m.input == input; });
  EW_CHECK(found != matrices.end());
  const LayerMatrix& matrix = *found;
  const size_t n = matrix.columns;
  UnitStatistics statistics(n, n / units, walk->sequences());
  EW_TRY(ProductSum products, ProductSum::Create(n, pool_));
  EW_TRY(walk->Visit([&](LinearInput which, const float* rows, size_t count, size_t stride) {
    if (which != input) return true;
    statistics.Add(rows, count, stride);
    products.Add(rows, count, stride);
    return false;
  }));
  const std::span<float> values(matrix.values, matrix.rows * n);
  std::vector<double> scores;
  if (options_.method == StructureMethod::kFlap) {
    std::vector<double> squares(n);
    AddColumnSquares(values, &squares);
    scores = statistics.Fluctuation(squares);
  } else if (options_.method == StructureMethod::kMinitron) {
    scores = statistics.Activation();
  } else {
    EW_TRY(scores, BlindScores(kind));
  }
  EW_TRY(Select(kind, scores));
  const std::vector<uint32_t> columns =
      IndicesOf(spec_, heads ? Axis::kQuery : Axis::kNeurons, KeptOf(kind));
  if (options_.repair) EW_TRY(CheckDense(matrix));
  const std::vector<float> before(values.begin(), values.end());
  const std::vector<uint32_t> gone = RemovedOf(static_cast<uint32_t>(n), columns);
  for (size_t row = 0; row < matrix.rows; ++row) {
    for (const uint32_t c : gone) values[row * n + c] = 0;
  }
  const std::span<const float> h(products.Finish(), n * n);
  if (options_.repair) {
    EW_TRY(const Reconstruction fit, Reconstruction::Create(h, n, columns, pool_).In(matrix.name));
    fit.Run(before, pool_, values);
    repaired_.insert(static_cast<size_t>(found - matrices.begin()));
  }
  const double all = ReconstructionError(before, std::vector<float>(before.size()), h, n, pool_);
  const double off = ReconstructionError(before, values, h, n, pool_);
  LossOf(kind).error = all > 0 ? std::sqrt(off / all) : 0;
  return Ok{};
}

// Fits the matrices of one input of fewer channels to what those of all channels give.
Status UnitPruner::FitInputs(LinearInput input, ActivationWalk* walk, ActivationWalk* dense) {
  if (dense == nullptr) return Ok{};
  const auto visit = [input](ActivationWalk* of, RowsSink rows) {
    return of->Visit([&](LinearInput which, const float* x, size_t n, size_t stride) {
      if (which != input) return true;
      rows(x, n, stride);
      return false;
    });
  };
  EW_TRY(const ChannelFit fit, ChannelFit::Create(dense, walk, visit, pool_));
  for (size_t i = 0; i < walk->matrices().size(); ++i) {
    const LayerMatrix &to = walk->matrices()[i], &from = dense->matrices()[i];
    if (to.input != input) continue;
    EW_TRY(CheckDense(from));
    fit.Run({from.values, from.rows * from.columns}, pool_, {to.values, to.rows * to.columns});
    repaired_.insert(i);
  }
  return Ok{};
}

// Gives the matrices that repair changed to the sink, without what goes.
Status UnitPruner::Emit(const ActivationWalk& walk) const {
  for (const size_t i : repaired_) {
    const LayerMatrix& matrix = walk.matrices()[i];
    const TensorAxes axes = AxesOf(spec_, matrix.name);
    const auto indices = [&](Axis axis) {
      const UnitKind kind = KindOf(axis);
      return IndicesOf(spec_, axis,
                       kind == UnitKind::kChannel ? kept_.channels
                       : kind == UnitKind::kGroup ? kept_.groups[layer_]
                                                  : kept_.neurons[layer_]);
    };
    const std::vector<uint32_t> columns = indices(axes.columns);
    std::vector<float> values;
    for (const uint32_t row : indices(axes.rows)) {
      const float* from = matrix.values + row * matrix.columns;
      for (const uint32_t column : columns) values.push_back(from[column]);
    }
    EW_TRY(sink_(matrix.name, values));
  }
  return Ok{};
}

Status UnitPruner::Run(ActivationWalk* walk, ActivationWalk* dense) {
  const auto pass = [](LinearInput, const float*, size_t, size_t) { return true; };
  for (layer_ = 0; layer_ < spec_.n_layers; ++layer_) {
    losses_.push_back({.layer = layer_, .heads = {}, .ffn = {}});
    repaired_.clear();
    EW_TRY(walk->Load(layer_));
    if (dense != nullptr) EW_TRY(dense->Load(layer_));
    EW_TRY(FitInputs(LinearInput::kQkv, walk, dense));
    EW_TRY(SelectByInput(UnitKind::kGroup, walk));
    EW_TRY(FitInputs(LinearInput::kGateUp, walk, dense));
    EW_TRY(SelectByInput(UnitKind::kNeuron, walk));
    EW_TRY(Emit(*walk));
    progress_->Update("pruning", layer_ + 1, spec_.n_layers);
    if (progress_->Cancelled()) return MakeError(Code::kCancelled, "stopped; nothing was written");
    if (layer_ + 1 < spec_.n_layers || dense != nullptr) EW_TRY(walk->Pass(pass));
    if (dense != nullptr) EW_TRY(dense->Pass(pass));
  }
  return Ok{};
}

// Fits an output matrix of its own; one that is the embedding too must stay.
Status FitOutput(const Checkpoint& dense_model, const Checkpoint& base, ActivationWalk* dense,
                 ActivationWalk* walk, ThreadPool* pool, RepairSink sink) {
  constexpr const char* kName = "output.weight";
  const auto from = dense_model.Find(kName), to = base.Find(kName);
  if (!from || !to) return Ok{};
  const auto visit = [](ActivationWalk* of, RowsSink rows) { return of->VisitOutput(rows); };
  EW_TRY(const ChannelFit fit, ChannelFit::Create(dense, walk, visit, pool));
  EW_TRY(const std::vector<float> before, LoadRows(dense_model, *from, SIZE_MAX));
  EW_TRY(std::vector<float> values, LoadRows(base, *to, SIZE_MAX));
  fit.Run(before, pool, values);
  return sink(kName, values);
}

std::vector<LayerLoss> Renumbered(std::vector<LayerLoss> losses, std::span<const uint32_t> layers) {
  for (LayerLoss& loss : losses) loss.layer = layers[loss.layer];
  return losses;
}

}  // namespace

Result<StructureMethod> ParseStructureMethod(std::string_view name) {
  for (size_t i = 0; i < std::size(kMethodNames); ++i) {
    if (name == kMethodNames[i]) return static_cast<StructureMethod>(i);
  }
  return MakeError(
      Code::kInvalidArgument, "--method %s: no such method of removing structure; known are %s",
      Quote(name).c_str(), Join({std::begin(kMethodNames), std::end(kMethodNames)}, ", ").c_str());
}

const char* StructureMethodName(StructureMethod method) {
  return kMethodNames[static_cast<size_t>(method)];
}

bool NeedsText(const StructureOptions& options) {
  const StructureRequest& request = options.request;
  const bool scored = request.LeavesInputsToFit() || request.layers.given();
  return (scored && LooksAtInputs(options.method)) || request.width.given() ||
         (options.repair && (request.ffn.given() || request.heads.given()));
}

Result<StructuredModel> PruneStructure(const Checkpoint& model, const StructureOptions& options,
                                       const StructurePlan& plan, TokenSequences sequences,
                                       ThreadPool* pool, Progress* progress, RepairSink sink) {
  const StructureSizes before = SizesOf(model.spec());
  EW_TRY(const GlobalChoice choice,
         ChooseGlobally(model, options, plan.kept, sequences, pool, progress));
  Structure kept = Structure::First(before);
  kept.layers = choice.layers;
  const Checkpoint dense = CutModel(model, kept);
  kept = Structure::First(SizesOf(dense.spec()));
  kept.channels = choice.channels;
  const bool narrower = plan.kept.channels < before.channels;
  const Checkpoint base =
      narrower ? WithScaledNorms(CutModel(dense, kept), choice.norm_scales) : dense;

  const bool fewer = plan.kept.groups < before.groups || plan.kept.neurons < before.neurons;
  const bool fit = narrower && options.repair;
  UnitPruner pruner(base, options, plan, pool, progress, sink);
  if (fit || (fewer && NeedsText(options))) {
    std::optional<ActivationWalk> dense_walk;
    if (fit) {
      EW_TRY(dense_walk, ActivationWalk::Create(dense, sequences, pool));
    }
    EW_TRY(ActivationWalk walk, ActivationWalk::Create(base, std::move(sequences), pool));
    EW_TRY(pruner.Run(&walk, fit ? &*dense_walk : nullptr));
    if (fit) EW_TRY(FitOutput(dense, base, &*dense_walk, &walk, pool, sink));
  } else if (fewer) {
    EW_TRY(pruner.RunBlind());
  }
  return StructuredModel{
      CutModel(base, pruner.kept()), RemovedOf(before.layers, choice.layers), choice.channel_score,
      fewer ? Renumbered(pruner.TakeLosses(), choice.layers) : std::vector<LayerLoss>()};
}

}  // namespace edgewise
