// What a network is made of: its buffers, its layers, the products in them. Of network*.cc alone.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "model/rope.h"
#include "train/network.h"

namespace edgewise::train {

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

// Sequences that grow by a token at a time: the rotated queries, keys and values of all layers.
struct Growing {
  std::vector<size_t> starts;           // of the sequences: the first of their rows
  std::vector<uint32_t> lengths, room;  // tokens so far, and at most
  std::vector<std::vector<float>> qkv;  // by layer: (sum of room, q_dim + 2 kv_dim)

  // Of those that get a token in this step, with it.
  std::vector<uint32_t> step_lengths;
  std::vector<size_t> step_starts;
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
  void Clear() {
    cos.clear();
    sin.clear();
  }
  // Appends positions [first, end) of a sequence of `length` tokens in all.
  void Append(uint32_t first, uint32_t end, uint32_t length) {
    const bool is_long =
        rope.scaling == RopeScalingKind::kLongRope && length > rope.original_context;
    RopePositions& from = is_long ? long_positions : short_positions;
    from.Reach(rope, end);
    const size_t pairs = from.frequencies.size();
    const auto begin = static_cast<std::ptrdiff_t>(first * pairs);
    const auto last = static_cast<std::ptrdiff_t>(end * pairs);
    cos.insert(cos.end(), from.cos.begin() + begin, from.cos.begin() + last);
    sin.insert(sin.end(), from.sin.begin() + begin, from.sin.begin() + last);
  }
};

inline size_t QkvDim(const ModelSpec& spec) { return spec.q_dim() + 2 * size_t{spec.kv_dim()}; }

// Of a product's matrix.
inline size_t OutputsOf(const ModelSpec& spec, Product product) {
  switch (product) {
    case Product::kQkv:
      return QkvDim(spec);
    case Product::kGateUp:
      return 2 * size_t{spec.ffn_dim};
    default:
      return spec.dim;
  }
}
inline size_t InputsOf(const ModelSpec& spec, Product product) {
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

inline size_t Widest(const ModelSpec& spec) {
  return std::max<size_t>({spec.ffn_dim, spec.q_dim(), spec.dim});
}

struct Network::Impl {
  // What a batch goes through the layers with.
  struct Pass {
    WeightSource* weights = nullptr;
    const float* adapters = nullptr;  // null: none
    float* gradients = nullptr;       // of what is learned; null: not wanted
    bool training = false;
    uint64_t seed = 0;
    LayerLoss* layers = nullptr;  // with gradients; null: none
    float scale = 0;              // of its gradients
    LayerVisitor* visitor = nullptr;
    Growing* growing = nullptr;  // the batch is a token of each of its sequences
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

  // Makes room for the batch, with gradients for the activations of `layers` of them.
  Status Begin(const Batch& batch, bool gradients, size_t layers);
  Status Begin(const Batch& batch, bool gradients) {
    return Begin(batch, gradients, spec.n_layers);
  }
  // Angles of the batch's rows: of each sequence all positions, or with `last` that one alone. It
  // will have totals[i] tokens.
  void Rotations(std::span<const uint32_t> ends, std::span<const uint32_t> totals, bool last);
  Status Forward(const Batch& batch, const Pass& pass);
  // Forward, and the last norm.
  Status ForwardToHidden(const Batch& batch, const Pass& pass);
  void Show(const Batch& batch, const Pass& pass, uint32_t depth);
  void MatchStream(const Pass& pass, uint32_t depth) {
    if (pass.layers != nullptr) {
      pass.layers->Stream(depth, Residual(depth), pass.scale, dx.data());
    }
  }
  void Attend(const LayerPass& at);
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
  Growing growing;
};

}  // namespace edgewise::train
