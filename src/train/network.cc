#include "train/network.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/strings.h"
#include "model/rope.h"

namespace edgewise::train {
namespace {

constexpr size_t kLogitRows = 512;  // whose logits are in memory together

// What the backward pass of a layer needs of its forward pass.
struct LayerState {
  std::vector<float> qkv;              // (n, q_dim + 2 kv_dim), rotated
  std::vector<float> raw;              // (n, q_dim + kv_dim): before norms of heads
  std::vector<float> attended;         // (n, q_dim)
  std::vector<float> log_sums;         // (n, n_heads)
  std::vector<float> attention_added;  // (n, dim): before the norm after attention
  std::vector<float> middle;           // (n, dim): the residual stream after attention
  std::vector<float> gate_up;          // (n, 2 ffn_dim)
  std::vector<float> ffn_added;        // (n, dim): before the norm after the feed-forward layer
  // Inverse deviations (n) each; of heads (n, n_heads) and (n, n_kv_heads).
  std::vector<float> norm, ffn_norm, attention_after, ffn_after, q_norm, k_norm;
};

size_t LayerFloats(const ModelSpec& spec) {
  size_t floats = spec.q_dim() + 2 * spec.kv_dim() + spec.q_dim() + spec.n_heads + spec.dim +
                  2 * size_t{spec.ffn_dim} + 2;
  if (spec.qk_norm) floats += spec.q_dim() + spec.kv_dim() + spec.n_heads + spec.n_kv_heads;
  if (spec.post_norms) floats += 2 * spec.dim + 2;
  return floats;
}

// Angles by position, computed once each.
struct RopePositions {
  std::vector<double> frequencies;
  std::vector<float> cos, sin;  // (positions so far, rotary_dim / 2)

  void Reach(const RopeSpec& rope, uint32_t positions) {
    const size_t pairs = frequencies.size();
    size_t at = cos.size();
    if (at >= positions * pairs) return;
    cos.resize(positions * pairs);
    sin.resize(positions * pairs);
    for (; at < cos.size(); at += pairs) {
      RopeAngles(rope, frequencies, static_cast<uint32_t>(at / pairs), cos.data() + at,
                 sin.data() + at);
    }
  }
};

// Angles of every row of a batch.
struct RopeRows {
  RopeSpec rope;
  RopePositions short_positions, long_positions;
  std::vector<float> cos, sin;  // (n, rotary_dim / 2)

  explicit RopeRows(const RopeSpec& spec)
      : rope(spec),
        short_positions{RopeFrequencies(spec, false), {}, {}},
        long_positions{RopeFrequencies(spec, true), {}, {}} {}
  void Fill(const Batch& batch) {
    cos.clear();
    sin.clear();
    for (const uint32_t length : batch.lengths) {
      const bool is_long =
          rope.scaling == RopeScalingKind::kLongRope && length > rope.original_context;
      RopePositions& from = is_long ? long_positions : short_positions;
      from.Reach(rope, length);
      const auto count = static_cast<std::ptrdiff_t>(length * from.frequencies.size());
      cos.insert(cos.end(), from.cos.begin(), from.cos.begin() + count);
      sin.insert(sin.end(), from.sin.begin(), from.sin.begin() + count);
    }
  }
};

}  // namespace

uint64_t ActivationBytes(const ModelSpec& spec, const NetworkOptions& options, size_t rows,
                         bool gradients) {
  const size_t kept = gradients && !options.recompute ? spec.n_layers : 1;
  const size_t residual = gradients ? spec.n_layers + 1 : 2;
  const size_t widest = std::max<size_t>({spec.ffn_dim, spec.q_dim(), spec.dim});
  size_t floats = kept * LayerFloats(spec) + residual * spec.dim + 2 * spec.dim + widest;
  if (gradients) {
    floats += 2 * spec.dim + std::max<size_t>(2 * size_t{spec.ffn_dim}, spec.q_dim() * 2);
    floats += widest;
  }
  return (rows * floats + std::min(rows, kLogitRows) * (spec.vocab_size + 2 * spec.dim)) *
         sizeof(float);
}

struct Network::Impl {
  Impl(const ModelSpec& s, Ops* o, const NetworkOptions& opts)
      : spec(s), ops(o), options(opts), layout(s), rope(s.rope), sliding_rope(SlidingRope(s)) {}

  Status Begin(const Batch& batch, bool gradients);
  void Forward(const Batch& batch, const float* w, bool training, uint64_t seed);
  Result<double> Loss(const Batch& batch, const float* w, TokenLoss* loss, float scale, float* g);
  void Backward(const Batch& batch, const float* w, uint64_t seed, float* g);

  void ForwardLayer(uint32_t l, const float* w, bool training, uint64_t seed);
  void ForwardAttention(uint32_t l, const float* w, LayerState* s);
  void ForwardFeedForward(uint32_t l, const float* w, LayerState* s);
  void BackwardLayer(uint32_t l, const float* w, uint64_t seed, float* g);
  void BackwardAttention(uint32_t l, const float* w, LayerState* s, float* g);
  void BackwardFeedForward(uint32_t l, const float* w, LayerState* s, float* g);
  void HeadNorms(uint32_t l, const float* w, LayerState* s);
  void HeadNormsBackward(uint32_t l, const float* w, LayerState* s, float* g);

  // y (n, rows) = x (n, columns) W^T; and dW += dy^T x, dx = dy W.
  void Linear(const float* x, size_t columns, const float* weight, size_t rows, float* y);
  void LinearBackward(const float* x, size_t columns, const float* weight, size_t rows,
                      const float* dy, float* dweight, float* dx);
  // Norm of the rows of x over dim, and its backward pass.
  void Norm(size_t weight, const float* w, const float* x, std::vector<float>* inverse, float* y);
  void NormBackward(size_t weight, const float* w, const float* x, std::vector<float>& inverse,
                    const float* dy, bool accumulate, float* g, float* dx);
  // Drops part of what half `half` of a layer adds, alike in both passes.
  void Drop(uint32_t l, uint32_t half, uint64_t seed, float* x);
  void GatherHidden(std::span<const uint32_t> rows);
  void ToLogits(const float* w, size_t count, float* out);

  NormShape Shape() const {
    return {.kind = spec.norm, .rows = n, .columns = spec.dim, .eps = spec.norm_eps};
  }
  AttentionShape Attention(uint32_t l) const {
    return {.lengths = lengths,
            .heads = spec.n_heads,
            .kv_heads = spec.n_kv_heads,
            .head_dim = spec.head_dim,
            .window = spec.LayerSlides(l) ? spec.sliding_window : 0,
            .scale = spec.attention_scale > 0 ? spec.attention_scale
                                              : 1.0f / std::sqrt(static_cast<float>(spec.head_dim)),
            .softcap = spec.attention_softcap};
  }
  RopeShape HeadsOfRope() const {
    return {spec.rope.kind, n, size_t{spec.n_heads} + spec.n_kv_heads, spec.head_dim,
            spec.rope.rotary_dim};
  }
  const RopeRows& RopeOf(uint32_t l) const {
    return spec.local_rope_base != 0 && spec.LayerSlides(l) ? sliding_rope : rope;
  }
  size_t room() const { return std::max(n, options.rows); }
  size_t qkv_dim() const { return spec.q_dim() + 2 * size_t{spec.kv_dim()}; }
  LayerState* State(uint32_t l) { return &states[states.size() == 1 ? 0 : l]; }
  float* Residual(uint32_t l) { return residual[residual.size() == 2 ? l % 2 : l].data(); }

  ModelSpec spec;
  Ops* ops;
  NetworkOptions options;
  ParameterLayout layout;

  size_t n = 0;                   // rows of the batch
  std::vector<uint32_t> lengths;  // of its sequences
  RopeRows rope, sliding_rope;
  std::vector<LayerState> states;            // of each layer, or one that they share
  std::vector<std::vector<float>> residual;  // before each layer and after the last, (n, dim)
  std::vector<float> normed, branch;         // (n, dim)
  std::vector<float> wide;                   // (n, widest): inputs of down and output
  std::vector<float> last_norm;              // (n)
  std::vector<uint32_t> rows;                // that have a target
  std::vector<float> hidden, logits;         // of a chunk of rows
  // Gradients.
  std::vector<float> dx, dbranch;     // (n, dim)
  std::vector<float> dwide, dnarrow;  // by the outputs and the inputs of matrices
  std::vector<float> dhidden;         // of a chunk
};

// Makes room for the batch.
Status Network::Impl::Begin(const Batch& batch, bool gradients) {
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
  const size_t widest = std::max<size_t>({spec.ffn_dim, spec.q_dim(), spec.dim});
  states.resize(gradients && !options.recompute ? spec.n_layers : 1);
  residual.resize(gradients ? spec.n_layers + 1 : 2);
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
  rope.Fill(batch);
  if (spec.local_rope_base != 0) sliding_rope.Fill(batch);
  rows.clear();
  for (size_t i = 0; i < n; ++i) {
    if (batch.targets[i] != kNoTarget) rows.push_back(static_cast<uint32_t>(i));
  }
  return Ok{};
}

void Network::Impl::Linear(const float* x, size_t columns, const float* weight, size_t out,
                           float* y) {
  ops->Multiply({x, columns}, {weight, columns, true}, n, out, columns, y, out, false);
}

void Network::Impl::LinearBackward(const float* x, size_t columns, const float* weight, size_t out,
                                   const float* dy, float* dweight, float* dinput) {
  ops->Multiply({dy, out, true}, {x, columns}, out, columns, n, dweight, columns, true);
  ops->Multiply({dy, out}, {weight, columns}, n, columns, out, dinput, columns, false);
}

void Network::Impl::Norm(size_t weight, const float* w, const float* x, std::vector<float>* inverse,
                         float* y) {
  inverse->resize(room());
  ops->Norm(Shape(), {w + weight}, {x, spec.dim}, {y, spec.dim}, {inverse->data()});
}

void Network::Impl::NormBackward(size_t weight, const float* w, const float* x,
                                 std::vector<float>& inverse, const float* dy, bool accumulate,
                                 float* g, float* dinput) {
  ops->NormBackward(Shape(), {w + weight}, {x, spec.dim}, {inverse.data()}, {dy, spec.dim},
                    {dinput, spec.dim}, accumulate, {g + weight});
}

void Network::Impl::Drop(uint32_t l, uint32_t half, uint64_t seed, float* x) {
  if (options.dropout <= 0) return;
  ops->Dropout(options.dropout, seed * 2 * (spec.n_layers + 1) + 2 * l + half, n * spec.dim, x);
}

void Network::Impl::Forward(const Batch& batch, const float* w, bool training, uint64_t seed) {
  ops->Embed(batch.tokens, w + layout.embedding(), spec.dim, spec.embedding_scale, Residual(0));
  if (training) Drop(spec.n_layers, 0, seed, Residual(0));
  for (uint32_t l = 0; l < spec.n_layers; ++l) ForwardLayer(l, w, training, seed);
}

void Network::Impl::ForwardLayer(uint32_t l, const float* w, bool training, uint64_t seed) {
  LayerState* s = State(l);
  ForwardAttention(l, w, s);
  if (training) Drop(l, 0, seed, branch.data());
  s->middle.resize(room() * spec.dim);
  ops->Add(Residual(l), branch.data(), n * spec.dim, s->middle.data());
  ForwardFeedForward(l, w, s);
  if (training) Drop(l, 1, seed, branch.data());
  ops->Add(s->middle.data(), branch.data(), n * spec.dim, Residual(l + 1));
}

void Network::Impl::HeadNorms(uint32_t l, const float* w, LayerState* s) {
  const LayerOffsets& at = layout.layer(l);
  const size_t q = spec.q_dim(), width = q + spec.kv_dim();
  s->raw.resize(room() * width);
  for (size_t i = 0; i < n; ++i) {
    std::copy_n(s->qkv.data() + i * qkv_dim(), width, s->raw.data() + i * width);
  }
  s->q_norm.resize(room() * spec.n_heads);
  s->k_norm.resize(room() * spec.n_kv_heads);
  NormShape shape = {NormKind::kRms, n, spec.n_heads, spec.head_dim, spec.norm_eps};
  ops->Norm(shape, {w + at.q_norm}, {s->raw.data(), width}, {s->qkv.data(), qkv_dim()},
            {s->q_norm.data()});
  shape.groups = spec.n_kv_heads;
  ops->Norm(shape, {w + at.k_norm}, {s->raw.data() + q, width}, {s->qkv.data() + q, qkv_dim()},
            {s->k_norm.data()});
}

void Network::Impl::HeadNormsBackward(uint32_t l, const float* w, LayerState* s, float* g) {
  const LayerOffsets& at = layout.layer(l);
  const size_t q = spec.q_dim(), width = q + spec.kv_dim();
  NormShape shape = {NormKind::kRms, n, spec.n_heads, spec.head_dim, spec.norm_eps};
  const Rows dq = {dwide.data(), qkv_dim()}, dk = {dwide.data() + q, qkv_dim()};
  ops->NormBackward(shape, {w + at.q_norm}, {s->raw.data(), width}, {s->q_norm.data()}, dq, dq,
                    false, {g + at.q_norm});
  shape.groups = spec.n_kv_heads;
  ops->NormBackward(shape, {w + at.k_norm}, {s->raw.data() + q, width}, {s->k_norm.data()}, dk, dk,
                    false, {g + at.k_norm});
}

// branch = what attention adds to the residual stream.
void Network::Impl::ForwardAttention(uint32_t l, const float* w, LayerState* s) {
  const LayerOffsets& at = layout.layer(l);
  s->qkv.resize(room() * qkv_dim());
  s->attended.resize(room() * spec.q_dim());
  s->log_sums.resize(room() * spec.n_heads);
  Norm(at.attention_norm, w, Residual(l), &s->norm, normed.data());
  Linear(normed.data(), spec.dim, w + at.qkv, qkv_dim(), s->qkv.data());
  const Rows qkv = {s->qkv.data(), qkv_dim()};
  if (spec.qkv_bias) ops->AddBias(w + at.qkv_bias, n, qkv_dim(), qkv);
  if (spec.qk_norm) HeadNorms(l, w, s);
  ops->Rope(HeadsOfRope(), RopeOf(l).cos.data(), RopeOf(l).sin.data(), qkv);
  ops->Attend(Attention(l), qkv, {s->attended.data(), spec.q_dim()}, s->log_sums.data());
  Linear(s->attended.data(), spec.q_dim(), w + at.output, spec.dim, branch.data());
  if (spec.output_bias) ops->AddBias(w + at.output_bias, n, spec.dim, {branch.data(), spec.dim});
  if (spec.post_norms) {
    s->attention_added = branch;
    Norm(at.post_attention_norm, w, s->attention_added.data(), &s->attention_after, branch.data());
  }
}

// branch = what the feed-forward layer adds.
void Network::Impl::ForwardFeedForward(uint32_t l, const float* w, LayerState* s) {
  const LayerOffsets& at = layout.layer(l);
  s->gate_up.resize(room() * 2 * spec.ffn_dim);
  Norm(at.feed_forward_norm, w, s->middle.data(), &s->ffn_norm, normed.data());
  Linear(normed.data(), spec.dim, w + at.gate_up, 2 * size_t{spec.ffn_dim}, s->gate_up.data());
  ops->Glu(spec.activation, n, spec.ffn_dim, s->gate_up.data(), wide.data());
  Linear(wide.data(), spec.ffn_dim, w + at.down, spec.dim, branch.data());
  if (spec.post_norms) {
    s->ffn_added = branch;
    Norm(at.post_feed_forward_norm, w, s->ffn_added.data(), &s->ffn_after, branch.data());
  }
}

// dx becomes the gradient before the layer of what it was after it.
void Network::Impl::BackwardLayer(uint32_t l, const float* w, uint64_t seed, float* g) {
  if (options.recompute) ForwardLayer(l, w, true, seed);
  LayerState* s = State(l);
  dbranch = dx;
  Drop(l, 1, seed, dbranch.data());
  BackwardFeedForward(l, w, s, g);
  dbranch = dx;
  Drop(l, 0, seed, dbranch.data());
  BackwardAttention(l, w, s, g);
}

// Adds to dx what dbranch gives.
void Network::Impl::BackwardFeedForward(uint32_t l, const float* w, LayerState* s, float* g) {
  const LayerOffsets& at = layout.layer(l);
  const size_t ffn = spec.ffn_dim;
  if (spec.post_norms) {
    NormBackward(at.post_feed_forward_norm, w, s->ffn_added.data(), s->ffn_after, dbranch.data(),
                 false, g, dbranch.data());
  }
  ops->Glu(spec.activation, n, ffn, s->gate_up.data(), wide.data());
  LinearBackward(wide.data(), ffn, w + at.down, spec.dim, dbranch.data(), g + at.down,
                 dnarrow.data());
  ops->GluBackward(spec.activation, n, ffn, s->gate_up.data(), dnarrow.data(), dwide.data());
  Norm(at.feed_forward_norm, w, s->middle.data(), &s->ffn_norm, normed.data());
  LinearBackward(normed.data(), spec.dim, w + at.gate_up, 2 * ffn, dwide.data(), g + at.gate_up,
                 dbranch.data());
  NormBackward(at.feed_forward_norm, w, s->middle.data(), s->ffn_norm, dbranch.data(), true, g,
               dx.data());
}

void Network::Impl::BackwardAttention(uint32_t l, const float* w, LayerState* s, float* g) {
  const LayerOffsets& at = layout.layer(l);
  const Rows dqkv = {dwide.data(), qkv_dim()};
  if (spec.post_norms) {
    NormBackward(at.post_attention_norm, w, s->attention_added.data(), s->attention_after,
                 dbranch.data(), false, g, dbranch.data());
  }
  if (spec.output_bias) {
    ops->AddRowSums({dbranch.data(), spec.dim}, n, spec.dim, g + at.output_bias);
  }
  LinearBackward(s->attended.data(), spec.q_dim(), w + at.output, spec.dim, dbranch.data(),
                 g + at.output, dnarrow.data());
  ops->AttendBackward(Attention(l), {s->qkv.data(), qkv_dim()}, {s->attended.data(), spec.q_dim()},
                      s->log_sums.data(), {dnarrow.data(), spec.q_dim()}, dqkv);
  ops->RopeBackward(HeadsOfRope(), RopeOf(l).cos.data(), RopeOf(l).sin.data(), dqkv);
  if (spec.qk_norm) HeadNormsBackward(l, w, s, g);
  if (spec.qkv_bias) ops->AddRowSums(dqkv, n, qkv_dim(), g + at.qkv_bias);
  Norm(at.attention_norm, w, Residual(l), &s->norm, normed.data());
  LinearBackward(normed.data(), spec.dim, w + at.qkv, qkv_dim(), dqkv.data, g + at.qkv,
                 dbranch.data());
  NormBackward(at.attention_norm, w, Residual(l), s->norm, dbranch.data(), true, g, dx.data());
}

// hidden = the rows of normed, which is the last norm's output.
void Network::Impl::GatherHidden(std::span<const uint32_t> chosen) {
  hidden.resize(chosen.size() * spec.dim);
  for (size_t i = 0; i < chosen.size(); ++i) {
    std::copy_n(normed.data() + chosen[i] * size_t{spec.dim}, spec.dim,
                hidden.data() + i * spec.dim);
  }
}

void Network::Impl::ToLogits(const float* w, size_t count, float* out) {
  ops->Multiply({hidden.data(), spec.dim}, {w + layout.logits(), spec.dim, true}, count,
                spec.vocab_size, spec.dim, out, spec.vocab_size, false);
  if (spec.logit_softcap <= 0) return;
  for (size_t i = 0; i < count * spec.vocab_size; ++i) {
    out[i] = spec.logit_softcap * std::tanh(out[i] / spec.logit_softcap);
  }
}

// With gradients `g`, dx becomes the gradient of the stream after the layers.
Result<double> Network::Impl::Loss(const Batch& batch, const float* w, TokenLoss* loss, float scale,
                                   float* g) {
  EW_TRY(loss->Begin(batch));
  Norm(layout.output_norm(), w, Residual(spec.n_layers), &last_norm, normed.data());
  const size_t vocab = spec.vocab_size, dim = spec.dim;
  if (g != nullptr) std::fill(dbranch.begin(), dbranch.end(), 0.0f);
  std::vector<float> capped;
  double sum = 0;
  for (size_t first = 0; first < rows.size(); first += kLogitRows) {
    const size_t count = std::min(kLogitRows, rows.size() - first);
    const std::span<const uint32_t> chosen(rows.data() + first, count);
    GatherHidden(chosen);
    logits.resize(count * vocab);
    ToLogits(w, count, logits.data());
    if (spec.logit_softcap > 0) capped = logits;
    EW_TRY(const double part, loss->Rows(batch, chosen, vocab, scale, logits.data()));
    sum += part;
    if (g == nullptr) continue;
    for (size_t i = 0; i < capped.size(); ++i) {  // the derivative of the cap
      const float t = capped[i] / spec.logit_softcap;
      logits[i] *= 1 - t * t;
    }
    dhidden.resize(count * dim);
    ops->Multiply({logits.data(), vocab, true}, {hidden.data(), dim}, vocab, dim, count,
                  g + layout.logits(), dim, true);
    ops->Multiply({logits.data(), vocab}, {w + layout.logits(), dim}, count, dim, vocab,
                  dhidden.data(), dim, false);
    for (size_t i = 0; i < count; ++i) {
      std::copy_n(dhidden.data() + i * dim, dim, dbranch.data() + chosen[i] * dim);
    }
  }
  if (g != nullptr) {
    NormBackward(layout.output_norm(), w, Residual(spec.n_layers), last_norm, dbranch.data(), false,
                 g, dx.data());
  }
  return sum;
}

void Network::Impl::Backward(const Batch& batch, const float* w, uint64_t seed, float* g) {
  for (uint32_t l = spec.n_layers; l-- > 0;) BackwardLayer(l, w, seed, g);
  Drop(spec.n_layers, 0, seed, dx.data());
  ops->EmbedBackward(batch.tokens, dx.data(), spec.dim, spec.embedding_scale,
                     g + layout.embedding());
}

Network::Network(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Network::Network(Network&&) noexcept = default;
Network::~Network() = default;

Result<Network> Network::Create(const ModelSpec& spec, Ops* ops, const NetworkOptions& options) {
  if (spec.norm != NormKind::kRms) {
    return MakeError(Code::kUnsupported, "training knows models with RMSNorm only");
  }
  return Network(std::make_unique<Impl>(spec, ops, options));
}

const ParameterLayout& Network::layout() const { return impl_->layout; }

Result<double> Network::Train(const Batch& batch, const float* weights, TokenLoss* loss,
                              float scale, uint64_t seed, float* gradients) {
  EW_TRY(impl_->Begin(batch, true));
  impl_->Forward(batch, weights, true, seed);
  EW_TRY(const double sum, impl_->Loss(batch, weights, loss, scale, gradients));
  impl_->Backward(batch, weights, seed, gradients);
  return sum;
}

Result<double> Network::Evaluate(const Batch& batch, const float* weights, TokenLoss* loss) {
  EW_TRY(impl_->Begin(batch, false));
  impl_->Forward(batch, weights, false, 0);
  return impl_->Loss(batch, weights, loss, 1.0f, nullptr);
}

Status Network::Forward(const Batch& batch, const float* weights) {
  EW_TRY(impl_->Begin(batch, false));
  impl_->Forward(batch, weights, false, 0);
  Impl& m = *impl_;
  m.Norm(m.layout.output_norm(), weights, m.Residual(m.spec.n_layers), &m.last_norm,
         m.normed.data());
  return Ok{};
}

void Network::Logits(const float* weights, std::span<const uint32_t> rows, float* logits) {
  impl_->GatherHidden(rows);
  impl_->ToLogits(weights, rows.size(), logits);
}

}  // namespace edgewise::train
