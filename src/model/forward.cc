// The forward pass. Each step is one function; a row is one token.
#include "model/forward.h"

#include <cmath>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/strings.h"
#include "model/model.h"
#include "model/rope.h"

namespace edgewise {
namespace {

using kernels::Kernels;

constexpr size_t kQueryBlock = 32;  // queries of a head that one attend call takes

// cos and sin for every row of a block, and the frequencies they come from.
struct RopeTable {
  RopeSpec rope;
  std::vector<double> short_frequencies, long_frequencies;
  std::vector<float> cos, sin;  // (rows, rotary_dim / 2)

  explicit RopeTable(RopeSpec spec) : rope(std::move(spec)) {
    short_frequencies = RopeFrequencies(rope, false);
    long_frequencies = RopeFrequencies(rope, true);
  }
  void Fill(uint32_t first_position, size_t rows, uint32_t capacity) {
    const bool is_long =
        rope.scaling == RopeScalingKind::kLongRope && capacity > rope.original_context;
    const std::vector<double>& frequencies = is_long ? long_frequencies : short_frequencies;
    cos.resize(rows * frequencies.size());
    sin.resize(rows * frequencies.size());
    for (size_t i = 0; i < rows; ++i) {
      RopeAngles(rope, frequencies, first_position + static_cast<uint32_t>(i),
                 cos.data() + i * frequencies.size(), sin.data() + i * frequencies.size());
    }
  }
};

}  // namespace

struct ForwardPass::Impl {
  Impl(const Model::Impl& m, ThreadPool* p, uint32_t batch)
      : model(m),
        spec(m.spec()),
        kernel(kernels::Active()),
        pool(p),
        max_batch(std::max(batch, 1u)),
        rope(spec.rope),
        sliding_rope(SlidingRope(spec)) {}

  Status Check(std::span<const int32_t> tokens, const KvCache& cache, size_t first_logits,
               size_t logits_size) const;
  Status Reserve(size_t rows);
  void Block(std::span<const int32_t> tokens, KvCache* cache, size_t first_logits, float* logits);
  void Embed(std::span<const int32_t> tokens);
  void Attention(uint32_t layer, KvCache* cache, size_t first);
  void FeedForward(uint32_t layer, size_t first);
  void Logits(size_t first, float* logits);

  void Normalize(const std::vector<float>& weight, size_t first,
                 std::span<const Linear* const> users);
  void PrepareHeads(uint32_t layer, size_t row, size_t first, KvCache* cache);
  void RotateHeads(const RopeTable& table, size_t row, float* heads, size_t count);
  void Attend(uint32_t layer, const KvCache& cache, size_t first);
  void AttendSingle(uint32_t layer, const KvCache& cache, size_t row);
  void AttendBlocks(uint32_t layer, const KvCache& cache, size_t first);
  void SetVisibleKeys(uint32_t layer, size_t row, size_t slot);
  kernels::AttendArgs Arguments(uint32_t layer, const KvCache& cache, size_t row, size_t head,
                                size_t slot);
  void AddResidual(const Linear& linear, const std::vector<float>& post_norm, size_t first);
  float AttentionScale() const;

  const Model::Impl& model;
  const ModelSpec& spec;
  const Kernels& kernel;
  ThreadPool* pool;
  size_t max_batch;

  size_t rows = 0;        // of the block in work
  uint32_t position = 0;  // of its first row
  size_t reserved = 0;    // rows that fit the scratch memory
  RopeTable rope, sliding_rope;
  Activations input;                         // of the linear layers at hand
  FloatRows x;                               // (rows, dim): the residual stream
  FloatRows q, k, v;                         // (rows, q_dim), (rows, kv_dim) twice
  FloatRows gate, up;                        // (rows, ffn_dim)
  FloatRows branch;                          // (rows, dim): what a half layer adds to x
  std::vector<uint32_t> first_key, end_key;  // (rows), or per head for a single row
};

Status ForwardPass::Impl::Check(std::span<const int32_t> tokens, const KvCache& cache,
                                size_t first_logits, size_t logits_size) const {
  if (cache.keys_.size() != spec.n_layers ||
      cache.position_bytes_ != cache.row_bytes_ * spec.n_kv_heads ||
      cache.row_bytes_ != kernels::KvRowBytes(cache.format_, spec.head_dim)) {
    return MakeError(Code::kInvalidArgument, "the KV cache was made for another model");
  }
  if (tokens.empty()) return MakeError(Code::kInvalidArgument, "no tokens to compute");
  if (tokens.size() > cache.capacity() - cache.size()) {
    return MakeError(Code::kInvalidArgument,
                     "%zu tokens do not fit the context: %u of %u positions are taken",
                     tokens.size(), cache.size(), cache.capacity());
  }
  for (const int32_t token : tokens) {
    if (token < 0 || static_cast<uint32_t>(token) >= spec.vocab_size) {
      return MakeError(Code::kInvalidArgument, "token id %d is outside the vocabulary of %u", token,
                       spec.vocab_size);
    }
  }
  if (first_logits > tokens.size() ||
      logits_size != (tokens.size() - first_logits) * spec.vocab_size) {
    return MakeError(Code::kInvalidArgument,
                     "logits from token %zu of %zu on need (tokens, %u) floats, not %zu",
                     first_logits, tokens.size(), spec.vocab_size, logits_size);
  }
  return Ok{};
}

Status ForwardPass::Impl::Reserve(size_t wanted) {
  if (wanted <= reserved) return Ok{};
  const size_t widest = std::max({spec.dim, spec.q_dim(), spec.ffn_dim});
  EW_TRY(input.Resize(wanted, widest));
  EW_TRY(x.Resize(wanted, spec.dim));
  EW_TRY(q.Resize(wanted, spec.q_dim()));
  EW_TRY(k.Resize(wanted, spec.kv_dim()));
  EW_TRY(v.Resize(wanted, spec.kv_dim()));
  EW_TRY(gate.Resize(wanted, spec.ffn_dim));
  EW_TRY(up.Resize(wanted, spec.ffn_dim));
  EW_TRY(branch.Resize(wanted, spec.dim));
  first_key.resize(std::max<size_t>(wanted, spec.n_heads));
  end_key.resize(first_key.size());
  reserved = wanted;
  return Ok{};
}

// Rows from `first_logits` on give logits. In the last layer the others matter only as keys and
// values.
void ForwardPass::Impl::Block(std::span<const int32_t> tokens, KvCache* cache, size_t first_logits,
                              float* logits) {
  rows = tokens.size();
  position = cache->size_;
  rope.Fill(position, rows, cache->capacity_);
  if (spec.local_rope_base != 0) sliding_rope.Fill(position, rows, cache->capacity_);
  Embed(tokens);
  for (uint32_t layer = 0; layer < spec.n_layers; ++layer) {
    const size_t first = layer + 1 == spec.n_layers ? first_logits : 0;
    Attention(layer, cache, first);
    FeedForward(layer, first);
  }
  Logits(first_logits, logits);
  cache->size_ += static_cast<uint32_t>(rows);
}

void ForwardPass::Impl::Embed(std::span<const int32_t> tokens) {
  for (size_t i = 0; i < rows; ++i) {
    model.embedding.DecodeRow(static_cast<uint64_t>(tokens[i]), x.row(i));
    if (spec.embedding_scale != 1.0f) kernel.scale(spec.embedding_scale, x.row(i), spec.dim);
  }
}

// input = RMSNorm(x) for rows from `first` on.
void ForwardPass::Impl::Normalize(const std::vector<float>& weight, size_t first,
                                  std::span<const Linear* const> users) {
  input.Begin(spec.dim);
  ForEach(rows - first, 4 * spec.dim, pool, [&](size_t i) {
    const size_t row = first + i;
    kernel.rms_norm(x.row(row), weight.data(), input.floats(row), spec.dim, spec.norm_eps);
    input.Finish(row, users);
  });
}

void ForwardPass::Impl::Attention(uint32_t layer, KvCache* cache, size_t first) {
  const LayerWeights& w = model.layers[layer];
  const Linear* users[] = {&w.q, &w.k, &w.v};
  Normalize(w.attention_norm, 0, users);
  const LinearJob jobs[] = {{&w.q, first, rows - first, q.row(first), q.columns()},
                            {&w.k, 0, rows, k.row(0), k.columns()},
                            {&w.v, 0, rows, v.row(0), v.columns()}};
  RunLinears(jobs, input, pool);
  ForEach(rows, 4 * (spec.q_dim() + 2 * spec.kv_dim()), pool,
          [&](size_t row) { PrepareHeads(layer, row, first, cache); });
  if (first == rows) return;
  Attend(layer, *cache, first);
  AddResidual(w.output, w.post_attention_norm, first);
}

// Biases, norms and rotation of one row's heads; its keys and values go to the cache.
void ForwardPass::Impl::PrepareHeads(uint32_t layer, size_t row, size_t first, KvCache* cache) {
  const LayerWeights& w = model.layers[layer];
  const bool local = spec.local_rope_base != 0 && spec.LayerSlides(layer);
  const RopeTable& table = local ? sliding_rope : rope;
  const auto prepare = [&](const Linear& linear, const std::vector<float>& norm, float* heads,
                           size_t count) {
    if (!linear.bias.empty()) kernel.add(linear.bias.data(), heads, linear.rows);
    for (size_t h = 0; h < count && !norm.empty(); ++h) {
      float* head = heads + h * spec.head_dim;
      kernel.rms_norm(head, norm.data(), head, spec.head_dim, spec.norm_eps);
    }
    RotateHeads(table, row, heads, count);
  };
  if (row >= first) prepare(w.q, w.q_norm, q.row(row), spec.n_heads);
  prepare(w.k, w.k_norm, k.row(row), spec.n_kv_heads);
  if (!w.v.bias.empty()) kernel.add(w.v.bias.data(), v.row(row), w.v.rows);
  const size_t at = (position + row) * cache->position_bytes_;
  for (size_t h = 0; h < spec.n_kv_heads; ++h) {
    const size_t offset = at + h * cache->row_bytes_;
    kernels::StoreKv(kernel, cache->format_, k.row(row) + h * spec.head_dim,
                     cache->keys_[layer].mutable_data() + offset, spec.head_dim);
    kernels::StoreKv(kernel, cache->format_, v.row(row) + h * spec.head_dim,
                     cache->values_[layer].mutable_data() + offset, spec.head_dim);
  }
}

void ForwardPass::Impl::RotateHeads(const RopeTable& table, size_t row, float* heads,
                                    size_t count) {
  if (spec.rope.kind == RopeKind::kNone) return;
  const auto rotate =
      spec.rope.kind == RopeKind::kInterleaved ? kernel.rope_interleaved : kernel.rope_neox;
  const size_t pairs = spec.rope.rotary_dim / 2;
  rotate(heads, table.cos.data() + row * pairs, table.sin.data() + row * pairs, count,
         spec.head_dim, spec.rope.rotary_dim);
}

float ForwardPass::Impl::AttentionScale() const {
  if (spec.attention_scale > 0) return spec.attention_scale;
  return 1.0f / std::sqrt(static_cast<float>(spec.head_dim));
}

// The keys that the query of `row` may see go to entry `slot`.
void ForwardPass::Impl::SetVisibleKeys(uint32_t layer, size_t row, size_t slot) {
  const uint32_t end = position + static_cast<uint32_t>(row) + 1;
  const bool cut = spec.LayerSlides(layer) && end > spec.sliding_window;
  first_key[slot] = cut ? end - spec.sliding_window : 0;
  end_key[slot] = end;
}

// The arguments of one call on query heads of `row` from `head` on, without the queries' number
// and strides.
kernels::AttendArgs ForwardPass::Impl::Arguments(uint32_t layer, const KvCache& cache, size_t row,
                                                 size_t head, size_t slot) {
  const size_t kv_head = head / (spec.n_heads / spec.n_kv_heads);
  kernels::AttendArgs args;
  args.q = q.row(row) + head * spec.head_dim;
  args.head_dim = spec.head_dim;
  args.k = cache.keys_[layer].view().data + kv_head * cache.row_bytes_;
  args.v = cache.values_[layer].view().data + kv_head * cache.row_bytes_;
  args.k_stride = args.v_stride = cache.position_bytes_;
  args.format = cache.format_;
  args.first_key = first_key.data() + slot;
  args.end_key = end_key.data() + slot;
  args.scale = AttentionScale();
  args.softcap = spec.attention_softcap;
  args.out = input.floats(row) + head * spec.head_dim;
  return args;
}

// One query: heads that share keys and values go together, so that these are read once; with few
// such groups they are cut smaller to give every thread work.
void ForwardPass::Impl::AttendSingle(uint32_t layer, const KvCache& cache, size_t row) {
  const size_t group = spec.n_heads / spec.n_kv_heads;
  const size_t part = std::clamp<size_t>(spec.n_heads / 4, 1, group);
  const size_t parts = (group + part - 1) / part;
  for (size_t slot = 0; slot < part; ++slot) SetVisibleKeys(layer, row, slot);
  const size_t keys = end_key[0] - first_key[0];
  ForEach(spec.n_kv_heads * parts, 2 * part * keys * spec.head_dim, pool, [&](size_t item) {
    const size_t begin = item % parts * part;
    kernels::AttendArgs args = Arguments(layer, cache, row, item / parts * group + begin, 0);
    args.n = std::min(part, group - begin);
    args.q_stride = args.out_stride = spec.head_dim;
    kernel.attend(args);
  });
}

// Many queries: heads x blocks of queries.
void ForwardPass::Impl::AttendBlocks(uint32_t layer, const KvCache& cache, size_t first) {
  for (size_t row = first; row < rows; ++row) SetVisibleKeys(layer, row, row);
  const size_t blocks = (rows - first + kQueryBlock - 1) / kQueryBlock;
  const size_t keys = end_key[rows - 1] - first_key[rows - 1];
  ForEach(spec.n_heads * blocks, 2 * kQueryBlock * keys * spec.head_dim, pool, [&](size_t item) {
    const size_t row = first + item % blocks * kQueryBlock;
    kernels::AttendArgs args = Arguments(layer, cache, row, item / blocks, row);
    args.n = std::min(kQueryBlock, rows - row);
    args.q_stride = q.columns();
    args.out_stride = input.Stride(kernels::ActFormat::kF32) / sizeof(float);
    kernel.attend(args);
  });
}

// input = softmax(q k^T) v for rows from `first` on.
void ForwardPass::Impl::Attend(uint32_t layer, const KvCache& cache, size_t first) {
  input.Begin(spec.q_dim());
  if (rows - first == 1) {
    AttendSingle(layer, cache, first);
  } else {
    AttendBlocks(layer, cache, first);
  }
  const Linear* users[] = {&model.layers[layer].output};
  ForEach(rows - first, spec.q_dim(), pool, [&](size_t i) { input.Finish(first + i, users); });
}

// x += post_norm(linear(input)) for rows from `first` on.
void ForwardPass::Impl::AddResidual(const Linear& linear, const std::vector<float>& post_norm,
                                    size_t first) {
  const LinearJob job = {&linear, first, rows - first, branch.row(first), branch.columns()};
  RunLinears({&job, 1}, input, pool);
  ForEach(rows - first, 2 * spec.dim, pool, [&](size_t i) {
    float* add = branch.row(first + i);
    if (!linear.bias.empty()) kernel.add(linear.bias.data(), add, spec.dim);
    if (!post_norm.empty()) kernel.rms_norm(add, post_norm.data(), add, spec.dim, spec.norm_eps);
    kernel.add(add, x.row(first + i), spec.dim);
  });
}

void ForwardPass::Impl::FeedForward(uint32_t layer, size_t first) {
  if (first == rows) return;
  const LayerWeights& w = model.layers[layer];
  const Linear* users[] = {&w.gate, &w.up};
  Normalize(w.feed_forward_norm, first, users);
  const size_t count = rows - first;
  const LinearJob jobs[] = {{&w.gate, first, count, gate.row(first), gate.columns()},
                            {&w.up, first, count, up.row(first), up.columns()}};
  RunLinears(jobs, input, pool);
  const auto activate =
      spec.activation == Activation::kSilu ? kernel.silu_mul : kernel.gelu_tanh_mul;
  const Linear* down[] = {&w.down};
  input.Begin(spec.ffn_dim);
  ForEach(count, 8 * spec.ffn_dim, pool, [&](size_t i) {
    const size_t row = first + i;
    activate(gate.row(row), up.row(row), input.floats(row), spec.ffn_dim);
    input.Finish(row, down);
  });
  AddResidual(w.down, w.post_feed_forward_norm, first);
}

void ForwardPass::Impl::Logits(size_t first, float* logits) {
  if (first == rows) return;
  const Linear* users[] = {&model.logits};
  Normalize(model.output_norm, first, users);
  const LinearJob job = {&model.logits, first, rows - first, logits, spec.vocab_size};
  RunLinears({&job, 1}, input, pool);
  if (spec.logit_softcap <= 0) return;
  ForEach(rows - first, 8 * spec.vocab_size, pool, [&](size_t i) {
    kernel.softcap(spec.logit_softcap, logits + i * spec.vocab_size, spec.vocab_size);
  });
}

ForwardPass::ForwardPass(const Model& model, ThreadPool* pool, uint32_t max_batch)
    : impl_(std::make_unique<Impl>(*model.impl_, pool, max_batch)) {}
ForwardPass::ForwardPass(ForwardPass&&) noexcept = default;
ForwardPass& ForwardPass::operator=(ForwardPass&&) noexcept = default;
ForwardPass::~ForwardPass() = default;

Status ForwardPass::Run(std::span<const int32_t> tokens, KvCache* cache, size_t first_logits,
                        std::span<float> logits) {
  EW_TRY(impl_->Check(tokens, *cache, first_logits, logits.size()));
  EW_TRY(impl_->Reserve(std::min(tokens.size(), impl_->max_batch)));
  for (size_t begin = 0; begin < tokens.size(); begin += impl_->max_batch) {
    const auto block = tokens.subspan(begin, std::min(impl_->max_batch, tokens.size() - begin));
    const size_t done = begin > first_logits ? begin - first_logits : 0;  // rows of logits
    const size_t first = std::min(block.size(), first_logits > begin ? first_logits - begin : 0);
    impl_->Block(block, cache, first, logits.data() + done * impl_->spec.vocab_size);
  }
  return Ok{};
}

}  // namespace edgewise
