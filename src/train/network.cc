#include "train/network.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <utility>

#include "base/check.h"
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

// Angles of every row of a batch.
struct RopeRows {
  RopeSpec rope;
  std::vector<double> short_frequencies, long_frequencies;
  std::vector<float> cos, sin;  // (n, rotary_dim / 2)

  explicit RopeRows(const RopeSpec& spec)
      : rope(spec),
        short_frequencies(RopeFrequencies(spec, false)),
        long_frequencies(RopeFrequencies(spec, true)) {}
  void Fill(const Batch& batch) {
    const size_t pairs = short_frequencies.size();
    cos.resize(batch.size() * pairs);
    sin.resize(cos.size());
    size_t row = 0;
    for (const uint32_t length : batch.lengths) {
      const bool is_long =
          rope.scaling == RopeScalingKind::kLongRope && length > rope.original_context;
      const std::vector<double>& frequencies = is_long ? long_frequencies : short_frequencies;
      for (uint32_t position = 0; position < length; ++position, ++row) {
        RopeAngles(rope, frequencies, position, cos.data() + row * pairs, sin.data() + row * pairs);
      }
    }
  }
};

size_t QkvDim(const ModelSpec& spec) { return spec.q_dim() + 2 * size_t{spec.kv_dim()}; }

// Of a product's matrix.
size_t OutputsOf(const ModelSpec& spec, Product product) {
  switch (product) {
    case Product::kQkv:
      return QkvDim(spec);
    case Product::kGateUp:
      return 2 * size_t{spec.ffn_dim};
    default:
      return spec.dim;
  }
}
size_t InputsOf(const ModelSpec& spec, Product product) {
  switch (product) {
    case Product::kOutput:
      return spec.q_dim();
    case Product::kDown:
      return spec.ffn_dim;
    default:
      return spec.dim;
  }
}
template <class T>
T MatrixOf(const LayerValues<T>& values, Product product) {
  switch (product) {
    case Product::kQkv:
      return values.qkv;
    case Product::kOutput:
      return values.output;
    case Product::kGateUp:
      return values.gate_up;
    default:
      return values.down;
  }
}

size_t Widest(const ModelSpec& spec) {
  return std::max<size_t>({spec.ffn_dim, spec.q_dim(), spec.dim});
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

}  // namespace

uint64_t ActivationBytes(const ModelSpec& spec, const NetworkOptions& options, size_t rows,
                         bool gradients) {
  const size_t kept = gradients && !options.recompute ? spec.n_layers : 1;
  const size_t residual = gradients ? spec.n_layers + 1 : 2;
  const size_t widest = Widest(spec);
  size_t floats = kept * LayerFloats(spec) + residual * spec.dim + 2 * spec.dim + widest;
  if (gradients) {
    floats += 2 * spec.dim + std::max<size_t>(2 * size_t{spec.ffn_dim}, QkvDim(spec));
    floats += widest;
  }
  floats += LoraRowFloats(spec, options);
  return (rows * floats + std::min(rows, kLogitRows) * (spec.vocab_size + 2 * spec.dim) +
          LoraFloats(spec, options, gradients)) *
         sizeof(float);
}

struct Network::Impl {
  // What a batch goes through the layers with.
  struct Pass {
    WeightSource* weights = nullptr;
    const float* adapters = nullptr;  // null: none
    float* gradients = nullptr;       // of what is learned; null: not wanted
    bool training = false;
    uint64_t seed = 0;
  };
  // The same in one layer. Of a frozen matrix there is no gradient.
  struct LayerPass {
    const Pass& pass;
    uint32_t l;
    LayerWeights w;
    LayerGradients g;
    LayerState* s;
  };

  Impl(const ModelSpec& s, Ops* o, const NetworkOptions& opts)
      : spec(s), ops(o), options(opts), layout(s), rope(s.rope), sliding_rope(SlidingRope(s)) {}

  // Calls `run` with a pass over what `weights` are.
  template <class Run>
  auto WithPass(const float* weights, Pass pass, Run&& run) {
    FloatWeights floats(layout, weights);
    pass.weights = base != nullptr ? base : &floats;
    pass.adapters = base != nullptr ? weights : nullptr;
    return run(pass);
  }
  float* FullGradients(const Pass& pass) const {
    return pass.adapters == nullptr ? pass.gradients : nullptr;
  }
  Result<LayerPass> InLayer(const Pass& pass, uint32_t l);

  Status Begin(const Batch& batch, bool gradients);
  Status Forward(const Batch& batch, const Pass& pass);
  Result<double> Loss(const Batch& batch, const Pass& pass, TokenLoss* loss, float scale);
  Status Backward(const Batch& batch, const Pass& pass);

  void ForwardLayer(const LayerPass& at);
  void ForwardAttention(const LayerPass& at);
  void ForwardFeedForward(const LayerPass& at);
  void BackwardLayer(const LayerPass& at);
  void BackwardAttention(const LayerPass& at);
  void BackwardFeedForward(const LayerPass& at);
  void HeadNorms(const LayerPass& at);
  void HeadNormsBackward(const LayerPass& at);

  // y (n, outputs) = x (n, inputs) W^T with the adapters; and their gradients with dx = dy W.
  void Linear(const LayerPass& at, Product product, const float* x, float* y);
  void LinearBackward(const LayerPass& at, Product product, const float* x, const float* dy,
                      float* dx);
  // What adapters add to y and to dx, and their gradients.
  void AddLora(const LayerPass& at, Product product, const float* x, float* y);
  void AddLoraBackward(const LayerPass& at, Product product, const float* x, const float* dy,
                       float* dx);
  // low_rank (n, parts * rank) = scale * drop(x) A^T; returns drop(x).
  const float* LoraInputs(const LayerPass& at, Product product, const float* x);
  void LoraDrop(const LayerPass& at, Product product, float* x);
  // The matrix that is multiplied with: W, or W with the adapters where zeros are kept.
  const float* Effective(const LayerPass& at, Product product);
  void EffectiveBackward(const LayerPass& at, Product product, const float* x, const float* dy);
  // The adapters of a product; null: none.
  const ProductLora* LoraOf(const LayerPass& at, Product product) const {
    if (at.pass.adapters == nullptr) return nullptr;
    const ProductLora& of = lora->of(at.l, product);
    return of.parts.empty() ? nullptr : &of;
  }
  // Norm of the rows of x over dim, and its backward pass.
  void Norm(const float* weight, const float* x, std::vector<float>* inverse, float* y);
  void NormBackward(const float* weight, const float* x, std::vector<float>& inverse,
                    const float* dy, bool accumulate, float* dweight, float* dx);
  // Drops part of what half `half` of a layer adds, alike in both passes.
  void Drop(const Pass& pass, uint32_t l, uint32_t half, float* x);
  void GatherHidden(std::span<const uint32_t> rows);
  void ToLogits(WeightSource* weights, size_t count, float* out);

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
  size_t qkv_dim() const { return QkvDim(spec); }
  LayerState* State(uint32_t l) { return &states[states.size() == 1 ? 0 : l]; }
  float* Residual(uint32_t l) { return residual[residual.size() == 2 ? l % 2 : l].data(); }

  ModelSpec spec;
  Ops* ops;
  NetworkOptions options;
  ParameterLayout layout;
  WeightSource* base = nullptr;    // null: all weights are learned
  std::optional<LoraLayout> lora;  // with a base

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
  // Adapters.
  std::vector<float> low_rank, dlow_rank;  // (n, parts * rank)
  std::vector<float> dropped, ddropped;    // (n, widest)
  std::vector<float> merged, dmerged;      // a product's matrix with its adapters
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
  const size_t widest = Widest(spec);
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

Result<Network::Impl::LayerPass> Network::Impl::InLayer(const Pass& pass, uint32_t l) {
  EW_TRY(const LayerWeights weights, pass.weights->Layer(l));
  return LayerPass{pass, l, weights, In(FullGradients(pass), layout.layer(l)), State(l)};
}

void Network::Impl::Linear(const LayerPass& at, Product product, const float* x, float* y) {
  const size_t in = InputsOf(spec, product), out = OutputsOf(spec, product);
  ops->Multiply({x, in}, {Effective(at, product), in, true}, n, out, in, y, out, false);
  if (!options.keep_zeros) AddLora(at, product, x, y);
}

void Network::Impl::LinearBackward(const LayerPass& at, Product product, const float* x,
                                   const float* dy, float* dinput) {
  const size_t in = InputsOf(spec, product), out = OutputsOf(spec, product);
  if (float* dweight = MatrixOf(at.g, product); dweight != nullptr) {
    ops->Multiply({dy, out, true}, {x, in}, out, in, n, dweight, in, true);
  }
  ops->Multiply({dy, out}, {Effective(at, product), in}, n, in, out, dinput, in, false);
  if (options.keep_zeros) {
    EffectiveBackward(at, product, x, dy);
  } else {
    AddLoraBackward(at, product, x, dy, dinput);
  }
}

void Network::Impl::LoraDrop(const LayerPass& at, Product product, float* x) {
  const uint64_t place = at.l * kProducts + static_cast<size_t>(product);
  // Other seeds than those of Drop.
  ops->Dropout(static_cast<float>(options.lora.dropout),
               ~(at.pass.seed * kProducts * spec.n_layers + place), n * InputsOf(spec, product), x);
}

const float* Network::Impl::LoraInputs(const LayerPass& at, Product product, const float* x) {
  const ProductLora& of = *LoraOf(at, product);
  const size_t in = InputsOf(spec, product), width = of.parts.size() * lora->rank();
  if (at.pass.training && options.lora.dropout > 0) {
    dropped.resize(room() * Widest(spec));
    std::copy_n(x, n * in, dropped.data());
    LoraDrop(at, product, dropped.data());
    x = dropped.data();
  }
  low_rank.resize(std::max(low_rank.size(), room() * width));
  ops->Multiply({x, in}, {at.pass.adapters + of.a(), in, true}, n, width, in, low_rank.data(),
                width, false);
  ops->Scale(options.lora.scale(), n * width, low_rank.data());
  return x;
}

void Network::Impl::AddLora(const LayerPass& at, Product product, const float* x, float* y) {
  const ProductLora* of = LoraOf(at, product);
  if (of == nullptr) return;
  LoraInputs(at, product, x);
  const size_t rank = lora->rank(), width = of->parts.size() * rank;
  const size_t out = OutputsOf(spec, product);
  for (size_t j = 0; j < of->parts.size(); ++j) {
    const LoraPart& part = of->parts[j];
    ops->Multiply({low_rank.data() + j * rank, width}, {at.pass.adapters + part.b, rank, true}, n,
                  part.rows, rank, y + part.first_row, out, true);
  }
}

// With u = scale drop(x) A^T: dB = dy^T u, du = scale dy B, dA = du^T drop(x), dx += drop(du A).
void Network::Impl::AddLoraBackward(const LayerPass& at, Product product, const float* x,
                                    const float* dy, float* dinput) {
  const ProductLora* of = LoraOf(at, product);
  if (of == nullptr) return;
  const float *input = LoraInputs(at, product, x), *weights = at.pass.adapters;
  float* gradients = at.pass.gradients;
  const size_t rank = lora->rank(), width = of->parts.size() * rank;
  const size_t in = InputsOf(spec, product), out = OutputsOf(spec, product);
  dlow_rank.resize(std::max(dlow_rank.size(), room() * width));
  for (size_t j = 0; j < of->parts.size(); ++j) {
    const LoraPart& part = of->parts[j];
    const float* dpart = dy + part.first_row;
    ops->Multiply({dpart, out, true}, {low_rank.data() + j * rank, width}, part.rows, rank, n,
                  gradients + part.b, rank, true);
    ops->Multiply({dpart, out}, {weights + part.b, rank}, n, rank, part.rows,
                  dlow_rank.data() + j * rank, width, false);
  }
  ops->Scale(options.lora.scale(), n * width, dlow_rank.data());
  ops->Multiply({dlow_rank.data(), width, true}, {input, in}, width, in, n, gradients + of->a(), in,
                true);
  const Matrix a = {weights + of->a(), in};
  if (input == x) {
    ops->Multiply({dlow_rank.data(), width}, a, n, in, width, dinput, in, true);
    return;
  }
  ddropped.resize(room() * Widest(spec));
  ops->Multiply({dlow_rank.data(), width}, a, n, in, width, ddropped.data(), in, false);
  LoraDrop(at, product, ddropped.data());
  ops->Add(dinput, ddropped.data(), n * in, dinput);
}

const float* Network::Impl::Effective(const LayerPass& at, Product product) {
  const float* weight = MatrixOf(at.w, product);
  const ProductLora* of = LoraOf(at, product);
  if (!options.keep_zeros || of == nullptr) return weight;
  const size_t in = InputsOf(spec, product), size = OutputsOf(spec, product) * in;
  const size_t rank = lora->rank();
  merged.resize(std::max(merged.size(), size));
  std::fill_n(merged.begin(), size, 0.0f);
  for (const LoraPart& part : of->parts) {
    ops->Multiply({at.pass.adapters + part.b, rank}, {at.pass.adapters + part.a, in}, part.rows, in,
                  rank, merged.data() + part.first_row * in, in, false);
  }
  ops->ScaleKept(weight, options.lora.scale(), size, merged.data());
  ops->Add(weight, merged.data(), size, merged.data());
  return merged.data();
}

// With dW = scale dy^T x where W is not 0: dB = dW A^T, dA = B^T dW.
void Network::Impl::EffectiveBackward(const LayerPass& at, Product product, const float* x,
                                      const float* dy) {
  const ProductLora* of = LoraOf(at, product);
  if (of == nullptr) return;
  const size_t in = InputsOf(spec, product), out = OutputsOf(spec, product), rank = lora->rank();
  dmerged.resize(std::max(dmerged.size(), out * in));
  ops->Multiply({dy, out, true}, {x, in}, out, in, n, dmerged.data(), in, false);
  ops->ScaleKept(MatrixOf(at.w, product), options.lora.scale(), out * in, dmerged.data());
  for (const LoraPart& part : of->parts) {
    const Matrix dpart = {dmerged.data() + part.first_row * in, in};
    const float *a = at.pass.adapters + part.a, *b = at.pass.adapters + part.b;
    ops->Multiply(dpart, {a, in, true}, part.rows, rank, in, at.pass.gradients + part.b, rank,
                  true);
    ops->Multiply({b, rank, true}, dpart, rank, in, part.rows, at.pass.gradients + part.a, in,
                  true);
  }
}

void Network::Impl::Norm(const float* weight, const float* x, std::vector<float>* inverse,
                         float* y) {
  inverse->resize(room());
  ops->Norm(Shape(), {weight}, {x, spec.dim}, {y, spec.dim}, {inverse->data()});
}

void Network::Impl::NormBackward(const float* weight, const float* x, std::vector<float>& inverse,
                                 const float* dy, bool accumulate, float* dweight, float* dinput) {
  ops->NormBackward(Shape(), {weight}, {x, spec.dim}, {inverse.data()}, {dy, spec.dim},
                    {dinput, spec.dim}, accumulate, {dweight});
}

void Network::Impl::Drop(const Pass& pass, uint32_t l, uint32_t half, float* x) {
  if (!pass.training || options.dropout <= 0) return;
  ops->Dropout(options.dropout, pass.seed * 2 * (spec.n_layers + 1) + 2 * l + half, n * spec.dim,
               x);
}

Status Network::Impl::Forward(const Batch& batch, const Pass& pass) {
  const TokenRows embedding = pass.weights->Embedding(batch.tokens);
  ops->Embed(embedding.ids, embedding.table, spec.dim, spec.embedding_scale, Residual(0));
  Drop(pass, spec.n_layers, 0, Residual(0));
  for (uint32_t l = 0; l < spec.n_layers; ++l) {
    EW_TRY(const LayerPass at, InLayer(pass, l));
    ForwardLayer(at);
  }
  return Ok{};
}

void Network::Impl::ForwardLayer(const LayerPass& at) {
  LayerState* s = at.s;
  ForwardAttention(at);
  Drop(at.pass, at.l, 0, branch.data());
  s->middle.resize(room() * spec.dim);
  ops->Add(Residual(at.l), branch.data(), n * spec.dim, s->middle.data());
  ForwardFeedForward(at);
  Drop(at.pass, at.l, 1, branch.data());
  ops->Add(s->middle.data(), branch.data(), n * spec.dim, Residual(at.l + 1));
}

void Network::Impl::HeadNorms(const LayerPass& at) {
  LayerState* s = at.s;
  const size_t q = spec.q_dim(), width = q + spec.kv_dim();
  s->raw.resize(room() * width);
  for (size_t i = 0; i < n; ++i) {
    std::copy_n(s->qkv.data() + i * qkv_dim(), width, s->raw.data() + i * width);
  }
  s->q_norm.resize(room() * spec.n_heads);
  s->k_norm.resize(room() * spec.n_kv_heads);
  NormShape shape = {NormKind::kRms, n, spec.n_heads, spec.head_dim, spec.norm_eps};
  ops->Norm(shape, {at.w.q_norm}, {s->raw.data(), width}, {s->qkv.data(), qkv_dim()},
            {s->q_norm.data()});
  shape.groups = spec.n_kv_heads;
  ops->Norm(shape, {at.w.k_norm}, {s->raw.data() + q, width}, {s->qkv.data() + q, qkv_dim()},
            {s->k_norm.data()});
}

void Network::Impl::HeadNormsBackward(const LayerPass& at) {
  LayerState* s = at.s;
  const size_t q = spec.q_dim(), width = q + spec.kv_dim();
  NormShape shape = {NormKind::kRms, n, spec.n_heads, spec.head_dim, spec.norm_eps};
  const Rows dq = {dwide.data(), qkv_dim()}, dk = {dwide.data() + q, qkv_dim()};
  ops->NormBackward(shape, {at.w.q_norm}, {s->raw.data(), width}, {s->q_norm.data()}, dq, dq, false,
                    {at.g.q_norm});
  shape.groups = spec.n_kv_heads;
  ops->NormBackward(shape, {at.w.k_norm}, {s->raw.data() + q, width}, {s->k_norm.data()}, dk, dk,
                    false, {at.g.k_norm});
}

// branch = what attention adds to the residual stream.
void Network::Impl::ForwardAttention(const LayerPass& at) {
  LayerState* s = at.s;
  s->qkv.resize(room() * qkv_dim());
  s->attended.resize(room() * spec.q_dim());
  s->log_sums.resize(room() * spec.n_heads);
  Norm(at.w.attention_norm, Residual(at.l), &s->norm, normed.data());
  Linear(at, Product::kQkv, normed.data(), s->qkv.data());
  const Rows qkv = {s->qkv.data(), qkv_dim()};
  if (spec.qkv_bias) ops->AddBias(at.w.qkv_bias, n, qkv_dim(), qkv);
  if (spec.qk_norm) HeadNorms(at);
  ops->Rope(HeadsOfRope(), RopeOf(at.l).cos.data(), RopeOf(at.l).sin.data(), qkv);
  ops->Attend(Attention(at.l), qkv, {s->attended.data(), spec.q_dim()}, s->log_sums.data());
  Linear(at, Product::kOutput, s->attended.data(), branch.data());
  if (spec.output_bias) ops->AddBias(at.w.output_bias, n, spec.dim, {branch.data(), spec.dim});
  if (spec.post_norms) {
    s->attention_added = branch;
    Norm(at.w.post_attention_norm, s->attention_added.data(), &s->attention_after, branch.data());
  }
}

// branch = what the feed-forward layer adds.
void Network::Impl::ForwardFeedForward(const LayerPass& at) {
  LayerState* s = at.s;
  s->gate_up.resize(room() * 2 * spec.ffn_dim);
  Norm(at.w.feed_forward_norm, s->middle.data(), &s->ffn_norm, normed.data());
  Linear(at, Product::kGateUp, normed.data(), s->gate_up.data());
  ops->Glu(spec.activation, n, spec.ffn_dim, s->gate_up.data(), wide.data());
  Linear(at, Product::kDown, wide.data(), branch.data());
  if (spec.post_norms) {
    s->ffn_added = branch;
    Norm(at.w.post_feed_forward_norm, s->ffn_added.data(), &s->ffn_after, branch.data());
  }
}

// dx becomes the gradient before the layer of what it was after it.
void Network::Impl::BackwardLayer(const LayerPass& at) {
  if (options.recompute) ForwardLayer(at);
  dbranch = dx;
  Drop(at.pass, at.l, 1, dbranch.data());
  BackwardFeedForward(at);
  dbranch = dx;
  Drop(at.pass, at.l, 0, dbranch.data());
  BackwardAttention(at);
}

// Adds to dx what dbranch gives.
void Network::Impl::BackwardFeedForward(const LayerPass& at) {
  LayerState* s = at.s;
  const size_t ffn = spec.ffn_dim;
  if (spec.post_norms) {
    NormBackward(at.w.post_feed_forward_norm, s->ffn_added.data(), s->ffn_after, dbranch.data(),
                 false, at.g.post_feed_forward_norm, dbranch.data());
  }
  ops->Glu(spec.activation, n, ffn, s->gate_up.data(), wide.data());
  LinearBackward(at, Product::kDown, wide.data(), dbranch.data(), dnarrow.data());
  ops->GluBackward(spec.activation, n, ffn, s->gate_up.data(), dnarrow.data(), dwide.data());
  Norm(at.w.feed_forward_norm, s->middle.data(), &s->ffn_norm, normed.data());
  LinearBackward(at, Product::kGateUp, normed.data(), dwide.data(), dbranch.data());
  NormBackward(at.w.feed_forward_norm, s->middle.data(), s->ffn_norm, dbranch.data(), true,
               at.g.feed_forward_norm, dx.data());
}

void Network::Impl::BackwardAttention(const LayerPass& at) {
  LayerState* s = at.s;
  const Rows dqkv = {dwide.data(), qkv_dim()};
  if (spec.post_norms) {
    NormBackward(at.w.post_attention_norm, s->attention_added.data(), s->attention_after,
                 dbranch.data(), false, at.g.post_attention_norm, dbranch.data());
  }
  if (at.g.output_bias != nullptr) {
    ops->AddRowSums({dbranch.data(), spec.dim}, n, spec.dim, at.g.output_bias);
  }
  LinearBackward(at, Product::kOutput, s->attended.data(), dbranch.data(), dnarrow.data());
  ops->AttendBackward(Attention(at.l), {s->qkv.data(), qkv_dim()},
                      {s->attended.data(), spec.q_dim()}, s->log_sums.data(),
                      {dnarrow.data(), spec.q_dim()}, dqkv);
  ops->RopeBackward(HeadsOfRope(), RopeOf(at.l).cos.data(), RopeOf(at.l).sin.data(), dqkv);
  if (spec.qk_norm) HeadNormsBackward(at);
  if (at.g.qkv_bias != nullptr) ops->AddRowSums(dqkv, n, qkv_dim(), at.g.qkv_bias);
  Norm(at.w.attention_norm, Residual(at.l), &s->norm, normed.data());
  LinearBackward(at, Product::kQkv, normed.data(), dqkv.data, dbranch.data());
  NormBackward(at.w.attention_norm, Residual(at.l), s->norm, dbranch.data(), true,
               at.g.attention_norm, dx.data());
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
    BackwardLayer(at);
  }
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
  return impl_->WithPass(weights, {.gradients = gradients, .training = true, .seed = seed},
                         [&](const Impl::Pass& pass) -> Result<double> {
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

Status Network::Forward(const Batch& batch, const float* weights) {
  EW_TRY(impl_->Begin(batch, false));
  return impl_->WithPass(weights, {}, [&](const Impl::Pass& pass) -> Status {
    Impl& m = *impl_;
    EW_TRY(m.Forward(batch, pass));
    m.Norm(pass.weights->OutputNorm(), m.Residual(m.spec.n_layers), &m.last_norm, m.normed.data());
    return Ok{};
  });
}

void Network::Logits(const float* weights, std::span<const uint32_t> rows, float* logits) {
  impl_->GatherHidden(rows);
  impl_->WithPass(weights, {}, [&](const Impl::Pass& pass) {
    impl_->ToLogits(pass.weights, rows.size(), logits);
  });
}

}  // namespace edgewise::train
