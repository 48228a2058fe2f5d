// Attention of a forward pass: heads are prepared and stored, and queries meet the keys of the
// cache.
#include <cmath>

#include "model/forward_impl.h"

namespace edgewise {
namespace {

constexpr size_t kAttendRows = 64;    // query heads that one attend call takes
constexpr size_t kMinQueryBlock = 8;  // queries of it

// With 4 bits keys are stored one by one in F16 first, and rounded when their block is full.
bool RoundsKeys(kernels::KvFormat format) { return format == kernels::KvFormat::kQ4_0; }

}  // namespace

// Biases, norms and rotation of one row's heads; its keys and values go to the cache.
void ForwardPass::Impl::PrepareHeads(uint32_t layer, const Segment& segment, size_t row,
                                     size_t first) {
  const LayerWeights& w = Layer(layer);
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
  const auto position = segment.position + static_cast<uint32_t>(row - segment.row);
  StoreHeads(layer, segment.cache, position, row);
}

void ForwardPass::Impl::StoreHeads(uint32_t layer, KvCache* cache, uint32_t position, size_t row) {
  const bool rounds = RoundsKeys(cache->format_);
  for (size_t h = 0; h < spec.n_kv_heads; ++h) {
    kernels::StoreKey(
        kernel, rounds ? kernels::KvFormat::kF16 : cache->format_, k.row(row) + h * spec.head_dim,
        rounds ? cache->RecentBlock(layer, position, h) : cache->KeyBlock(layer, position, h),
        position % kernels::kKeyBlock, spec.head_dim);
    kernels::StoreValue(kernel, cache->format_, v.row(row) + h * spec.head_dim,
                        cache->Value(layer, position, h), spec.head_dim);
  }
}

// Rounds the blocks of keys that the rows filled.
void ForwardPass::Impl::RoundFullBlocks(uint32_t layer) {
  for (const Segment& segment : segments) {
    KvCache* cache = segment.cache;
    if (!RoundsKeys(cache->format_)) continue;
    const uint32_t begin = segment.position / kernels::kKeyBlock;
    const uint32_t end =
        static_cast<uint32_t>((segment.position + segment.count) / kernels::kKeyBlock);
    const size_t work = kernels::kKeyBlock * 8 * spec.head_dim;
    ForEach((end - begin) * spec.n_kv_heads, work, pool, [&](size_t item) {
      const size_t h = item % spec.n_kv_heads;
      const auto position =
          static_cast<uint32_t>((begin + item / spec.n_kv_heads) * kernels::kKeyBlock);
      kernels::RoundKeys(cache->RecentBlock(layer, position, h),
                         cache->KeyBlock(layer, position, h), spec.head_dim);
    });
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

// Sets the keys that each row from `first` on sees, and cuts the rows into blocks of queries.
void ForwardPass::Impl::CutQueries(uint32_t layer, size_t first) {
  const size_t group = spec.n_heads / spec.n_kv_heads;
  const size_t block = std::max(kAttendRows / group, kMinQueryBlock);
  query_blocks.clear();
  scores = 0;
  for (const Segment& segment : segments) {
    const size_t segment_end = segment.row + segment.count;
    for (size_t row = std::max(first, segment.row); row < segment_end; ++row) {
      const uint32_t end = segment.position + static_cast<uint32_t>(row - segment.row) + 1;
      const bool cut = spec.LayerSlides(layer) && end > spec.sliding_window;
      first_key[row] = cut ? end - spec.sliding_window : 0;
      end_key[row] = end;
      scores += end - first_key[row];
    }
    for (size_t row = std::max(first, segment.row); row < segment_end; row += block) {
      query_blocks.push_back({segment.cache, row, std::min(block, segment_end - row)});
    }
  }
}

// Items of work: key heads x parts of the query heads that share them x blocks of queries. Keys and
// values are decoded once per item, so items are large unless threads would go idle.
void ForwardPass::Impl::AttendHeads(uint32_t layer, size_t first) {
  CutQueries(layer, first);
  const size_t group = spec.n_heads / spec.n_kv_heads, blocks = query_blocks.size();
  const size_t wanted = 2 * static_cast<size_t>(pool->size());
  const size_t parts = std::min(group, std::max<size_t>(1, wanted / (spec.n_kv_heads * blocks)));
  const size_t heads = (group + parts - 1) / parts;
  const size_t work = 2 * scores / blocks * heads * spec.head_dim;
  ForEach(spec.n_kv_heads * parts * blocks, work, pool, [&](size_t item) {
    const size_t kv_head = item / (parts * blocks), part = item / blocks % parts;
    const QueryBlock& block = query_blocks[item % blocks];
    const size_t begin = part * heads;
    if (begin >= group) return;
    const size_t head = kv_head * group + begin;
    KvCache& cache = *block.cache;
    kernels::AttendArgs args{};
    args.q = q.row(block.row) + head * spec.head_dim;
    args.n = block.count;
    args.heads = std::min(heads, group - begin);
    args.q_stride = q.columns();
    args.head_dim = spec.head_dim;
    args.k = cache.KeyBlock(layer, 0, kv_head);
    args.v = cache.Value(layer, 0, kv_head);
    args.k_stride = cache.n_kv_heads_ * cache.key_block_bytes_;
    args.v_stride = cache.n_kv_heads_ * cache.value_bytes_;
    args.slots = cache.layers_[layer].slots;
    args.format = cache.format_;
    if (RoundsKeys(cache.format_)) {
      args.recent = cache.RecentBlock(layer, 0, kv_head);
      args.recent_stride = cache.n_kv_heads_ * cache.recent_block_bytes_;
      args.recent_slots = cache.layers_[layer].recent_slots;
    }
    args.first_key = first_key.data() + block.row;
    args.end_key = end_key.data() + block.row;
    args.scale = AttentionScale();
    args.softcap = spec.attention_softcap;
    args.out = input.floats(block.row) + head * spec.head_dim;
    args.out_stride = input.Stride(kernels::ActFormat::kF32) / sizeof(float);
    kernel.attend(args);
  });
}

// input = softmax(q k^T) v for rows from `first` on.
void ForwardPass::Impl::Attend(uint32_t layer, size_t first) {
  input.Begin(spec.q_dim());
  AttendHeads(layer, first);
  const Linear* users[] = {&Layer(layer).output};
  ForEach(rows - first, spec.q_dim(), pool, [&](size_t i) {
    const size_t row = first + i;
    input.Finish(row, users);
  });
}

}  // namespace edgewise
