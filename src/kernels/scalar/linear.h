// Matrix products, plain C++. Each weight block is unpacked once for up to 8 activation rows.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/half.h"
#include "kernels/kernels.h"
#include "kernels/scalar/formats.h"
#include "quant/blocks.h"
#include "quant/packed_layout.h"

namespace edgewise::kernels {
namespace {

constexpr size_t kRowsPerPass = 8;

inline const char* Row(const void* base, size_t stride, size_t i) {
  return static_cast<const char*>(base) + i * stride;
}

// ---- block formats: packed rows are taken apart again; one float is added per 32 values, in
// order, whatever n is ----

inline float DotBlock(const Unpacked32& w, const ActQ8* x) {
  int32_t sum = 0;
  for (int i = 0; i < 32; ++i) sum += w.q[i] * x->q[i];
  return w.d * x->scale * static_cast<float>(sum) + w.m * x->sums[0];
}

inline float DotBlock(const Unpacked64& w, const ActQ8* x) {
  float total = 0;
  for (int h = 0; h < 2; ++h) {
    int32_t sum = 0;
    for (int i = 0; i < 32; ++i) sum += w.q[32 * h + i] * x[h].q[i];
    total += w.d * x[h].scale * static_cast<float>(sum);
  }
  return total;
}

inline float DotBlock(const Unpacked256& w, const ActQ8* x) {
  float total = 0;
  for (int g = 0; g < 16; ++g) {
    const ActQ8& act = x[g / 2];
    int32_t sum = 0;
    for (int i = 0; i < 16; ++i) sum += w.q[16 * g + i] * act.q[16 * (g % 2) + i];
    total += act.scale * (w.d * static_cast<float>(w.scale[g] * sum)) -
             w.dmin * static_cast<float>(w.min[g]) * act.sums[1 + g % 2];
  }
  return total;
}

// Collects the block of one row from a tile.
template <class Block>
inline Block ReadBlock(const PackedLayout& layout, const char* tile, size_t row) {
  Block block;
  char* out = reinterpret_cast<char*>(&block);
  for (const PackedField& field : layout.fields) {
    for (size_t u = 0; u * field.unit < field.bytes; ++u) {
      memcpy(out + field.offset + u * field.unit, tile + (kPackedRows * u + row) * field.unit,
             field.unit);
    }
    tile += kPackedRows * field.bytes;
  }
  return block;
}

template <DType kType, class Format, class Unpacked, size_t kBlock>
void LinearBlocks(const LinearArgs& a) {
  using Block = typename Format::Block;
  constexpr PackedLayout kLayout = PackedLayoutOf(kType);
  const size_t blocks = a.columns / kBlock;
  for (size_t i = 0; i < a.rows; ++i) {
    const char* group = Row(a.w, a.w_stride, i / kPackedRows * kPackedRows);
    for (size_t j0 = 0; j0 < a.n; j0 += kRowsPerPass) {
      const size_t count = a.n - j0 < kRowsPerPass ? a.n - j0 : kRowsPerPass;
      float sum[kRowsPerPass] = {};
      for (size_t b = 0; b < blocks; ++b) {
        Unpacked unpacked;
        Format::Unpack(
            ReadBlock<Block>(kLayout, group + b * kPackedRows * sizeof(Block), i % kPackedRows),
            &unpacked);
        for (size_t t = 0; t < count; ++t) {
          const auto* x = reinterpret_cast<const ActQ8*>(Row(a.x, a.x_stride, j0 + t));
          sum[t] += DotBlock(unpacked, x + b * kBlock / 32);
        }
      }
      for (size_t t = 0; t < count; ++t) a.y[(j0 + t) * a.y_stride + i] = sum[t];
    }
  }
}

template <DType kType, class Format>
void LinearBlocks32(const LinearArgs& a) {
  LinearBlocks<kType, Format, Unpacked32, 32>(a);
}

template <DType kType, class Format>
void LinearBlocks64(const LinearArgs& a) {
  LinearBlocks<kType, Format, Unpacked64, 64>(a);
}

template <DType kType, class Format>
void LinearBlocks256(const LinearArgs& a) {
  LinearBlocks<kType, Format, Unpacked256, 256>(a);
}

// ---- float formats ----

template <class T>
inline T ReadAt(const char* p, size_t index) {
  T value;
  memcpy(&value, p + index * sizeof(T), sizeof(T));
  return value;
}

// Each gives the value at a column of a row.
struct F32Weights {
  static float Load(const char* row, size_t c) { return ReadAt<float>(row, c); }
};
struct F16Weights {
  static float Load(const char* row, size_t c) { return HalfToFloat(ReadAt<uint16_t>(row, c)); }
};
struct Bf16Weights {
  static float Load(const char* row, size_t c) { return Bf16ToFloat(ReadAt<uint16_t>(row, c)); }
};
template <float (*Convert)(uint16_t)>
struct S24Weights {
  static float Load(const char* row, size_t c) {
    const auto block = ReadAt<BlockS24_F16>(row, c / 16);
    const size_t four = c % 16 / 4;
    const unsigned at = block.at[four / 2] >> (4 * (four % 2));
    if ((at >> 2 & 3) == c % 4) return Convert(block.kept[2 * four + 1]);
    return (at & 3) == c % 4 ? Convert(block.kept[2 * four]) : 0;
  }
};

// 16 running sums: shorter chains of rounding, and the compiler can keep them in vectors.
struct Sums {
  float lane[16] = {};
  float Total() const {
    float half[8];
    for (int l = 0; l < 8; ++l) half[l] = lane[l] + lane[l + 8];
    for (int l = 0; l < 4; ++l) half[l] += half[l + 4];
    return (half[0] + half[2]) + (half[1] + half[3]);
  }
};

// Every row of x passes through the same chunks of 256 columns, decoded once per pass of 8 rows.
template <class Weights>
void LinearFloat(const LinearArgs& a) {
  constexpr size_t kChunk = 256;
  float decoded[kChunk];
  for (size_t i = 0; i < a.rows; ++i) {
    const char* w = Row(a.w, a.w_stride, i);
    for (size_t j0 = 0; j0 < a.n; j0 += kRowsPerPass) {
      const size_t count = a.n - j0 < kRowsPerPass ? a.n - j0 : kRowsPerPass;
      Sums sums[kRowsPerPass];
      for (size_t c0 = 0; c0 < a.columns; c0 += kChunk) {
        const size_t width = a.columns - c0 < kChunk ? a.columns - c0 : kChunk;
        for (size_t c = 0; c < width; ++c) decoded[c] = Weights::Load(w, c0 + c);
        for (size_t t = 0; t < count; ++t) {
          const float* x = reinterpret_cast<const float*>(Row(a.x, a.x_stride, j0 + t)) + c0;
          size_t c = 0;
          for (; c + 16 <= width; c += 16) {
            for (size_t l = 0; l < 16; ++l) sums[t].lane[l] += decoded[c + l] * x[c + l];
          }
          for (size_t l = 0; c < width; ++c, ++l) sums[t].lane[l] += decoded[c] * x[c];
        }
      }
      for (size_t t = 0; t < count; ++t) a.y[(j0 + t) * a.y_stride + i] = sums[t].Total();
    }
  }
}

uint64_t Int8Products(uint64_t rounds) {
  constexpr size_t kLanes = 16;
  int8_t weights[kLanes] = {1};
  int32_t sums[kLanes] = {};
  for (uint64_t i = 0; i < rounds; ++i) {
    asm volatile("" ::"r"(weights) : "memory");  // as far as the compiler knows, other weights
    for (size_t l = 0; l < kLanes; ++l) sums[l] += weights[l] * 3;
  }
  int32_t kept[kLanes];
  for (size_t l = 0; l < kLanes; ++l) kept[l] = sums[l];
  asm volatile("" ::"r"(kept) : "memory");
  return rounds * kLanes * 2;
}

float DotF32(const float* a, const float* b, size_t n) {
  Sums sums;
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (size_t l = 0; l < 16; ++l) sums.lane[l] += a[i + l] * b[i + l];
  }
  for (size_t l = 0; i < n; ++i, ++l) sums.lane[l] += a[i] * b[i];
  return sums.Total();
}

}  // namespace
}  // namespace edgewise::kernels
