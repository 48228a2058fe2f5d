// The kernel table: every inner loop the runtime calls, chosen once for this CPU, on plain
// pointers. All functions are thread-safe and accept any size and, for weights, keys and values,
// any address. Per output element the order of additions is fixed: results do not depend on how
// work is split.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/gemm.h"
#include "quant/dtype_id.h"

namespace edgewise::kernels {

// How activations are laid out for a matrix product. Rows are multiples of the block; the buffer is
// 64-byte aligned.
enum class ActFormat : uint8_t {
  kF32,  // floats
  kQ8,   // ActQ8 of quant/blocks.h: per 32 values a float scale and int8 values
};

// Bytes of one row of `columns` activations.
size_t ActRowBytes(ActFormat format, size_t columns);

// y[j * y_stride + i] = dot(row i of w, row j of x), 0 <= i < rows, 0 <= j < n.
struct LinearArgs {
  const void* w;    // (rows, columns), rows w_stride bytes apart. Block formats: packed
                    // (quant/packed_layout.h), groups of 16 rows 16 * w_stride bytes apart
  size_t w_stride;  // bytes
  size_t rows;
  size_t columns;   // a multiple of the weight format's block
  const void* x;    // (n, columns) in the kernel's ActFormat, rows x_stride bytes apart
  size_t x_stride;  // bytes
  size_t n;
  float* y;         // (n, rows)
  size_t y_stride;  // floats
};
struct LinearKernel {
  ActFormat act = ActFormat::kF32;
  void (*run)(const LinearArgs& args) = nullptr;  // null: no kernel for this weight format
};

enum class KvFormat : uint8_t { kF32, kF16, kQ8_0, kQ4_0 };
// Bytes of one head's value of `head_dim` columns: F32, F16, or for each 32 columns a BlockQ8_0
// (Q8_0) or BlockQ4_1 (Q4_0); 0 when these cannot hold that many.
size_t KvRowBytes(KvFormat format, size_t head_dim);

// Keys are cached in blocks of 32 positions with a head's columns outermost, so that attention
// reads one column of many keys as a vector: (head_dim, 32) values of F32 or F16; Q8_0: for each 32
// columns 32 half scales, one per key, then (32, 32) int8; Q4_0: head_dim of BlockQ4_1, a column
// each, as outliers of keys keep to columns (KIVI, Liu et al. 2024).
inline constexpr size_t kKeyBlock = 32;
// Bytes of such a block of one head.
size_t KeyBlockBytes(KvFormat format, size_t head_dim);

// Attention of the query heads that share one key/value head, online softmax over key blocks (Dao
// 2022, Milakov 2018): out_ih = sum_t softmax_t(scale * q_ih . k_t) v_t over first_key[i] <= t <
// end_key[i].
struct AttendArgs {
  const float* q;  // (n, heads, head_dim), queries q_stride floats apart
  size_t n;
  size_t heads;
  size_t q_stride;
  size_t head_dim;
  const void* k;    // key t is in the block at k + t % slots / 32 * k_stride
  const void* v;    // value t at v + t % slots * v_stride
  size_t k_stride;  // bytes
  size_t v_stride;
  size_t slots;  // a multiple of 32
  KvFormat format;
  const uint32_t* first_key;  // (n)
  const uint32_t* end_key;    // (n), > first_key, ascending; the query stands at the key before
  // Q4_0 only: the latest blocks of keys in F16. A query sees those of its own block here and all
  // before in k, so that what it sees depends on nothing that comes after it.
  const void* recent;    // key t is in the block at recent + t % recent_slots / 32 * recent_stride
  size_t recent_stride;  // bytes
  size_t recent_slots;   // a multiple of 32
  float scale;
  float softcap;  // > 0: score = softcap * tanh(score / softcap), before the softmax
  float* out;     // (n, heads, head_dim), queries out_stride floats apart
  size_t out_stride;
};

// AdamW (Loshchilov and Hutter 2019): with g the gradient times gradient_scale,
//   m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2,
//   w = keep w - learning_rate correct1 m / (sqrt(correct2 v) + eps).
struct AdamWArgs {
  float beta1, beta2, eps;
  float gradient_scale;
  float correct1, correct2;  // 1 / (1 - beta^t), of step t
  float learning_rate;
  float keep;  // 1 less learning rate times weight decay
};

// A null entry means "no faster version here"; Select fills it from the level below. Scalar has
// every entry.
struct Kernels {
  const char* name = nullptr;

  LinearKernel linear[kDTypeCount] = {};  // by weight DType; F32, F16, BF16 take kF32 activations
  GemmKernel gemm_f32;                    // of float factors
  GemmKernel gemm_bf16;                   // of float factors rounded to BF16
  // n values, a multiple of 32. NaN and infinity make the scale of their block not finite.
  void (*quantize_q8)(const float* x, void* blocks, size_t n) = nullptr;
  float (*dot_f32)(const float* a, const float* b, size_t n) = nullptr;

  // Norms, in double precision inside. y may be x; weight may be null (ones), bias may be null.
  void (*rms_norm)(const float* x, const float* weight, float* y, size_t n, float eps) = nullptr;
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float* y, size_t n,
                     float eps) = nullptr;

  // Rotates the first rotary_dim values of each of `heads` heads in place, in pairs (2i, 2i + 1) or
  // (i, i + rotary_dim / 2). cos, sin: (rotary_dim / 2), of this position.
  void (*rope_interleaved)(float* x, const float* cos, const float* sin, size_t heads,
                           size_t head_dim, size_t rotary_dim) = nullptr;
  void (*rope_neox)(float* x, const float* cos, const float* sin, size_t heads, size_t head_dim,
                    size_t rotary_dim) = nullptr;

  // Multiplies each head by the orthonormal Hadamard matrix of the largest power of two that
  // divides head_dim, block by block; applying it twice changes nothing but the rounding.
  void (*hadamard)(float* x, size_t heads, size_t head_dim) = nullptr;

  // y = gate * sigmoid(gate) * up; y = gelu(gate) * up in the tanh form. y may be gate or up.
  void (*silu_mul)(const float* gate, const float* up, float* y, size_t n) = nullptr;
  void (*gelu_tanh_mul)(const float* gate, const float* up, float* y, size_t n) = nullptr;
  void (*add)(const float* x, float* y, size_t n) = nullptr;            // y += x
  void (*scale)(float factor, float* y, size_t n) = nullptr;            // y *= factor
  void (*softcap)(float cap, float* y, size_t n) = nullptr;             // y = cap * tanh(y / cap)
  void (*f32_to_f16)(const float* x, uint16_t* y, size_t n) = nullptr;  // to nearest even
  void (*attend)(const AttendArgs& args) = nullptr;
  // Multiplies int8 in registers for `rounds` rounds with the instructions of the matrix kernels,
  // and returns the operations done (a product and a sum are two): their peak, nothing else.
  uint64_t (*int8_products)(uint64_t rounds) = nullptr;
  // log(sum exp(x)), stable: float terms, double sum; -infinity when n is 0.
  double (*log_sum_exp)(const float* x, size_t n) = nullptr;
  // Replaces x by softmax(x) and returns its log_sum_exp, in the same precision; for training,
  // where the cross-entropy of a target is that less the target's x, and its gradient is softmax(x)
  // less one at the target.
  double (*softmax)(float* x, size_t n) = nullptr;
  void (*exp)(const float* x, float* y, size_t n) = nullptr;  // y may be x
  double (*sum_squares)(const float* x, size_t n) = nullptr;  // in double precision
  // A step of AdamW for n values, in place but for the gradients.
  void (*adamw)(const AdamWArgs& args, const float* gradients, float* mean, float* variance,
                float* weights, size_t n) = nullptr;
};

// Stores one head's value in `format` at `dst`; `n` as for KvRowBytes. What is not finite makes the
// scale of its block NaN, so that logits show it.
void StoreValue(const Kernels& kernels, KvFormat format, const float* x, void* dst, size_t n);
// Stores one head's key as number `slot` < 32 of a block, not in Q4_0.
void StoreKey(const Kernels& kernels, KvFormat format, const float* x, void* block, size_t slot,
              size_t n);
// Rounds a full block of keys in F16 to one in Q4_0, with a scale and an offset for each column.
void RoundKeys(const void* f16_block, void* q4_0_block, size_t head_dim);

// The table for this CPU, or for the level named in EDGEWISE_ISA. CheckIsa must have succeeded
// once.
const Kernels& Active();

// Null when EDGEWISE_ISA is unset or names a level that runs here; otherwise a message listing
// those that do.
const char* CheckIsa();

// The tables this CPU can run, slowest (scalar) first, entries filled: for tests, which compare all
// to the first, and `doctor`.
struct KernelList {
  const Kernels* items;
  size_t size;
};
KernelList Available();

}  // namespace edgewise::kernels
