// Products of packed block-quantized weights with int8 activations, written once over the
// operations S of an instruction set. One activation row: weights go from memory through registers.
// More: 256 columns of 16 rows are unpacked into the first-level cache, then a tile of S::kTokens
// activation rows by 16 weight rows stays in registers.
//
// Operations, on registers of S::kBytes bytes = S::kLanes rows: Part adds up the products of
// S::kPartSteps<largest, is_signed> steps of 4 columns without overflow, Widen makes int32 of it.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/skeleton/packed_formats.h"

namespace edgewise::kernels {
namespace {

// Activation rows that pass through one unpacking: their share of a chunk fills half of a small
// second-level cache.
constexpr size_t kTokenBlock = 64;

// How far ahead weights are fetched that are read only once: some memory latencies.
constexpr size_t kPrefetchBytes = 1536;

// Up to 256 columns of 16 rows, unpacked.
struct Chunk {
  alignas(64) uint8_t q[64][kStepBytes];
  Scales scales;
};

template <class S>
constexpr size_t kPieces = kPackedRows / S::kLanes;  // registers that hold a value of 16 rows

// Steps whose products a Part holds, and the steps of a group.
template <class S, Traits T>
constexpr size_t kPart = S::template kPartSteps<T.largest, T.is_signed> < T.group / 4
                             ? S::template kPartSteps<T.largest, T.is_signed>
                             : T.group / 4;

// What the zero point of a group's weights takes off its dot product.
template <class S, Traits T>
inline typename S::Ints ZeroOffset(const ActQ8& act, size_t half) {
  return S::template SetShifted<T.zero_log2>(act.negated[(T.group == 32 ? 0 : 1) + half]);
}

// True where a Part is an Ints that holds a whole group: it then starts at the zero offset.
template <class S, Traits T>
constexpr bool kStartsAtZero = T.zero_log2 >= 0 && S::kPartIsInts && kPart<S, T> == T.group / 4;

template <class S, Traits T>
inline typename S::Part FirstPart(const ActQ8& act, size_t half) {
  if constexpr (kStartsAtZero<S, T>) return ZeroOffset<S, T>(act, half);
  return S::ZeroPart();
}

// sum + one group of products, rows of piece p: the one place where integers become floats.
template <class S, Traits T>
inline typename S::Floats AddGroup(typename S::Floats sum, typename S::Ints dot,
                                   const Scales& scales, size_t group, size_t p, const ActQ8& act,
                                   size_t half) {
  constexpr size_t kFirstSum = T.group == 32 ? 0 : 1;
  if constexpr (T.zero_log2 >= 0 && !kStartsAtZero<S, T>) {
    dot = S::AddInts(dot, ZeroOffset<S, T>(act, half));
  }
  sum = S::Fma(S::Mul(S::ToFloats(dot), S::Set(act.scale)),
               S::LoadFloats(scales.scale[group] + p * S::kLanes), sum);
  if constexpr (T.has_min) {
    sum = S::Fma(S::Set(act.sums[kFirstSum + half]),
                 S::LoadFloats(scales.min[group] + p * S::kLanes), sum);
  }
  return sum;
}

// ---- one activation row ----

// Adds columns 32 g on of one tile.
template <class S, class Format, int g>
[[gnu::always_inline]] inline void AddColumns(const uint8_t* tile, const Scales& scales,
                                              const ActQ8* x, typename S::Floats* sum) {
  constexpr Traits T = Format::kTraits;
  constexpr size_t kSteps = T.group / 4;
  constexpr size_t kBytes = kPackedRows * Format::kBlockBytes / (Format::kColumns / 32);
  if constexpr (g < static_cast<int>(Format::kColumns / 32)) {
    for (size_t at = 0; at < kBytes; at += 64) {
      __builtin_prefetch(tile + kPrefetchBytes + g * kBytes + at, 0, 3);
    }
    // Here and not at the start of the tile, where gcc would collect all of them: so many misses at
    // once would block the loads behind them.
    asm volatile("" ::: "memory");
#pragma GCC unroll 4
    for (size_t p = 0; p < kPieces<S>; ++p) {
      typename S::Bytes v[8];
      Format::template Values<g>(tile, p * S::kBytes, v);
#pragma GCC unroll 2
      for (size_t half = 0; half < 8 / kSteps; ++half) {
        typename S::Ints dot = {};
#pragma GCC unroll 8
        for (size_t first = half * kSteps; first < (half + 1) * kSteps; first += kPart<S, T>) {
          typename S::Part part = FirstPart<S, T>(x[g], half);
#pragma GCC unroll 8
          for (size_t s = first; s < first + kPart<S, T>; ++s) {
            part = S::template Step<T.is_signed>(part, v[s], S::Repeat(x[g].q + 4 * s));
          }
          dot = first == half * kSteps ? S::Widen(part) : S::AddInts(dot, S::Widen(part));
        }
        sum[p] = AddGroup<S, T>(sum[p], dot, scales, g * (32 / T.group) + half, p, x[g], half);
      }
    }
    AddColumns<S, Format, g + 1>(tile, scales, x, sum);
  }
}

template <class S, class Format>
void MultiplyOne(const uint8_t* tiles, size_t columns, const ActQ8* x, float* out) {
  typename S::Floats sum[kPieces<S>];
  for (size_t p = 0; p < kPieces<S>; ++p) sum[p] = S::Set(0);
  for (size_t b = 0; b < columns / Format::kColumns; ++b) {
    Scales scales;
    Format::Factors(tiles, 0, &scales);
    AddColumns<S, Format, 0>(tiles, scales, x, sum);
    tiles += kPackedRows * Format::kBlockBytes;
    x += Format::kColumns / 32;
  }
  for (size_t p = 0; p < kPieces<S>; ++p) S::StoreFloats(out + p * S::kLanes, sum[p]);
}

// ---- many activation rows ----

// The products of a register tile: a Step takes 4 * kPair columns of kPair activation rows. Here
// one by one; an instruction set that multiplies small matrices specializes this.
template <class S>
struct Tile : S {
  static constexpr size_t kPair = 1;
  // Puts unpacked steps in the order of Step: kPair steps of one piece become kPair operands.
  static void Arrange(typename S::Bytes*) {}
  // Columns c on of block b of kPair activation rows.
  static auto Activations(const ActQ8* const* x, size_t b, size_t c) {
    return S::Repeat(x[0][b].q + c);
  }
  // Of a piece's kPair Parts, kPieces<S> apart: the sums of activation row t of kPair.
  static typename S::Ints Widen(const typename S::Part* part, size_t) { return S::Widen(*part); }
};

template <class S, class Format, int g>
[[gnu::always_inline]] inline void UnpackColumns(const uint8_t* tile, uint8_t (*q)[kStepBytes]) {
  if constexpr (g < static_cast<int>(Format::kColumns / 32)) {
    for (size_t c = 0; c < kStepBytes; c += S::kBytes) {
      typename S::Bytes v[8];
      Format::template Values<g>(tile, c, v);
      Tile<S>::Arrange(v);
#pragma GCC unroll 8
      for (size_t s = 0; s < 8; ++s) S::Store(q[8 * g + s] + c, v[s]);
    }
    UnpackColumns<S, Format, g + 1>(tile, q);
  }
}

// A tile, by the format's own way where its rows cannot be unpacked side by side.
template <class S, class Format>
inline void Unpack(const uint8_t* tile, uint8_t (*q)[kStepBytes]) {
  if constexpr (requires { Format::Unpack(tile, q); }) {
    Format::Unpack(tile, q);
  } else {
    UnpackColumns<S, Format, 0>(tile, q);
  }
}

// The weights of the next chunk, fetched a few lines at a time: all at once they would fill the
// miss buffers, and the loads behind them would wait.
struct Fetch {
  const uint8_t* at;
  size_t lines;  // per block of 32 columns and tile

  void Some() {
    for (size_t i = 0; i < lines; ++i, at += 64) __builtin_prefetch(at, 0, 3);
  }
};

// Adds the products of N activation rows with one chunk to `sums`, one float per group of columns,
// in order: the result does not depend on N.
template <class S, Traits T, size_t N>
inline void AddTile(const Chunk& chunk, size_t blocks, const ActQ8* const* x,
                    float (*sums)[kPackedRows], Fetch* fetch) {
  using Floats = typename S::Floats;
  using Ints = typename S::Ints;
  constexpr size_t kSteps = T.group / 4, kPair = Tile<S>::kPair, kOperands = kPair * kPieces<S>;
  static_assert(N % kPair == 0 && kPart<S, T> % kPair == 0);
  Floats sum[N][kPieces<S>];
#pragma GCC unroll 16
  for (size_t t = 0; t < N; ++t) {
#pragma GCC unroll 4
    for (size_t p = 0; p < kPieces<S>; ++p) sum[t][p] = S::LoadFloats(sums[t] + p * S::kLanes);
  }
  for (size_t b = 0; b < blocks; ++b) {
    fetch->Some();
#pragma GCC unroll 2
    for (size_t half = 0; half < 8 / kSteps; ++half) {
      const size_t group = b * (32 / T.group) + half;
      const uint8_t* w = chunk.q[group * kSteps];
      Ints dot[N][kPieces<S>];
#pragma GCC unroll 8
      for (size_t first = 0; first < kSteps; first += kPart<S, T>) {
        typename S::Part part[N / kPair][kOperands];
#pragma GCC unroll 16
        for (size_t t = 0; t < N / kPair; ++t) {
#pragma GCC unroll 8
          for (size_t p = 0; p < kOperands; ++p) part[t][p] = FirstPart<Tile<S>, T>(x[t][b], half);
        }
#pragma GCC unroll 8
        for (size_t s = first; s < first + kPart<S, T>; s += kPair) {
          typename S::Bytes values[kOperands];
#pragma GCC unroll 8
          for (size_t p = 0; p < kOperands; ++p) {
            values[p] = S::Load(w + s * kStepBytes + p * S::kBytes);
          }
#pragma GCC unroll 16
          for (size_t t = 0; t < N / kPair; ++t) {
            const auto act = Tile<S>::Activations(x + t * kPair, b, T.group * half + 4 * s);
#pragma GCC unroll 8
            for (size_t p = 0; p < kOperands; ++p) {
              part[t][p] = Tile<S>::template Step<T.is_signed>(part[t][p], values[p], act);
            }
          }
        }
#pragma GCC unroll 16
        for (size_t t = 0; t < N; ++t) {
#pragma GCC unroll 4
          for (size_t p = 0; p < kPieces<S>; ++p) {
            const Ints wide = Tile<S>::Widen(part[t / kPair] + p, t % kPair);
            dot[t][p] = first == 0 ? wide : S::AddInts(dot[t][p], wide);
          }
        }
      }
#pragma GCC unroll 16
      for (size_t t = 0; t < N; ++t) {
#pragma GCC unroll 4
        for (size_t p = 0; p < kPieces<S>; ++p) {
          sum[t][p] =
              AddGroup<Tile<S>, T>(sum[t][p], dot[t][p], chunk.scales, group, p, x[t][b], half);
        }
      }
    }
  }
#pragma GCC unroll 16
  for (size_t t = 0; t < N; ++t) {
#pragma GCC unroll 4
    for (size_t p = 0; p < kPieces<S>; ++p) S::StoreFloats(sums[t] + p * S::kLanes, sum[t][p]);
  }
}

// Adds as many tiles of N activation rows as fit `count`, from row *j on; where rows go by pairs,
// an odd last one is its own partner.
template <class S, Traits T, size_t N>
inline void AddTiles(const Chunk& chunk, size_t blocks, const char* x, size_t x_stride,
                     size_t count, size_t* j, float (*sums)[kPackedRows], Fetch* fetch) {
  for (; *j + N < count + Tile<S>::kPair; *j += N) {
    const ActQ8* rows[N];
    for (size_t t = 0; t < N; ++t) {
      const size_t beyond = Tile<S>::kPair > 1 && *j + t == count;
      rows[t] = reinterpret_cast<const ActQ8*>(x + (*j + t - beyond) * x_stride);
    }
    AddTile<S, T, N>(chunk, blocks, rows, sums + *j, fetch);
  }
}

// 16 weight rows with `count` activation rows from `x` on. Writes `sums` to a multiple of kPair.
template <class S, class Format>
void MultiplyMany(const uint8_t* tiles, size_t columns, const char* x, size_t x_stride,
                  size_t count, float (*sums)[kPackedRows]) {
  constexpr Traits T = Format::kTraits;
  constexpr size_t kPerChunk = 256 / Format::kColumns, kPair = Tile<S>::kPair;
  Chunk chunk;
  memset(sums, 0, (count + kPair - 1) / kPair * kPair * sizeof(sums[0]));
  for (size_t left = columns / Format::kColumns; left > 0;) {
    const size_t here = left < kPerChunk ? left : kPerChunk;
    for (size_t k = 0; k < here; ++k) {
      Unpack<S, Format>(tiles, chunk.q + k * Format::kColumns / 4);
      Format::Factors(tiles, k, &chunk.scales);
      tiles += kPackedRows * Format::kBlockBytes;
    }
    const size_t blocks = here * Format::kColumns / 32;
    const size_t tiles_of_rows = (count + S::kTokens - 1) / S::kTokens;
    constexpr size_t kLines = kPerChunk * kPackedRows * Format::kBlockBytes / 64;
    Fetch fetch = {tiles, (kLines + tiles_of_rows * blocks - 1) / (tiles_of_rows * blocks)};
    size_t j = 0;
    AddTiles<S, T, S::kTokens>(chunk, blocks, x, x_stride, count, &j, sums, &fetch);
    if constexpr (S::kTokens > 4)
      AddTiles<S, T, 4>(chunk, blocks, x, x_stride, count, &j, sums, &fetch);
    if constexpr (S::kTokens > 2)
      AddTiles<S, T, 2>(chunk, blocks, x, x_stride, count, &j, sums, &fetch);
    if constexpr (kPair == 1)
      AddTiles<S, T, 1>(chunk, blocks, x, x_stride, count, &j, sums, &fetch);
    x += blocks * sizeof(ActQ8);
    left -= here;
  }
}

// Writes the sums of 16 weight rows, from row i on, and `count` activation rows, from row j on.
inline void CopySums(const float (*sums)[kPackedRows], size_t count, const LinearArgs& a, size_t i,
                     size_t j) {
  float* y = a.y + j * a.y_stride + i;
  if (a.rows - i >= kPackedRows) {  // a size that the compiler knows
    for (size_t t = 0; t < count; ++t) memcpy(y + t * a.y_stride, sums[t], sizeof(sums[t]));
  } else {
    for (size_t t = 0; t < count; ++t) {
      memcpy(y + t * a.y_stride, sums[t], (a.rows - i) * sizeof(float));
    }
  }
}

// Products of 16 weight rows with one activation row and with up to kTokenBlock.
using MultiplyOneFn = void (*)(const uint8_t* tiles, size_t columns, const ActQ8* x, float* out);
using MultiplyManyFn = void (*)(const uint8_t* tiles, size_t columns, const char* x,
                                size_t x_stride, size_t count, float (*sums)[kPackedRows]);

template <MultiplyOneFn kOne, MultiplyManyFn kMany>
void MultiplyRows(const LinearArgs& a) {
  alignas(64) float sums[kTokenBlock][kPackedRows];
  for (size_t j = 0; j < a.n; j += kTokenBlock) {
    const size_t count = a.n - j < kTokenBlock ? a.n - j : kTokenBlock;
    const char* x = static_cast<const char*>(a.x) + j * a.x_stride;
    for (size_t i = 0; i < a.rows; i += kPackedRows) {
      const uint8_t* tiles = static_cast<const uint8_t*>(a.w) + i * a.w_stride;
      if (count == 1) {
        kOne(tiles, a.columns, reinterpret_cast<const ActQ8*>(x), sums[0]);
      } else {
        kMany(tiles, a.columns, x, a.x_stride, count, sums);
      }
      CopySums(sums, count, a, i, j);
    }
  }
}

template <class S, template <class> class Format>
void LinearPacked(const LinearArgs& a) {
  MultiplyRows<MultiplyOne<S, Format<S>>, MultiplyMany<S, Format<S>>>(a);
}

// Twelve independent chains hide the latency of a product.
template <class S>
uint64_t Int8Products(uint64_t rounds) {
  constexpr size_t kChains = 12;
  alignas(64) uint8_t weights[64] = {};
  alignas(64) ActQ8 act = {};
  const ActQ8* const acts[] = {&act, &act};
  asm volatile("" ::"r"(weights), "r"(&act) : "memory");  // unknown values, as far as gcc can see
  typename S::Bytes w = S::Load(weights);
  typename S::Part part[kChains];
#pragma GCC unroll 12
  for (size_t c = 0; c < kChains; ++c) part[c] = S::ZeroPart();
  for (uint64_t i = 0; i < rounds; ++i) {
    const auto x = Tile<S>::Activations(acts, 0, 0);
#pragma GCC unroll 12
    for (size_t c = 0; c < kChains; ++c) {
      S::Forget(w);  // or one product would do for all chains
      part[c] = Tile<S>::template Step<false>(part[c], w, x);
    }
  }
  typename S::Part kept[kChains];
#pragma GCC unroll 12
  for (size_t c = 0; c < kChains; ++c) kept[c] = part[c];
  asm volatile("" ::"r"(kept) : "memory");
  return rounds * kChains * S::kBytes * Tile<S>::kPair * 2;
}

template <class S>
constexpr void SetPackedKernels(Kernels* t) {
  t->int8_products = Int8Products<S>;
  const auto set = [t](DType type, void (*run)(const LinearArgs&)) {
    t->linear[static_cast<int>(type)] = {ActFormat::kQ8, run};
  };
  set(DType::kQ4_0, LinearPacked<S, PackedQ4_0>);
  set(DType::kQ4_1, LinearPacked<S, PackedQ4_1>);
  set(DType::kQ5_0, LinearPacked<S, PackedQ5_0>);
  set(DType::kQ5_1, LinearPacked<S, PackedQ5_1>);
  set(DType::kQ8_0, LinearPacked<S, PackedQ8_0>);
  set(DType::kIQ4_NL, LinearPacked<S, PackedIQ4_NL>);
  set(DType::kQ2_K, LinearPacked<S, PackedQ2_K>);
  set(DType::kQ3_K, LinearPacked<S, PackedQ3_K>);
  set(DType::kQ4_K, LinearPacked<S, PackedQ4_K>);
  set(DType::kQ5_K, LinearPacked<S, PackedQ5_K>);
  set(DType::kQ6_K, LinearPacked<S, PackedQ6_K>);
  set(DType::kIQ4_XS, LinearPacked<S, PackedIQ4_XS>);
}

}  // namespace
}  // namespace edgewise::kernels
