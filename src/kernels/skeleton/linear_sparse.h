// Products of packed 2:4 sparse weights with int8 activations, written once over the operations S
// of skeleton/linear_packed.h. 16 activations stand in every 128 bits of a register, and one
// shuffle by the positions of the kept weights brings those that 4 weights of a row meet: a step
// of 4 weights takes 8 columns. Zeros are neither stored nor multiplied.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/skeleton/linear_packed.h"
#include "kernels/skeleton/packed_formats.h"
#include "quant/blocks.h"

namespace edgewise::kernels {
namespace {

constexpr size_t kSparseColumns = 64, kSparseSteps = 4;  // of a block; of 32 columns
template <class S>
constexpr size_t kSparsePart = S::template kPartSteps<255, true> < kSparseSteps
                                   ? S::template kPartSteps<255, true>
                                   : kSparseSteps;  // steps whose products a Part holds

// As kPrefetchBytes: a line of sparse weights takes longer to multiply than one of dense ones, and
// fetching it earlier gained some percent.
constexpr size_t kSparsePrefetchBytes = 2560;

// Activation rows in a register tile: a third register each for the half of a block.
template <class S>
constexpr size_t kSparseTokens = S::kTokens > 8 ? 8 : S::kTokens;

// Each format gives, for 32 columns of a tile,
//   Values: the 4 steps of kept weights as int8, rows from byte c of a step on, times kUnit.

template <class S>
struct PackedS24_Q4 {
  static constexpr size_t kBlockBytes = sizeof(BlockS24_Q4);
  static constexpr float kUnit = 16;  // a nibble stays where its sign is
  static void Values(const uint8_t* qs, size_t c, typename S::Bytes* v) {
#pragma GCC unroll 2
    for (size_t u = 0; u < 2; ++u) {
      const typename S::Bytes raw = S::Load(qs + u * kStepBytes + c);
      v[2 * u] = S::And(S::template ShiftLeft<4>(raw), S::Splat(-16));
      v[2 * u + 1] = S::And(raw, S::Splat(-16));
    }
  }
};

template <class S>
struct PackedS24_Q8 {
  static constexpr size_t kBlockBytes = sizeof(BlockS24_Q8);
  static constexpr float kUnit = 1;
  static void Values(const uint8_t* qs, size_t c, typename S::Bytes* v) {
#pragma GCC unroll 4
    for (size_t s = 0; s < 4; ++s) v[s] = S::Load(qs + s * kStepBytes + c);
  }
};

// A tile: 16 halves, then twice the positions and the values of 32 columns.
template <class Format>
constexpr size_t kHalfTile = kPackedRows * (Format::kBlockBytes - 2) / 2;
template <class Format>
inline const uint8_t* HalfTile(const uint8_t* tile, size_t h) {
  return tile + 2 * kPackedRows + h * kHalfTile<Format>;
}

template <class S, class Format>
inline void SparseFactors(const uint8_t* tile, float* scale) {
  for (size_t r = 0; r < kPackedRows; r += S::kLanes) {
    const typename S::Floats unit = S::Set(1 / Format::kUnit);
    S::StoreFloats(scale + r, S::Mul(S::FromHalves(tile + 2 * r), unit));
  }
}

// Where the activations of a step stand among 16, from the positions in their groups of four.
template <class S, size_t s>
inline typename S::Bytes Index(typename S::Bytes positions) {
  static constexpr int8_t kFirst[2][16] = {
      {0, 0, 4, 4, 0, 0, 4, 4, 0, 0, 4, 4, 0, 0, 4, 4},
      {8, 8, 12, 12, 8, 8, 12, 12, 8, 8, 12, 12, 8, 8, 12, 12}};
  const typename S::Bytes in_group = S::And(S::template ShiftRight<2 * s>(positions), S::Splat(3));
  return S::Or(in_group, S::Repeat16(kFirst[s % 2]));
}

template <class S>
inline void Indices(const uint8_t* positions, typename S::Bytes* index) {
  const typename S::Bytes p = S::Load(positions);
  index[0] = Index<S, 0>(p);
  index[1] = Index<S, 1>(p);
  index[2] = Index<S, 2>(p);
  index[3] = Index<S, 3>(p);
}

// 16 activations. Where products take one unsigned operand it is these, with 128 added: what that
// adds to a sum depends on the weights alone.
template <class S>
inline typename S::Bytes Sixteen(const int8_t* x) {
  return Signed<S>(S::Repeat16(x));
}

template <class S>
inline typename S::Part SparseStep(typename S::Part part, typename S::Bytes w,
                                   typename S::Bytes sixteen, typename S::Bytes index) {
  const typename S::Bytes x = S::Shuffle(sixteen, index);
  if constexpr (S::kBiased) return S::template Step<false>(part, x, w);
  return S::template Step<true>(part, w, x);
}

// What the 128 adds to the sums of 32 columns.
template <class S>
inline typename S::Ints BiasOf(const typename S::Bytes* v) {
  typename S::Ints bias = {};
  for (size_t s = 0; s < kSparseSteps; ++s) {
    bias = S::template Step<false>(bias, S::Splat(-128), v[s]);
  }
  return bias;
}

// Adds one half of a block to what the other gave, before the weights' scale.
template <class S, size_t h>
inline typename S::Floats AddHalf(typename S::Floats other, typename S::Ints dot, const ActQ8* x) {
  const typename S::Floats scale = S::Set(x[h].scale);
  return h == 0 ? S::Mul(S::ToFloats(dot), scale) : S::Fma(S::ToFloats(dot), scale, other);
}

// ---- one activation row ----

// The products of 32 columns, rows from byte c of a step on.
template <class S, class Format>
inline typename S::Ints DotHalf(const uint8_t* half, size_t c, const ActQ8& x) {
  typename S::Bytes index[kSparseSteps], v[kSparseSteps];
  Indices<S>(half + c, index);
  Format::Values(half + kStepBytes, c, v);
  typename S::Ints dot = {};
#pragma GCC unroll 4
  for (size_t first = 0; first < kSparseSteps; first += kSparsePart<S>) {
    typename S::Part part = S::ZeroPart();
#pragma GCC unroll 4
    for (size_t s = first; s < first + kSparsePart<S>; ++s) {
      part = SparseStep<S>(part, v[s], Sixteen<S>(x.q + s / 2 * 16), index[s]);
    }
    dot = first == 0 ? S::Widen(part) : S::AddInts(dot, S::Widen(part));
  }
  if constexpr (S::kBiased) dot = S::SubInts(dot, BiasOf<S>(v));
  return dot;
}

template <class S, class Format>
void MultiplyOneSparse(const uint8_t* tile, size_t columns, const ActQ8* x, float* out) {
  constexpr size_t kTile = kPackedRows * Format::kBlockBytes;
  typename S::Floats sum[kPieces<S>], block[kPieces<S>] = {};
  for (size_t p = 0; p < kPieces<S>; ++p) sum[p] = S::Set(0);
  for (size_t b = 0; b < columns / kSparseColumns; ++b, tile += kTile, x += 2) {
    const auto prefetch = [tile](size_t h) {
      for (size_t at = 0; at < kTile / 2; at += 64) {
        __builtin_prefetch(tile + kSparsePrefetchBytes + h * (kTile / 2) + at, 0, 3);
      }
      asm volatile("" ::: "memory");  // as in AddColumns
    };
    float scale[kPackedRows];
    SparseFactors<S, Format>(tile, scale);
    prefetch(0);
#pragma GCC unroll 4
    for (size_t p = 0; p < kPieces<S>; ++p) {
      const auto dot = DotHalf<S, Format>(HalfTile<Format>(tile, 0), p * S::kBytes, x[0]);
      block[p] = AddHalf<S, 0>(block[p], dot, x);
    }
    prefetch(1);
#pragma GCC unroll 4
    for (size_t p = 0; p < kPieces<S>; ++p) {
      const auto dot = DotHalf<S, Format>(HalfTile<Format>(tile, 1), p * S::kBytes, x[1]);
      block[p] = AddHalf<S, 1>(block[p], dot, x);
      sum[p] = S::Fma(block[p], S::LoadFloats(scale + p * S::kLanes), sum[p]);
    }
  }
  for (size_t p = 0; p < kPieces<S>; ++p) S::StoreFloats(out + p * S::kLanes, sum[p]);
}

// ---- many activation rows ----

// Up to 256 columns of 16 rows, unpacked, by block.
struct SparseChunk {
  alignas(64) uint8_t q[4][2 * kSparseSteps][kStepBytes];
  alignas(64) uint8_t index[4][2 * kSparseSteps][kStepBytes];
  alignas(64) int32_t start[4][2][kPackedRows];  // of the sums, if activations are biased
  alignas(64) float scale[4][kPackedRows];
};

template <class S, class Format>
inline void UnpackSparse(const uint8_t* tile, size_t block, SparseChunk* chunk) {
  SparseFactors<S, Format>(tile, chunk->scale[block]);
  for (size_t h = 0; h < 2; ++h) {
    const uint8_t* half = HalfTile<Format>(tile, h);
    for (size_t c = 0; c < kStepBytes; c += S::kBytes) {
      typename S::Bytes index[kSparseSteps], v[kSparseSteps];
      Indices<S>(half + c, index);
      Format::Values(half + kStepBytes, c, v);
#pragma GCC unroll 4
      for (size_t s = 0; s < kSparseSteps; ++s) {
        S::Store(chunk->q[block][kSparseSteps * h + s] + c, v[s]);
        S::Store(chunk->index[block][kSparseSteps * h + s] + c, index[s]);
      }
      if constexpr (S::kBiased) {
        S::Store(chunk->start[block][h] + c / 4, S::SubInts(S::ZeroPart(), BiasOf<S>(v)));
      }
    }
  }
}

// Adds the products of N activation rows with half h of a block to block[t][p].
template <class S, size_t N, size_t h>
[[gnu::always_inline]] inline void AddSparseHalf(const SparseChunk& chunk, size_t b,
                                                 const ActQ8* const* x,
                                                 typename S::Floats (*block)[kPieces<S>]) {
  using Bytes = typename S::Bytes;
  typename S::Ints dot[N][kPieces<S>];
#pragma GCC unroll 16
  for (size_t t = 0; t < N; ++t) {
#pragma GCC unroll 4
    for (size_t p = 0; p < kPieces<S>; ++p) {
      if constexpr (S::kBiased) dot[t][p] = S::Load(chunk.start[b][h] + p * S::kLanes);
      if constexpr (!S::kBiased) dot[t][p] = typename S::Ints{};
    }
  }
#pragma GCC unroll 2
  for (size_t first = 0; first < kSparseSteps; first += 2) {
#pragma GCC unroll 4
    for (size_t p = 0; p < kPieces<S>; ++p) {
      const auto* q = chunk.q[b] + kSparseSteps * h + first;
      const auto* at = chunk.index[b] + kSparseSteps * h + first;
      const size_t c = p * S::kBytes;
      const Bytes w[2] = {S::Load(q[0] + c), S::Load(q[1] + c)};
      const Bytes index[2] = {S::Load(at[0] + c), S::Load(at[1] + c)};
#pragma GCC unroll 16
      for (size_t t = 0; t < N; ++t) {
        const Bytes sixteen = Sixteen<S>(x[t][2 * b + h].q + 8 * first);
#pragma GCC unroll 2
        for (size_t s = 0; s < 2; ++s) {
          if constexpr (S::kPartIsInts) {
            dot[t][p] = SparseStep<S>(dot[t][p], w[s], sixteen, index[s]);
          } else {
            const auto part = SparseStep<S>(S::ZeroPart(), w[s], sixteen, index[s]);
            dot[t][p] = S::AddInts(dot[t][p], S::Widen(part));
          }
        }
      }
    }
  }
#pragma GCC unroll 16
  for (size_t t = 0; t < N; ++t) {
#pragma GCC unroll 4
    for (size_t p = 0; p < kPieces<S>; ++p) {
      block[t][p] = AddHalf<S, h>(block[t][p], dot[t][p], x[t] + 2 * b);
    }
  }
}

// Adds the products of N activation rows with one chunk to `sums`, as AddTile.
template <class S, size_t N>
inline void AddSparseTile(const SparseChunk& chunk, size_t blocks, const ActQ8* const* x,
                          float (*sums)[kPackedRows], Fetch* fetch) {
  typename S::Floats sum[N][kPieces<S>], block[N][kPieces<S>] = {};
#pragma GCC unroll 16
  for (size_t t = 0; t < N; ++t) {
#pragma GCC unroll 4
    for (size_t p = 0; p < kPieces<S>; ++p) sum[t][p] = S::LoadFloats(sums[t] + p * S::kLanes);
  }
  for (size_t b = 0; b < blocks; ++b) {
    fetch->Some();
    AddSparseHalf<S, N, 0>(chunk, b, x, block);
    AddSparseHalf<S, N, 1>(chunk, b, x, block);
#pragma GCC unroll 16
    for (size_t t = 0; t < N; ++t) {
#pragma GCC unroll 4
      for (size_t p = 0; p < kPieces<S>; ++p) {
        sum[t][p] = S::Fma(block[t][p], S::LoadFloats(chunk.scale[b] + p * S::kLanes), sum[t][p]);
      }
    }
  }
#pragma GCC unroll 16
  for (size_t t = 0; t < N; ++t) {
#pragma GCC unroll 4
    for (size_t p = 0; p < kPieces<S>; ++p) S::StoreFloats(sums[t] + p * S::kLanes, sum[t][p]);
  }
}

template <class S, size_t N>
inline void AddSparseTiles(const SparseChunk& chunk, size_t blocks, const char* x, size_t x_stride,
                           size_t count, size_t* j, float (*sums)[kPackedRows], Fetch* fetch) {
  for (; *j + N <= count; *j += N) {
    const ActQ8* rows[N];
    for (size_t t = 0; t < N; ++t) {
      rows[t] = reinterpret_cast<const ActQ8*>(x + (*j + t) * x_stride);
    }
    AddSparseTile<S, N>(chunk, blocks, rows, sums + *j, fetch);
  }
}

// 16 weight rows with `count` activation rows from `x` on.
template <class S, class Format>
void MultiplyManySparse(const uint8_t* tiles, size_t columns, const char* x, size_t x_stride,
                        size_t count, float (*sums)[kPackedRows]) {
  constexpr size_t kTile = kPackedRows * Format::kBlockBytes, kTokens = kSparseTokens<S>;
  SparseChunk chunk;
  memset(sums, 0, count * sizeof(sums[0]));
  for (size_t left = columns / kSparseColumns; left > 0;) {
    const size_t blocks = left < 4 ? left : 4;
    for (size_t b = 0; b < blocks; ++b, tiles += kTile) UnpackSparse<S, Format>(tiles, b, &chunk);
    const size_t visits = (count + kTokens - 1) / kTokens * blocks;
    Fetch fetch = {tiles, (4 * kTile / 64 + visits - 1) / visits};
    size_t j = 0;
    AddSparseTiles<S, kTokens>(chunk, blocks, x, x_stride, count, &j, sums, &fetch);
    if constexpr (kTokens > 4)
      AddSparseTiles<S, 4>(chunk, blocks, x, x_stride, count, &j, sums, &fetch);
    if constexpr (kTokens > 2)
      AddSparseTiles<S, 2>(chunk, blocks, x, x_stride, count, &j, sums, &fetch);
    AddSparseTiles<S, 1>(chunk, blocks, x, x_stride, count, &j, sums, &fetch);
    x += 2 * blocks * sizeof(ActQ8);
    left -= blocks;
  }
}

template <class S, template <class> class Format>
void LinearSparse(const LinearArgs& a) {
  MultiplyRows<MultiplyOneSparse<S, Format<S>>, MultiplyManySparse<S, Format<S>>>(a);
}

template <class S>
constexpr void SetSparseKernels(Kernels* t) {
  const auto set = [t](DType type, void (*run)(const LinearArgs&)) {
    t->linear[static_cast<int>(type)] = {ActFormat::kQ8, run};
  };
  set(DType::kS24_Q4, LinearSparse<S, PackedS24_Q4>);
  set(DType::kS24_Q8, LinearSparse<S, PackedS24_Q8>);
}

}  // namespace
}  // namespace edgewise::kernels
