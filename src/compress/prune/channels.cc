#include "compress/prune/channels.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/rng.h"
#include "base/scratch.h"
#include "base/strings.h"
#include "calibrate/statistics.h"
#include "compress/prune/unit_score.h"
#include "compress/quantize/output_error.h"
#include "compress/quantize/tensor_changes.h"

namespace edgewise {
namespace {

constexpr size_t kOutputRows = 256;  // that are fitted together

// The mean of 1 - cos between rows (tokens, dim).
double BlockInfluence(std::span<const float> before, std::span<const float> after, size_t dim) {
  double sum = 0;
  for (size_t at = 0; at < before.size(); at += dim) {
    double dot = 0, square = 0, other = 0;
    for (size_t i = at; i < at + dim; ++i) {
      dot += static_cast<double>(before[i]) * after[i];
      square += static_cast<double>(before[i]) * before[i];
      other += static_cast<double>(after[i]) * after[i];
    }
    const double norms = std::sqrt(square * other);
    sum += norms == 0 ? 0 : 1 - dot / norms;
  }
  return sum / static_cast<double>(before.size() / dim);
}

// The names of the norms that read the residual stream: two of each layer, then the last.
std::vector<std::string> NormNames(uint32_t layers) {
  std::vector<std::string> names;
  for (uint32_t layer = 0; layer < layers; ++layer) {
    names.push_back(Format("blk.%u.attn_norm.weight", layer));
    names.push_back(Format("blk.%u.ffn_norm.weight", layer));
  }
  names.emplace_back("output_norm.weight");
  return names;
}

// What one walk over the whole model tells.
class GlobalScores {
 public:
  GlobalScores(const Checkpoint& model, const StructureOptions& options)
      : model_(model), options_(options), channels_(model.spec().dim) {}
  Status Walk(const TokenSequences& sequences, ThreadPool* pool, Progress* progress);

  const std::vector<double>& layers() const { return layers_; }
  const std::vector<double>& channels() const { return channels_; }
  float NormScale(size_t norm, std::span<const uint32_t> kept) const;

 private:
  Status AddNorm(const std::string& name, const UnitStatistics& inputs,
                 const std::vector<double>& weights);
  Status WalkLayer(uint32_t layer, ActivationWalk* walk);

  const Checkpoint& model_;
  const StructureOptions& options_;
  std::vector<double> layers_;                   // block influence
  std::vector<double> channels_;                 // (dim)
  std::vector<std::vector<double>> normalized_;  // E[(x / rms)^2], (dim) of each norm
};

// Takes the output of a norm; the weights are |W_:j|^2 of the matrices that read it.
Status GlobalScores::AddNorm(const std::string& name, const UnitStatistics& inputs,
                             const std::vector<double>& weights) {
  const auto index = model_.Find(name);
  EW_CHECK(index.has_value());
  EW_TRY(const std::vector<float> gain, LoadRows(model_, *index, SIZE_MAX));
  std::vector<double>& squares = normalized_.emplace_back(inputs.MeanSquares());
  for (size_t c = 0; c < squares.size(); ++c) {
    // A gain of 0 hides the channel, which is taken for an average one.
    squares[c] = gain[c] == 0 ? 1 : squares[c] / (static_cast<double>(gain[c]) * gain[c]);
  }
  const std::vector<double> scores =
      options_.method == StructureMethod::kFlap ? inputs.Fluctuation(weights) : inputs.Activation();
  // Over their mean, so that no norm outweighs the others.
  const double mean =
      std::accumulate(scores.begin(), scores.end(), 0.0) / static_cast<double>(scores.size());
  for (size_t c = 0; c < scores.size() && mean > 0; ++c) channels_[c] += scores[c] / mean;
  return Ok{};
}

Status GlobalScores::WalkLayer(uint32_t layer, ActivationWalk* walk) {
  const size_t dim = model_.spec().dim;
  EW_TRY(walk->Load(layer));
  UnitStatistics attention(dim, 1, walk->sequences()), feed_forward(dim, 1, walk->sequences());
  const bool width = options_.request.width.given();
  double influence = 0;
  size_t rows_seen = 0;
  for (size_t i = 0; i < walk->sequences().size(); ++i) {
    const std::vector<float> before(walk->Stream(i).begin(), walk->Stream(i).end());
    EW_TRY(
        walk->PassSequence(i, [&](LinearInput input, const float* rows, size_t n, size_t stride) {
          if (width && input == LinearInput::kQkv) attention.Add(rows, n, stride);
          if (width && input == LinearInput::kGateUp) feed_forward.Add(rows, n, stride);
          return true;
        }));
    const size_t count = walk->sequences()[i].size();
    influence += BlockInfluence(before, walk->Stream(i), dim) * static_cast<double>(count);
    walk->Release(i);
    rows_seen += count;
  }
  layers_.push_back(influence / static_cast<double>(rows_seen));
  if (!width) return Ok{};
  std::vector<double> qkv(dim), gate_up(dim);
  for (const LayerMatrix& matrix : walk->matrices()) {
    const std::span<const float> values(matrix.values, matrix.rows * matrix.columns);
    if (matrix.input == LinearInput::kQkv) AddColumnSquares(values, &qkv);
    if (matrix.input == LinearInput::kGateUp) AddColumnSquares(values, &gate_up);
  }
  EW_TRY(AddNorm(Format("blk.%u.attn_norm.weight", layer), attention, qkv));
  return AddNorm(Format("blk.%u.ffn_norm.weight", layer), feed_forward, gate_up);
}

Status GlobalScores::Walk(const TokenSequences& sequences, ThreadPool* pool, Progress* progress) {
  const ModelSpec& spec = model_.spec();
  EW_TRY(ActivationWalk walk, ActivationWalk::Create(model_, sequences, pool));
  for (uint32_t layer = 0; layer < spec.n_layers; ++layer) {
    EW_TRY(WalkLayer(layer, &walk));
    progress->Update("scoring", layer + 1, spec.n_layers);
    if (progress->Cancelled()) return MakeError(Code::kCancelled, "stopped; nothing was written");
  }
  if (!options_.request.width.given()) return Ok{};
  UnitStatistics last(spec.dim, 1, walk.sequences());
  EW_TRY(walk.VisitOutput(
      [&](const float* rows, size_t n, size_t stride) { last.Add(rows, n, stride); }));
  const auto output = model_.Find(spec.tied_embeddings ? "token_embd.weight" : "output.weight");
  EW_CHECK(output.has_value());
  EW_TRY(const std::vector<float> values, LoadRows(model_, *output, SIZE_MAX));
  std::vector<double> weights(spec.dim);
  AddColumnSquares(values, &weights);
  return AddNorm("output_norm.weight", last, weights);
}

float GlobalScores::NormScale(size_t norm, std::span<const uint32_t> kept) const {
  double sum = 0;
  for (const uint32_t c : kept) sum += normalized_[norm][c];
  return static_cast<float>(std::sqrt(sum / static_cast<double>(kept.size())));
}

Result<std::vector<double>> BlindLayerScores(const Checkpoint& model,
                                             const StructureOptions& options) {
  const uint32_t layers = model.spec().n_layers;
  if (options.method == StructureMethod::kRandom) return RandomScores(layers, options.seed);
  std::vector<double> scores(layers);
  for (uint32_t layer = 0; layer < layers; ++layer) {
    EW_TRY(const std::vector<double> squares, WeightSquares(model, UnitKind::kChannel, layer));
    scores[layer] = std::accumulate(squares.begin(), squares.end(), 0.0);
  }
  return scores;
}

}  // namespace

std::vector<double> RandomScores(uint32_t count, uint64_t seed) {
  Rng rng(seed);
  std::vector<double> scores(count);
  for (double& score : scores) score = rng.Uniform();
  return scores;
}

Result<GlobalChoice> ChooseGlobally(const Checkpoint& model, const StructureOptions& options,
                                    const StructureSizes& kept, const TokenSequences& sequences,
                                    ThreadPool* pool, Progress* progress) {
  const Structure all = Structure::First(SizesOf(model.spec()));
  GlobalChoice choice{all.layers, all.channels, 0, {}};
  if (!options.request.keep_layers.empty()) choice.layers = options.request.keep_layers;
  const bool width = options.request.width.given(), layers = options.request.layers.given();
  const bool blind =
      options.method == StructureMethod::kMagnitude || options.method == StructureMethod::kRandom;
  GlobalScores scores(model, options);
  if (width || (layers && !blind)) EW_TRY(scores.Walk(sequences, pool, progress));
  if (layers) {
    std::vector<double> influence = scores.layers();
    if (blind) {
      EW_TRY(influence, BlindLayerScores(model, options));
    }
    EW_TRY(CheckScores(influence, "layers"));
    choice.layers = KeepBest(influence, kept.layers);
  }
  if (!width) return choice;
  std::vector<double> channels = scores.channels();
  if (options.method == StructureMethod::kMagnitude) {
    EW_TRY(channels, WeightSquares(model, UnitKind::kChannel, {}));
  } else if (options.method == StructureMethod::kRandom) {
    channels = RandomScores(model.spec().dim, options.seed);
  }
  EW_TRY(CheckScores(channels, "channels"));
  choice.channels = KeepBest(channels, kept.channels);
  choice.channel_score = ScoreShareLost(channels, choice.channels);
  for (const uint32_t layer : choice.layers) {
    choice.norm_scales.push_back(scores.NormScale(2 * layer, choice.channels));
    choice.norm_scales.push_back(scores.NormScale(2 * layer + 1, choice.channels));
  }
  choice.norm_scales.push_back(scores.NormScale(2 * model.spec().n_layers, choice.channels));
  return choice;
}

Checkpoint WithScaledNorms(const Checkpoint& model, std::span<const float> scales) {
  TensorChanges changes(model);
  const std::vector<std::string> names = NormNames(model.spec().n_layers);
  for (size_t i = 0; i < names.size(); ++i) {
    changes.Add(names[i], [scale = scales[i]](std::span<float> gains) {
      for (float& gain : gains) gain *= scale;
    });
  }
  return std::move(changes).Apply();
}

// The problem is that of one matrix that reads z = [x of the wide walk, x of the narrow one].
Result<ChannelFit> ChannelFit::Create(ActivationWalk* wide, ActivationWalk* narrow,
                                      FunctionRef<Status(ActivationWalk*, RowsSink)> visit,
                                      ThreadPool* pool) {
  const size_t first = wide->spec().dim, second = narrow->spec().dim, n = first + second;
  EW_TRY(const ScratchMemory inputs,
         ScratchMemory::Create(TokenCount(wide->sequences()) * first * sizeof(float)));
  auto* stored = reinterpret_cast<float*>(inputs.bytes().data());  // (tokens, first)
  size_t filled = 0;
  EW_TRY(visit(wide, [&](const float* rows, size_t count, size_t stride) {
    float* to = stored + filled;
    for (size_t i = 0; i < count; ++i, filled += first) {
      std::copy_n(rows + i * stride, first, stored + filled);
    }
    inputs.DropPages(std::as_bytes(std::span(to, count * first)));
  }));
  EW_TRY(ProductSum products, ProductSum::Create(n, pool));
  size_t at = 0;
  std::vector<float> joint;
  EW_TRY(visit(narrow, [&](const float* rows, size_t count, size_t stride) {
    joint.resize(count * n);
    const float* from = stored + at;
    for (size_t i = 0; i < count; ++i, at += first) {
      std::copy_n(stored + at, first, joint.data() + i * n);
      std::copy_n(rows + i * stride, second, joint.data() + i * n + first);
    }
    inputs.DropPages(std::as_bytes(std::span(from, count * first)));
    products.Add(joint.data(), count, n);
  }));
  std::vector<uint32_t> kept(second);
  std::iota(kept.begin(), kept.end(), static_cast<uint32_t>(first));
  EW_TRY(Reconstruction fit,
         Reconstruction::Create({products.Finish(), n * n}, n, std::move(kept), pool));
  return ChannelFit(std::move(fit), first, second);
}

void ChannelFit::Run(std::span<const float> w, ThreadPool* pool, std::span<float> values) const {
  const size_t rows = w.size() / wide_, n = wide_ + narrow_;
  for (size_t row = 0; row < rows; row += kOutputRows) {
    const size_t count = std::min(kOutputRows, rows - row);
    std::vector<float> before(count * n), after(count * n);
    for (size_t i = 0; i < count; ++i) {
      std::copy_n(w.data() + (row + i) * wide_, wide_, before.data() + i * n);
      std::copy_n(values.data() + (row + i) * narrow_, narrow_, after.data() + i * n + wide_);
    }
    fit_.Run(before, pool, after);
    for (size_t i = 0; i < count; ++i) {
      std::copy_n(after.data() + i * n + wide_, narrow_, values.data() + (row + i) * narrow_);
    }
  }
}

}  // namespace edgewise
