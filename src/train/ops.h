// Ops: what the layers of training compute, forward and backward side by side, on plain pointers.
// A device is one implementation; the network knows no other way to compute.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/thread_pool.h"
#include "model/spec.h"
#include "train/gemm.h"
#include "train/moments.h"

namespace edgewise::train {

// Vectors that are normalized: `groups` of `columns` values side by side in each of `rows` rows,
// such as the heads of a token.
struct NormShape {
  NormKind kind = NormKind::kRms;
  size_t rows = 0, groups = 1, columns = 0;
  float eps = 1e-5f;
  size_t count() const { return rows * groups; }
};
// What the backward pass needs of the forward pass: (count) each. RMSNorm has no mean.
struct NormStatistics {
  float* inverse_deviation;
  float* mean = nullptr;
};
// `bias` may be null.
struct NormWeights {
  const float* weight;  // (columns)
  const float* bias = nullptr;
};
struct NormGradients {
  float* weight;  // null: not wanted
  float* bias = nullptr;
};

// Rows of floats, `stride` apart.
struct Rows {
  float* data;
  size_t stride;
  float* row(size_t i) const { return data + i * stride; }
};
struct ConstRows {
  const float* data;
  size_t stride;
  ConstRows(const float* d, size_t s) : data(d), stride(s) {}
  ConstRows(const Rows& rows) : data(rows.data), stride(rows.stride) {}  // NOLINT
  const float* row(size_t i) const { return data + i * stride; }
};

// Causal self-attention of packed sequences. A row of qkv holds a token's queries, keys, values.
struct AttentionShape {
  std::span<const uint32_t> lengths;  // of the sequences
  size_t heads, kv_heads, head_dim;
  size_t window;  // keys that a token sees, its own included; 0: all before it
  float scale;
  float softcap;  // 0: none
  size_t keys_at() const { return heads * head_dim; }
  size_t values_at() const { return keys_at() + kv_heads * head_dim; }
};

// Relations between the tokens of packed sequences, in each of `heads` groups of columns: those of
// token i are the softmax over itself and all before it, j, of x_i . x_j / sqrt(columns) (MiniLMv2,
// Wang et al. 2021).
struct RelationShape {
  std::span<const uint32_t> lengths;  // of the sequences
  size_t heads;
  size_t columns, target_columns;    // of a head of x and of the target
  std::span<const uint8_t> counted;  // (n); 0: the token's own relations are left out
};

struct RopeShape {
  RopeKind kind;
  size_t rows, heads, head_dim, rotary_dim;
};

// Of AdamW (Loshchilov and Hutter 2019), at step `step` >= 1.
struct AdamStep {
  float learning_rate;
  float beta1, beta2, eps;
  float weight_decay;
  size_t decayed;        // of the values so many, from the first on
  float gradient_scale;  // multiplies the gradients first: clipping
  uint64_t step;
};

// Not thread-safe: one caller at a time. Results do not depend on the number of threads.
class Ops {
 public:
  virtual ~Ops() = default;

  // As Gemm::Multiply.
  virtual void Multiply(const Matrix& a, const Matrix& b, size_t m, size_t n, size_t k, float* c,
                        size_t c_stride, bool accumulate) = 0;

  // y += bias in each of `rows` rows of `n`; and sum += the rows of dy.
  virtual void AddBias(const float* bias, size_t rows, size_t n, Rows y) = 0;
  virtual void AddRowSums(ConstRows dy, size_t rows, size_t n, float* sum) = 0;

  // y = scale * the rows of `table` (vocab, n) that `tokens` name; and their gradients added up.
  virtual void Embed(std::span<const int32_t> tokens, const float* table, size_t n, float scale,
                     float* y) = 0;
  virtual void EmbedBackward(std::span<const int32_t> tokens, const float* dy, size_t n,
                             float scale, float* dtable) = 0;

  // y = (x - mean) / deviation * weight + bias, of RMSNorm without mean; y may be x. Backward adds
  // to dx where `accumulate`, which may otherwise be dy.
  virtual void Norm(const NormShape& shape, const NormWeights& weights, ConstRows x, Rows y,
                    const NormStatistics& statistics) = 0;
  virtual void NormBackward(const NormShape& shape, const NormWeights& weights, ConstRows x,
                            const NormStatistics& statistics, ConstRows dy, Rows dx,
                            bool accumulate, const NormGradients& gradients) = 0;

  // Rotates the first heads of each row by `cos` and `sin`, (rows, rotary_dim / 2); backward is the
  // rotation back, by the same factors.
  virtual void Rope(const RopeShape& shape, const float* cos, const float* sin, Rows x) = 0;
  virtual void RopeBackward(const RopeShape& shape, const float* cos, const float* sin,
                            Rows dx) = 0;

  // out (n, heads * head_dim) = softmax(scale q k^T) v, and the logarithm of each softmax's sum,
  // (n, heads). Scores are kept for 64 queries at a time (Dao et al. 2022). Backward writes dqkv.
  virtual void Attend(const AttentionShape& shape, ConstRows qkv, Rows out, float* log_sums) = 0;
  virtual void AttendBackward(const AttentionShape& shape, ConstRows qkv, ConstRows out,
                              const float* log_sums, ConstRows dout, Rows dqkv) = 0;
  // out (sequences, heads * head_dim): Attend for the last token of each sequence, whose rows of
  // qkv begin at `starts`. log_sums: (sequences, heads).
  virtual void AttendLast(const AttentionShape& shape, std::span<const size_t> starts,
                          ConstRows qkv, Rows out, float* log_sums) = 0;

  // Returns the sum over tokens and heads of KL(relations of the target | those of x), and adds
  // `scale` times its gradient by x to dx.
  virtual double MatchRelations(const RelationShape& shape, ConstRows target, ConstRows x,
                                float scale, Rows dx) = 0;

  // y (rows, n) = activation(gate) * up; gate_up (rows, 2 n). Backward writes dgate_up, which may
  // be gate_up.
  virtual void Glu(Activation activation, size_t rows, size_t n, const float* gate_up,
                   float* y) = 0;
  virtual void GluBackward(Activation activation, size_t rows, size_t n, const float* gate_up,
                           const float* dy, float* dgate_up) = 0;

  // y = a + b.
  virtual void Add(const float* a, const float* b, size_t n, float* y) = 0;
  // Sets each of `n` values to zero with `probability` and divides the others by 1 - probability;
  // which ones depends on `seed` alone, so that backward is the same on gradients.
  virtual void Dropout(float probability, uint64_t seed, size_t n, float* x) = 0;

  // x = factor * x; and the same where `weights` (n) are not zero, where they are x = 0.
  virtual void Scale(float factor, size_t n, float* x) = 0;
  virtual void ScaleKept(const float* weights, float factor, size_t n, float* x) = 0;

  // Sum of squares, in double precision.
  virtual double SumOfSquares(const float* x, size_t n) = 0;
  // Changes `weights` by `gradients`, (n) each, and the moments of these.
  virtual void Adam(const AdamStep& step, const float* gradients, size_t n, const Moments& moments,
                    float* weights) = 0;
  // Sets gradients to zero where a weight is 0 and so was every gradient of it before: what keeps
  // to that from the first step on stays zero.
  virtual void KeepZeros(const float* weights, const Moments& moments, size_t n,
                         float* gradients) = 0;
  // average = decay * average + (1 - decay) * weights.
  virtual void Average(float decay, const float* weights, size_t n, float* average) = 0;
};

// Computes on the pool's threads with the active kernels. The pool must outlive it.
std::unique_ptr<Ops> MakeCpuOps(ThreadPool* pool, Precision precision);

}  // namespace edgewise::train
