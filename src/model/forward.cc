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

constexpr size_t kAttendRows = 64;    // query heads that one attend call takes
constexpr size_t kMinQueryBlock = 8;  // queries of it

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
  void AttendHeads(uint32_t layer, const KvCache& cache, size_t first);
  void SetVisibleKeys(uint32_t layer, size_t row);
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
  std::vector<uint32_t> first_key, end_key;  // (rows): the keys that each sees
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
  first_key.resize(wanted);
  end_key.resize(wanted);
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
  const size_t at = position + row, slot = at % kernels::kKeyBlock;
  for (size_t h = 0; h < spec.n_kv_heads; ++h) {
    std::byte* key_block = cache->keys_[layer].mutable_data() +
                           (at - slot) * cache->position_bytes_ +
                           h * kernels::kKeyBlock * cache->row_bytes_;
    std::byte* value =
        cache->values_[layer].mutable_data() + at * cache->position_bytes_ + h * cache->row_bytes_;
    kernels::StoreKey(kernel, cache->format_, k.row(row) + h * spec.head_dim, key_block, slot,
                      spec.head_dim);
    kernels::StoreValue(kernel, cache->format_, v.row(row) + h * spec.head_dim, value,
                        spec.head_dim);
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

void ForwardPass::Impl::SetVisibleKeys(uint32_t layer, size_t row) {
  const uint32_t end = position + static_cast<uint32_t>(row) + 1;
  const bool cut = spec.LayerSlides(layer) && end > spec.sliding_window;
  first_key[row] = cut ? end - spec.sliding_window : 0;
  end_key[row] = end;
}

// Items of work: key heads x parts of the query heads that share them x blocks of queries. Keys and
// values are decoded once per item, so items are large unless threads would go idle.
void ForwardPass::Impl::AttendHeads(uint32_t layer, const KvCache& cache, size_t first) {
  const size_t count = rows - first, group = spec.n_heads / spec.n_kv_heads;
  for (size_t row = first; row < rows; ++row) SetVisibleKeys(layer, row);
  const size_t block = std::max(kAttendRows / group, kMinQueryBlock);
  const size_t blocks = (count + block - 1) / block;
  const size_t wanted = 2 * static_cast<size_t>(pool->size());
  const size_t parts = std::min(group, std::max<size_t>(1, wanted / (spec.n_kv_heads * blocks)));
  const size_t heads = (group + parts - 1) / parts;
  const size_t keys = end_key[rows - 1] - first_key[rows - 1];
  const size_t work = 2 * std::min(block, count) * heads * keys * spec.head_dim;
  ForEach(spec.n_kv_heads * parts * blocks, work, pool, [&](size_t item) {
    const size_t kv_head = item / (parts * blocks), part = item / blocks % parts;
    const size_t row = first + item % blocks * block, begin = part * heads;
    if (begin >= group) return;
    const size_t head = kv_head * group + begin;
    kernels::AttendArgs args;
    args.q = q.row(row) + head * spec.head_dim;
    args.n = std::min(block, rows - row);
    args.heads = std::min(heads, group - begin);
    args.q_stride = q.columns();
    args.head_dim = spec.head_dim;
    args.k = cache.keys_[layer].view().data + kv_head * kernels::kKeyBlock * cache.row_bytes_;
    args.v = cache.values_[layer].view().data + kv_head * cache.row_bytes_;
    args.k_stride = kernels::kKeyBlock * cache.position_bytes_;
    args.v_stride = cache.position_bytes_;
    args.format = cache.format_;
    args.first_key = first_key.data() + row;
    args.end_key = end_key.data() + row;
    args.scale = AttentionScale();
    args.softcap = spec.attention_softcap;
    args.out = input.floats(row) + head * spec.head_dim;
    args.out_stride = input.Stride(kernels::ActFormat::kF32) / sizeof(float);
    kernel.attend(args);
  });
}

// input = softmax(q k^T) v for rows from `first` on.
void ForwardPass::Impl::Attend(uint32_t layer, const KvCache& cache, size_t first) {
  input.Begin(spec.q_dim());
  AttendHeads(layer, cache, first);
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
