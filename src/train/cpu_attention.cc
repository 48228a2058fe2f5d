#include "train/cpu_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/kernels.h"

namespace edgewise::train {
namespace {

constexpr size_t kQueries = 64;  // of a block

// The queries of a block and the keys that any of them sees, by position in the sequence.
struct Block {
  size_t query, queries;
  size_t key, keys;
};

Block BlockAt(size_t query, size_t length, size_t window) {
  const size_t queries = std::min(kQueries, length - query);
  const size_t key = window > 0 && query + 1 > window ? query + 1 - window : 0;
  return {query, queries, key, query + queries - key};
}

// The keys of a block that its query i sees: [first, end).
struct Seen {
  size_t first, end;
};
Seen SeenBy(const Block& block, size_t i, size_t window) {
  const size_t position = block.query + i, end = position + 1 - block.key;
  return {window > 0 && end > window ? end - window : 0, end};
}

// Turns the scores of one query, raw products with `keys` keys, to probabilities: 0 outside of what
// is seen. Returns the logarithm of the sum, by which Probabilities finds them again.
float Softmax(const AttentionShape& shape, Seen seen, size_t keys, float* scores) {
  const kernels::Kernels& kernel = kernels::Active();
  kernel.scale(shape.scale, scores + seen.first, seen.end - seen.first);
  if (shape.softcap > 0) kernel.softcap(shape.softcap, scores + seen.first, seen.end - seen.first);
  const double log_sum = kernel.softmax(scores + seen.first, seen.end - seen.first);
  std::fill(scores, scores + seen.first, 0.0f);
  std::fill(scores + seen.end, scores + keys, 0.0f);
  return static_cast<float>(log_sum);
}

// The same in the backward pass. `slopes` receives the derivative of each score by its raw product.
void Probabilities(const AttentionShape& shape, Seen seen, size_t keys, float log_sum,
                   float* scores, float* slopes) {
  for (size_t j = seen.first; j < seen.end; ++j) {
    float score = scores[j] * shape.scale;
    slopes[j] = shape.scale;
    if (shape.softcap > 0) {
      const float t = std::tanh(score / shape.softcap);
      score = shape.softcap * t;
      slopes[j] *= 1 - t * t;
    }
    scores[j] = score - log_sum;
  }
  kernels::Active().exp(scores + seen.first, scores + seen.first, seen.end - seen.first);
  for (const auto [begin, end] : {Seen{0, seen.first}, Seen{seen.end, keys}}) {
    std::fill(scores + begin, scores + end, 0.0f);
    std::fill(slopes + begin, slopes + end, 0.0f);
  }
}

}  // namespace

struct CpuAttention::Worker {
  explicit Worker(Precision precision) : gemm(&alone, precision) {}

  ThreadPool alone{1};
  Gemm gemm;
  std::vector<float> scores, slopes, gradients;  // (queries, keys)

  // Makes room before the threads start, where failing to is an error and not the end.
  void Reserve(size_t size) {
    for (std::vector<float>* buffer : {&scores, &slopes, &gradients}) {
      if (buffer->size() < size) buffer->resize(size);
    }
  }
  // `out` and `log_sums` are those of the block's queries.
  void ForwardBlock(const AttentionShape& shape, const Item& item, const Block& block, size_t head,
                    ConstRows qkv, Rows out, float* log_sums);
  void BackwardBlock(const AttentionShape& shape, const Item& item, const Block& block, size_t head,
                     ConstRows qkv, ConstRows out, const float* log_sums, ConstRows dout,
                     Rows dqkv);

 private:
  // scores = q k^T of a block, raw.
  void Score(const AttentionShape& shape, const Item& item, const Block& block, size_t head,
             ConstRows qkv);
};

CpuAttention::CpuAttention(ThreadPool* pool, Precision precision) : pool_(pool) {
  for (int i = 0; i < pool->size(); ++i) workers_.push_back(std::make_unique<Worker>(precision));
}
CpuAttention::~CpuAttention() = default;

template <class Body>
void CpuAttention::ForEachBlock(const AttentionShape& shape, Body&& body) {
  items_.clear();
  size_t row = 0;
  for (const uint32_t length : shape.lengths) {
    for (size_t h = 0; h < shape.kv_heads; ++h) items_.push_back({row, length, h});
    row += length;
  }
  const size_t group = shape.heads / shape.kv_heads;
  const size_t longest = *std::max_element(shape.lengths.begin(), shape.lengths.end());
  for (const auto& worker : workers_) worker->Reserve(std::min(kQueries, longest) * longest);
  pool_->ParallelFor(items_.size(), 1, [&](size_t begin, size_t end, int thread) {
    for (size_t i = begin; i < end; ++i) {
      const Item& item = items_[i];
      for (size_t at = 0; at < item.length; at += kQueries) {
        const Block block = BlockAt(at, item.length, shape.window);
        for (size_t head = item.kv_head * group; head < (item.kv_head + 1) * group; ++head) {
          body(*workers_[static_cast<size_t>(thread)], item, block, head);
        }
      }
    }
  });
}

void CpuAttention::Forward(const AttentionShape& shape, ConstRows qkv, Rows out, float* log_sums) {
  ForEachBlock(shape, [&](Worker& worker, const Item& item, const Block& block, size_t head) {
    const size_t first = item.row + block.query;
    worker.ForwardBlock(shape, item, block, head, qkv, {out.row(first), out.stride},
                        log_sums + first * shape.heads);
  });
}

void CpuAttention::ForwardLast(const AttentionShape& shape, std::span<const size_t> starts,
                               ConstRows qkv, Rows out, float* log_sums) {
  const size_t group = shape.heads / shape.kv_heads;
  const size_t longest = *std::max_element(shape.lengths.begin(), shape.lengths.end());
  for (const auto& worker : workers_) worker->Reserve(longest);
  pool_->ParallelFor(starts.size() * shape.kv_heads, 1, [&](size_t begin, size_t end, int thread) {
    for (size_t i = begin; i < end; ++i) {
      const size_t sequence = i / shape.kv_heads;
      const Item item = {starts[sequence], shape.lengths[sequence], i % shape.kv_heads};
      const Block block = BlockAt(item.length - 1, item.length, shape.window);
      for (size_t head = item.kv_head * group; head < (item.kv_head + 1) * group; ++head) {
        workers_[static_cast<size_t>(thread)]->ForwardBlock(shape, item, block, head, qkv,
                                                            {out.row(sequence), out.stride},
                                                            log_sums + sequence * shape.heads);
      }
    }
  });
}

void CpuAttention::Backward(const AttentionShape& shape, ConstRows qkv, ConstRows out,
                            const float* log_sums, ConstRows dout, Rows dqkv) {
  size_t rows = 0;
  for (const uint32_t length : shape.lengths) rows += length;
  const size_t d = shape.head_dim, sums = 2 * shape.kv_heads * d;  // of keys and values
  for (size_t i = 0; i < rows; ++i) std::fill_n(dqkv.row(i) + shape.keys_at(), sums, 0.0f);
  ForEachBlock(shape, [&](Worker& worker, const Item& item, const Block& block, size_t head) {
    worker.BackwardBlock(shape, item, block, head, qkv, out, log_sums, dout, dqkv);
  });
}

void CpuAttention::Worker::Score(const AttentionShape& shape, const Item& item, const Block& block,
                                 size_t head, ConstRows qkv) {
  const size_t d = shape.head_dim;
  const float* queries = qkv.row(item.row + block.query) + head * d;
  const float* keys = qkv.row(item.row + block.key) + shape.keys_at() + item.kv_head * d;
  gemm.Multiply({queries, qkv.stride}, {keys, qkv.stride, true}, block.queries, block.keys, d,
                scores.data(), block.keys, false);
}

void CpuAttention::Worker::ForwardBlock(const AttentionShape& shape, const Item& item,
                                        const Block& block, size_t head, ConstRows qkv, Rows out,
                                        float* log_sums) {
  Score(shape, item, block, head, qkv);
  const size_t d = shape.head_dim;
  for (size_t i = 0; i < block.queries; ++i) {
    log_sums[i * shape.heads + head] =
        Softmax(shape, SeenBy(block, i, shape.window), block.keys, scores.data() + i * block.keys);
  }
  const float* values = qkv.row(item.row + block.key) + shape.values_at() + item.kv_head * d;
  gemm.Multiply({scores.data(), block.keys}, {values, qkv.stride}, block.queries, d, block.keys,
                out.data + head * d, out.stride, false);
}

// With P the probabilities and dP = dout v^T: the gradient of a score is P (dP - dout . out).
void CpuAttention::Worker::BackwardBlock(const AttentionShape& shape, const Item& item,
                                         const Block& block, size_t head, ConstRows qkv,
                                         ConstRows out, const float* log_sums, ConstRows dout,
                                         Rows dqkv) {
  Score(shape, item, block, head, qkv);
  const size_t d = shape.head_dim, first = item.row + block.query, keys = block.keys;
  const size_t k_at = shape.keys_at() + item.kv_head * d;
  const size_t v_at = shape.values_at() + item.kv_head * d;
  const ConstRows dy = {dout.row(first) + head * d, dout.stride};
  gemm.Multiply({dy.data, dy.stride}, {qkv.row(item.row + block.key) + v_at, qkv.stride, true},
                block.queries, keys, d, gradients.data(), keys, false);
  for (size_t i = 0; i < block.queries; ++i) {
    float *p = scores.data() + i * keys, *slope = slopes.data() + i * keys;
    Probabilities(shape, SeenBy(block, i, shape.window), keys,
                  log_sums[(first + i) * shape.heads + head], p, slope);
    const float* y = out.row(first + i) + head * d;
    const float common = kernels::Active().dot_f32(dy.row(i), y, d);
    float* g = gradients.data() + i * keys;
    for (size_t j = 0; j < keys; ++j) g[j] = p[j] * (g[j] - common) * slope[j];
  }
  const Matrix p = {scores.data(), keys, true}, g = {gradients.data(), keys, true};
  gemm.Multiply(p, {dy.data, dy.stride}, keys, d, block.queries,
                dqkv.row(item.row + block.key) + v_at, dqkv.stride, true);
  gemm.Multiply(g, {qkv.row(first) + head * d, qkv.stride}, keys, d, block.queries,
                dqkv.row(item.row + block.key) + k_at, dqkv.stride, true);
  gemm.Multiply({gradients.data(), keys}, {qkv.row(item.row + block.key) + k_at, qkv.stride},
                block.queries, d, keys, dqkv.row(first) + head * d, dqkv.stride, false);
}

}  // namespace edgewise::train
