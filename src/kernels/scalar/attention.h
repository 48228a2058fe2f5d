// Attention with an online softmax, plain C++: one query at a time over blocks of keys that start
// at multiples of 32.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/half.h"
#include "kernels/kernels.h"
#include "kernels/scalar/linear.h"
#include "quant/blocks.h"

namespace edgewise::kernels {
namespace {

// The code of element i of a block.
inline float Nibble(const uint8_t* qs, size_t i) {
  return static_cast<float>(qs[i % 16] >> (i % 32 / 16 * 4) & 15);
}

// Reads column c of key `slot` of a block.
inline float KeyColumn(KvFormat format, const char* block, size_t slot, size_t c) {
  switch (format) {
    case KvFormat::kF32:
      return F32Weights::Load(block, c * kKeyBlock + slot);
    case KvFormat::kF16:
      return F16Weights::Load(block, c * kKeyBlock + slot);
    case KvFormat::kQ8_0: {
      const char* group = block + c / 32 * kKeyBlock * sizeof(BlockQ8_0);
      const char* q = group + 2 * kKeyBlock + c % 32 * kKeyBlock + slot;
      return F16Weights::Load(group, slot) *
             static_cast<float>(*reinterpret_cast<const int8_t*>(q));
    }
    case KvFormat::kQ4_0: {
      const auto& column = reinterpret_cast<const BlockQ4_1*>(block)[c];
      return HalfToFloat(column.d) * Nibble(column.qs, slot) + HalfToFloat(column.m);
    }
  }
  return 0;
}

// Reads column c of a stored value.
inline float ValueColumn(KvFormat format, const char* row, size_t c) {
  switch (format) {
    case KvFormat::kF32:
      return F32Weights::Load(row, c);
    case KvFormat::kF16:
      return F16Weights::Load(row, c);
    case KvFormat::kQ8_0: {
      const auto& block = reinterpret_cast<const BlockQ8_0*>(row)[c / 32];
      return HalfToFloat(block.d) * static_cast<float>(block.qs[c % 32]);
    }
    case KvFormat::kQ4_0: {
      const auto& block = reinterpret_cast<const BlockQ4_1*>(row)[c / 32];
      return HalfToFloat(block.d) * Nibble(block.qs, c) + HalfToFloat(block.m);
    }
  }
  return 0;
}

// Of a query at position `end` - 1.
inline float Score(const AttendArgs& a, const float* q, size_t key, size_t end) {
  const bool recent = a.format == KvFormat::kQ4_0 && key / kKeyBlock == (end - 1) / kKeyBlock;
  const KvFormat format = recent ? KvFormat::kF16 : a.format;
  const char* block = recent ? Row(a.recent, a.recent_stride, key % a.recent_slots / kKeyBlock)
                             : Row(a.k, a.k_stride, key % a.slots / kKeyBlock);
  Sums sums;
  for (size_t c = 0; c < a.head_dim; ++c)
    sums.lane[c % 16] += q[c] * KeyColumn(format, block, key % kKeyBlock, c);
  const float score = sums.Total() * a.scale;
  return a.softcap > 0 ? a.softcap * tanhf(score / a.softcap) : score;
}

void AttendOne(const AttendArgs& a, const float* q, size_t first, size_t end, float* out) {
  float largest = -INFINITY, total = 0;
  for (size_t c = 0; c < a.head_dim; ++c) out[c] = 0;
  for (size_t t = first; t < end;) {
    const size_t next = (t / kKeyBlock + 1) * kKeyBlock;
    const size_t count = (next < end ? next : end) - t;
    float p[kKeyBlock];
    float block_largest = largest;
    for (size_t s = 0; s < count; ++s) {
      p[s] = Score(a, q, t + s, end);
      block_largest = p[s] > block_largest ? p[s] : block_largest;
    }
    const float correction = expf(largest - block_largest);
    largest = block_largest;
    total *= correction;
    for (size_t s = 0; s < count; ++s) {
      p[s] = expf(p[s] - largest);
      total += p[s];
    }
    for (size_t c = 0; c < a.head_dim; ++c) out[c] *= correction;
    for (size_t s = 0; s < count; ++s) {
      const char* v = Row(a.v, a.v_stride, (t + s) % a.slots);
      for (size_t c = 0; c < a.head_dim; ++c) out[c] += p[s] * ValueColumn(a.format, v, c);
    }
    t += count;
  }
  for (size_t c = 0; c < a.head_dim; ++c) out[c] /= total;
}

void Attend(const AttendArgs& a) {
  for (size_t i = 0; i < a.n; ++i) {
    for (size_t h = 0; h < a.heads; ++h) {
      AttendOne(a, a.q + i * a.q_stride + h * a.head_dim, a.first_key[i], a.end_key[i],
                a.out + i * a.out_stride + h * a.head_dim);
    }
  }
}

}  // namespace
}  // namespace edgewise::kernels
