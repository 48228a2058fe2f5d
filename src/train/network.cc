#include "train/network.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "base/strings.h"
#include "train/network_impl.h"

namespace edgewise::train {
namespace {

constexpr size_t kLogitRows = 512;  // whose logits are in memory together

size_t LayerFloats(const ModelSpec& spec) {
  size_t floats = spec.q_dim() + 2 * spec.kv_dim() + spec.q_dim() + spec.n_heads + spec.dim +
                  2 * size_t{spec.ffn_dim} + 2;
  if (spec.qk_norm) floats += spec.q_dim() + spec.kv_dim() + spec.n_heads + spec.n_kv_heads;
  if (spec.post_norms) floats += 2 * spec.dim + 2;
  return floats;
}

// What adapters take beside the layers: for each row, and once.
size_t LoraRowFloats(const ModelSpec& spec, const NetworkOptions& options) {
  if (options.lora.rank == 0 || options.keep_zeros) return 0;
  const size_t outputs = size_t{3} * options.lora.rank;  // of q, k and v together
  return 2 * outputs + (options.lora.dropout > 0 ? 2 * Widest(spec) : 0);
}
size_t LoraFloats(const ModelSpec& spec, const NetworkOptions& options, bool gradients) {
  if (options.lora.rank == 0 || !options.keep_zeros) return 0;
  size_t largest = 0;
  for (const Product p : kAllProducts) {
    largest = std::max(largest, OutputsOf(spec, p) * InputsOf(spec, p));
  }
  return (gradients ? 2 : 1) * largest;
}

// Of a row, whose activations are kept for `kept` layers.
size_t RowFloats(const ModelSpec& spec, size_t kept, size_t residual, bool gradients) {
  const size_t widest = Widest(spec);
  size_t floats = kept * LayerFloats(spec) + residual * spec.dim + 2 * spec.dim + widest;
  if (!gradients) return floats;
  return floats + 2 * spec.dim + std::max<size_t>(2 * size_t{spec.ffn_dim}, QkvDim(spec)) + widest;
}

}  // namespace

uint64_t ActivationBytes(const ModelSpec& spec, const NetworkOptions& options, size_t rows,
                         bool gradients) {
  const size_t kept = gradients && !options.recompute ? spec.n_layers : 1;
  const size_t floats = RowFloats(spec, kept, gradients ? spec.n_layers + 1 : 2, gradients) +
                        LoraRowFloats(spec, options);
  return (rows * floats + std::min(rows, kLogitRows) * (spec.vocab_size + 2 * spec.dim) +
          LoraFloats(spec, options, gradients)) *
         sizeof(float);
}

uint64_t GrowingBytes(const ModelSpec& spec, const NetworkOptions& options, size_t rows) {
  return ActivationBytes(spec, options, rows, false) +
         uint64_t{rows} * spec.n_layers * QkvDim(spec) * sizeof(float);
}

uint64_t LayerActivationBytes(const ModelSpec& spec, size_t rows, bool gradients) {
  return rows * RowFloats(spec, 1, 2, gradients) * sizeof(float);
}

Status Network::Impl::Begin(const Batch& batch, bool gradients, size_t layers) {
  n = batch.size();
  lengths = batch.lengths;
  const size_t sum = std::accumulate(lengths.begin(), lengths.end(), size_t{0});
  if (n == 0 || sum != n || batch.targets.size() != n) {
    return MakeError(Code::kInvalidArgument,
                     "a batch of %zu tokens with %zu targets and sequences of %zu in all", n,
                     batch.targets.size(), sum);
  }
  for (size_t i = 0; i < n; ++i) {
    const int32_t token = batch.tokens[i], target = batch.targets[i];
    const auto outside = [&](int32_t id) {
      return id < 0 || id >= static_cast<int64_t>(spec.vocab_size);
    };
    if (outside(token) || (target != kNoTarget && outside(target))) {
      return MakeError(Code::kInvalidArgument, "token id %d is outside the vocabulary of %u",
                       outside(token) ? token : target, spec.vocab_size);
    }
  }
  const size_t widest = Widest(spec);
  states.resize(gradients && !options.recompute ? layers : 1);
  residual.resize(gradients ? layers + 1 : 2);
  for (std::vector<float>& x : residual) x.resize(room() * spec.dim);
  normed.resize(room() * spec.dim);
  branch.resize(room() * spec.dim);
  wide.resize(room() * widest);
  if (gradients) {
    dx.resize(room() * spec.dim);
    dbranch.resize(room() * spec.dim);
    dwide.resize(room() * std::max<size_t>(2 * size_t{spec.ffn_dim}, qkv_dim()));
    dnarrow.resize(room() * widest);
  }
  Rotations(lengths, lengths, false);
  rows.clear();
  for (size_t i = 0; i < n; ++i) {
    if (batch.targets[i] != kNoTarget) rows.push_back(static_cast<uint32_t>(i));
  }
  return Ok{};
}

void Network::Impl::Rotations(std::span<const uint32_t> ends, std::span<const uint32_t> totals,
                              bool last) {
  for (RopeRows* rows_of : {&rope, &sliding_rope}) {
    if (rows_of == &sliding_rope && spec.local_rope_base == 0) continue;
    rows_of->Clear();
    for (size_t i = 0; i < ends.size(); ++i) {
      rows_of->Append(last ? ends[i] - 1 : 0, ends[i], totals[i]);
    }
  }
}

void Network::Impl::Show(const Batch& batch, const Pass& pass, uint32_t depth) {
  if (pass.visitor == nullptr) return;
  const float* qkv = depth > 0 ? State(depth - 1)->qkv.data() : nullptr;
  pass.visitor->Visit({batch, depth, Residual(depth), {qkv, qkv_dim()}});
}

Result<Network::Impl::LayerPass> Network::Impl::InLayer(const Pass& pass, uint32_t l) {
  EW_TRY(const LayerWeights weights, pass.weights->Layer(l));
  return LayerPass{pass, l, weights, In(FullGradients(pass), layout.layer(l)), State(l)};
}

Status Network::Impl::Forward(const Batch& batch, const Pass& pass) {
  const TokenRows embedding = pass.weights->Embedding(batch.tokens);
  ops->Embed(embedding.ids, embedding.table, spec.dim, spec.embedding_scale, Residual(0));
  Drop(pass, spec.n_layers, 0, Residual(0));
  Show(batch, pass, 0);
  for (uint32_t l = 0; l < spec.n_layers; ++l) {
    EW_TRY(const LayerPass at, InLayer(pass, l));
    ForwardLayer(at);
    Show(batch, pass, l + 1);
  }
  return Ok{};
}

Status Network::Impl::ForwardToHidden(const Batch& batch, const Pass& pass) {
  EW_TRY(Forward(batch, pass));
  Norm(pass.weights->OutputNorm(), Residual(spec.n_layers), &last_norm, normed.data());
  return Ok{};
}

// hidden = the rows of normed, which is the last norm's output.
void Network::Impl::GatherHidden(std::span<const uint32_t> chosen) {
  hidden.resize(chosen.size() * spec.dim);
  for (size_t i = 0; i < chosen.size(); ++i) {
    std::copy_n(normed.data() + chosen[i] * size_t{spec.dim}, spec.dim,
                hidden.data() + i * spec.dim);
  }
}

void Network::Impl::ToLogits(WeightSource* weights, size_t count, float* out) {
  const size_t vocab = spec.vocab_size, dim = spec.dim;
  for (size_t first = 0; first < vocab;) {
    const OutputRows part = weights->Output(first);
    ops->Multiply({hidden.data(), dim}, {part.rows, dim, true}, count, part.count, dim, out + first,
                  vocab, false);
    first += part.count;
  }
  if (spec.logit_softcap <= 0) return;
  for (size_t i = 0; i < count * vocab; ++i) {
    out[i] = spec.logit_softcap * std::tanh(out[i] / spec.logit_softcap);
  }
}

// With gradients, dx becomes that of the stream after the layers.
Result<double> Network::Impl::Loss(const Batch& batch, const Pass& pass, TokenLoss* loss,
                                   float scale) {
  EW_TRY(loss->Begin(batch));
  const float* norm = pass.weights->OutputNorm();
  Norm(norm, Residual(spec.n_layers), &last_norm, normed.data());
  const size_t vocab = spec.vocab_size, dim = spec.dim;
  float* g = FullGradients(pass);
  if (pass.gradients != nullptr) std::fill(dbranch.begin(), dbranch.end(), 0.0f);
  std::vector<float> capped;
  double sum = 0;
  for (size_t first = 0; first < rows.size(); first += kLogitRows) {
    const size_t count = std::min(kLogitRows, rows.size() - first);
    const std::span<const uint32_t> chosen(rows.data() + first, count);
    GatherHidden(chosen);
    logits.resize(count * vocab);
    ToLogits(pass.weights, count, logits.data());
    if (spec.logit_softcap > 0) capped = logits;
    EW_TRY(const double part, loss->Rows(batch, chosen, vocab, scale, logits.data()));
    sum += part;
    if (pass.gradients == nullptr) continue;
    for (size_t i = 0; i < capped.size(); ++i) {  // the derivative of the cap
      const float t = capped[i] / spec.logit_softcap;
      logits[i] *= 1 - t * t;
    }
    if (g != nullptr) {
      ops->Multiply({logits.data(), vocab, true}, {hidden.data(), dim}, vocab, dim, count,
                    g + layout.logits(), dim, true);
    }
    dhidden.resize(count * dim);
    for (size_t at = 0; at < vocab;) {
      const OutputRows output = pass.weights->Output(at);
      ops->Multiply({logits.data() + at, vocab}, {output.rows, dim}, count, dim, output.count,
                    dhidden.data(), dim, at > 0);
      at += output.count;
    }
    for (size_t i = 0; i < count; ++i) {
      std::copy_n(dhidden.data() + i * dim, dim, dbranch.data() + chosen[i] * dim);
    }
  }
  if (pass.gradients != nullptr) {
    NormBackward(norm, Residual(spec.n_layers), last_norm, dbranch.data(), false,
                 g == nullptr ? nullptr : g + layout.output_norm(), dx.data());
  }
  return sum;
}

Status Network::Impl::Backward(const Batch& batch, const Pass& pass) {
  for (uint32_t l = spec.n_layers; l-- > 0;) {
    EW_TRY(const LayerPass at, InLayer(pass, l));
    MatchStream(pass, l + 1);
    BackwardLayer(at);
  }
  MatchStream(pass, 0);
  float* g = FullGradients(pass);
  if (g == nullptr) return Ok{};
  Drop(pass, spec.n_layers, 0, dx.data());
  ops->EmbedBackward(batch.tokens, dx.data(), spec.dim, spec.embedding_scale,
                     g + layout.embedding());
  return Ok{};
}

Network::Network(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Network::Network(Network&&) noexcept = default;
Network::~Network() = default;

Result<Network> Network::Create(const ModelSpec& spec, Ops* ops, const NetworkOptions& options,
                                WeightSource* base) {
  EW_CHECK((base != nullptr) == (options.lora.rank > 0));
  if (spec.norm != NormKind::kRms) {
    return MakeError(Code::kUnsupported, "training knows models with RMSNorm only");
  }
  auto impl = std::make_unique<Impl>(spec, ops, options);
  if (base != nullptr) {
    EW_TRY(impl->lora, LoraLayout::Create(spec, options.lora));
    impl->base = base;
  }
  return Network(std::move(impl));
}

size_t Network::size() const { return impl_->lora ? impl_->lora->size() : impl_->layout.size(); }
size_t Network::matrix_size() const {
  return impl_->lora ? impl_->lora->size() : impl_->layout.matrix_size();
}

Result<double> Network::Train(const Batch& batch, const float* weights, TokenLoss* loss,
                              float scale, uint64_t seed, float* gradients) {
  EW_TRY(impl_->Begin(batch, true));
  const Impl::Pass given = {.gradients = gradients,
                            .training = true,
                            .seed = seed,
                            .layers = loss->layers(),
                            .scale = scale};
  return impl_->WithPass(weights, given, [&](const Impl::Pass& pass) -> Result<double> {
    EW_TRY(impl_->Forward(batch, pass));
    EW_TRY(const double sum, impl_->Loss(batch, pass, loss, scale));
    EW_TRY(impl_->Backward(batch, pass));
    return sum;
  });
}

Result<double> Network::Evaluate(const Batch& batch, const float* weights, TokenLoss* loss) {
  EW_TRY(impl_->Begin(batch, false));
  return impl_->WithPass(weights, {}, [&](const Impl::Pass& pass) -> Result<double> {
    EW_TRY(impl_->Forward(batch, pass));
    return impl_->Loss(batch, pass, loss, 1.0f);
  });
}

Status Network::Forward(const Batch& batch, const float* weights, LayerVisitor* visitor) {
  EW_TRY(impl_->Begin(batch, false));
  return impl_->WithPass(weights, {.visitor = visitor}, [&](const Impl::Pass& pass) {
    return impl_->ForwardToHidden(batch, pass);
  });
}

void Network::Logits(const float* weights, std::span<const uint32_t> rows, float* logits) {
  impl_->GatherHidden(rows);
  impl_->WithPass(weights, {}, [&](const Impl::Pass& pass) {
    impl_->ToLogits(pass.weights, rows.size(), logits);
  });
}

}  // namespace edgewise::train
