// Products of packed bitmask weights (BM_Q4, BM_Q8), written once over the operations S of
// skeleton/linear_packed.h. The values that a row keeps of 64 columns are spread to their places by
// its mask, 16 rows are turned into steps of 4 columns in the first-level cache, and the products
// are those of dense weights. Where S has an Expand, one activation row meets the weights row by
// row in registers instead.
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

constexpr size_t kMaskColumns = 64;

// 64 columns of 16 rows, row after row.
using MaskedRows = uint8_t[kPackedRows][kMaskColumns];

// The kept values of 16 rows, each followed by as many that stand for 0.
using Sixteen8 [[gnu::vector_size(16)]] = uint8_t;
using Two64 [[gnu::vector_size(16)]] = uint64_t;
using Four32 [[gnu::vector_size(16)]] = uint32_t;

template <class Vector>
inline Vector LoadVector(const void* p) {
  Vector v;
  memcpy(&v, p, sizeof(v));
  return v;
}

// Which of the values kept of 8 columns each column gets, by their mask; 0x80, which gives 0, where
// it gets none.
struct SpreadTable {
  uint64_t from[256];
};
constexpr SpreadTable MakeSpreadTable() {
  SpreadTable table = {};
  for (unsigned mask = 0; mask < 256; ++mask) {
    uint64_t next = 0;
    for (unsigned j = 0; j < 8; ++j) {
      const bool kept = (mask >> j & 1) != 0;
      table.from[mask] |= (kept ? next++ : 0x80) << (8 * j);
    }
  }
  return table;
}
alignas(64) constexpr SpreadTable kSpread = MakeSpreadTable();

constexpr uint64_t kEachByte = 0x0101010101010101;

// Byte j: the bits set in byte j of `mask`.
inline uint64_t CountBytes(uint64_t mask) {
  mask -= mask >> 1 & 0x55 * kEachByte;
  mask = (mask & 0x33 * kEachByte) + (mask >> 2 & 0x33 * kEachByte);
  return (mask + (mask >> 4)) & 0x0F * kEachByte;
}

// Spreads the values of one row: kept[k] ^ zero to the column of the k-th bit, `zero` to the rest.
template <class S>
inline void SpreadRow(uint64_t mask, const uint8_t* kept, uint8_t zero, uint8_t* out) {
  const uint64_t counts = CountBytes(mask), before = counts * kEachByte << 8;
  const Sixteen8 zeros = Sixteen8{} + zero;
#pragma GCC unroll 4
  for (size_t j = 0; j < 8; j += 2) {
    const uint64_t first = kSpread.from[mask >> (8 * j) & 255];
    const uint64_t second = kSpread.from[mask >> (8 * j + 8) & 255];
    const Two64 from = {first, second + (counts >> (8 * j) & 255) * kEachByte};
    const auto values = LoadVector<Sixteen8>(kept + (before >> (8 * j) & 255));
    const Sixteen8 spread = S::Shuffle16(values, reinterpret_cast<Sixteen8>(from)) ^ zeros;
    memcpy(out + 8 * j, &spread, sizeof(spread));
  }
}

// A tile: 16 halves, 16 masks, then the kept values of row after row.
inline uint64_t MaskOf(const uint8_t* tile, size_t row) {
  uint64_t mask;
  memcpy(&mask, tile + 2 * kPackedRows + 8 * row, sizeof(mask));
  return mask;
}
constexpr size_t kKeptAt = 10 * kPackedRows;

// Each format gives
//   kZero: how 0 is stored in an unpacked byte;
//   Kept: the 32 values of one row, xor kZero;
//   Wide: for S::Expand, the same values, and kZero above.

template <class S>
struct PackedBM_Q4 {
  static constexpr size_t kColumns = kMaskColumns, kBlockBytes = sizeof(BlockBM_Q4);
  static constexpr Traits kTraits = {32, 15, false, 3, false};
  static constexpr uint8_t kZero = 8;
  static void Kept(const uint8_t* tile, size_t row, uint8_t* kept) {
    const auto raw = LoadVector<Sixteen8>(tile + kKeptAt + 16 * row);
    const Sixteen8 low = (raw & 15) ^ kZero, high = (raw >> 4) ^ kZero;
    memcpy(kept, &low, sizeof(low));
    memcpy(kept + 16, &high, sizeof(high));
  }
  static typename S::Bytes Wide(const uint8_t* tile, size_t row) {
    return S::WideNibbles(tile + kKeptAt + 16 * row);
  }
  static void Factors(const uint8_t* tile, size_t block, Scales* out) {
    StoreHalves<S>(tile, out->scale[2 * block]);
    StoreHalves<S>(tile, out->scale[2 * block + 1]);
  }
  static void Unpack(const uint8_t* tile, uint8_t (*q)[kStepBytes]);
};

template <class S>
struct PackedBM_Q8 {
  static constexpr size_t kColumns = kMaskColumns, kBlockBytes = sizeof(BlockBM_Q8);
  static constexpr Traits kTraits = kSignedTraits<S>;
  static constexpr uint8_t kZero = S::kBiased ? 128 : 0;
  static void Kept(const uint8_t* tile, size_t row, uint8_t* kept) {
    memcpy(kept, tile + kKeptAt + 32 * row, 32);
  }
  static typename S::Bytes Wide(const uint8_t* tile, size_t row) {
    return Signed<S>(S::Load32(tile + kKeptAt + 32 * row));
  }
  static void Factors(const uint8_t* tile, size_t block, Scales* out) {
    PackedBM_Q4<S>::Factors(tile, block, out);
  }
  static void Unpack(const uint8_t* tile, uint8_t (*q)[kStepBytes]);
};

// The 64 columns of one row, unpacked.
template <class S, class Format>
inline typename S::Bytes ExpandRow(const uint8_t* tile, size_t row) {
  return S::Expand(MaskOf(tile, row), Format::Wide(tile, row),
                   S::Splat(static_cast<int8_t>(Format::kZero)));
}
template <class S>
constexpr bool kExpands = requires(typename S::Bytes v) { S::Expand(0, v, v); };

template <class S, class Format>
inline void SpreadRows(const uint8_t* tile, MaskedRows& rows) {
  if constexpr (kExpands<S>) {
#pragma GCC unroll 16
    for (size_t r = 0; r < kPackedRows; ++r) S::Store(rows[r], ExpandRow<S, Format>(tile, r));
  } else {
    // All are unpacked before the first is read: a load that spans two stores waits for both.
    MaskedRows kept = {};
    for (size_t r = 0; r < kPackedRows; ++r) Format::Kept(tile, r, kept[r]);
    for (size_t r = 0; r < kPackedRows; ++r) {
      SpreadRow<S>(MaskOf(tile, r), kept[r], Format::kZero, rows[r]);
    }
  }
}

// Turns the rows into steps: 4 columns of 16 rows each.
inline void TurnRows(const MaskedRows& rows, uint8_t (*q)[kStepBytes]) {
  for (size_t c = 0; c < kMaskColumns; c += 16) {
#pragma GCC unroll 4
    for (size_t r = 0; r < kPackedRows; r += 4) {
      const auto a = LoadVector<Four32>(rows[r] + c), b = LoadVector<Four32>(rows[r + 1] + c);
      const auto d = LoadVector<Four32>(rows[r + 2] + c), e = LoadVector<Four32>(rows[r + 3] + c);
      const Four32 ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
      const Four32 ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
      const Four32 de_low = __builtin_shufflevector(d, e, 0, 4, 1, 5);
      const Four32 de_high = __builtin_shufflevector(d, e, 2, 6, 3, 7);
      const Four32 step[4] = {__builtin_shufflevector(ab_low, de_low, 0, 1, 4, 5),
                              __builtin_shufflevector(ab_low, de_low, 2, 3, 6, 7),
                              __builtin_shufflevector(ab_high, de_high, 0, 1, 4, 5),
                              __builtin_shufflevector(ab_high, de_high, 2, 3, 6, 7)};
#pragma GCC unroll 4
      for (size_t s = 0; s < 4; ++s) memcpy(q[c / 4 + s] + 4 * r, &step[s], sizeof(step[s]));
    }
  }
}

template <class S, class Format>
inline void UnpackMasked(const uint8_t* tile, uint8_t (*q)[kStepBytes]) {
  alignas(64) MaskedRows rows;
  SpreadRows<S, Format>(tile, rows);
  TurnRows(rows, q);
  if constexpr (Tile<S>::kPair > 1) {
    for (size_t first = 0; first < kMaskColumns / 4; first += 8) {
      for (size_t c = 0; c < kStepBytes; c += S::kBytes) {
        typename S::Bytes v[8];
        for (size_t s = 0; s < 8; ++s) v[s] = S::Load(q[first + s] + c);
        Tile<S>::Arrange(v);
        for (size_t s = 0; s < 8; ++s) S::Store(q[first + s] + c, v[s]);
      }
    }
  }
}

template <class S>
void PackedBM_Q4<S>::Unpack(const uint8_t* tile, uint8_t (*q)[kStepBytes]) {
  UnpackMasked<S, PackedBM_Q4>(tile, q);
}
template <class S>
void PackedBM_Q8<S>::Unpack(const uint8_t* tile, uint8_t (*q)[kStepBytes]) {
  UnpackMasked<S, PackedBM_Q8>(tile, q);
}

// One activation row, with S::Expand: a register holds 64 columns of one row, and its products with
// as many activations are added up across lanes.
template <class S, class Format>
void MultiplyOneExpanded(const uint8_t* tiles, size_t columns, const ActQ8* x, float* out) {
  constexpr Traits T = Format::kTraits;
  constexpr size_t kTileBytes = kPackedRows * Format::kBlockBytes;
  constexpr bool kSumsFit16 = 8 * 127 * T.largest <= INT16_MAX;
  typename S::Floats sum = S::Set(0);
  for (size_t b = 0; b < columns / kMaskColumns; ++b) {
    for (size_t at = 0; at < kTileBytes; at += 64) {
      __builtin_prefetch(tiles + kPrefetchBytes + at, 0, 3);
    }
    const typename S::Bytes act = S::Join(x[0].q, x[1].q);
    typename S::Ints dots[2];
    S::template AddLanes<kSumsFit16>(
        [&](size_t row) __attribute__((always_inline)) {
          return S::template Step<T.is_signed>(S::ZeroPart(), ExpandRow<S, Format>(tiles, row),
                                               act);
        },
        dots);
    Scales scales;
    Format::Factors(tiles, 0, &scales);
#pragma GCC unroll 2
    for (size_t g = 0; g < 2; ++g) {
      const typename S::Ints dot = S::AddInts(dots[g], ZeroOffset<S, T>(x[g], 0));
      sum = AddGroup<S, T>(sum, dot, scales, g, 0, x[g], 0);
    }
    tiles += kTileBytes;
    x += 2;
  }
  S::StoreFloats(out, sum);
}

// One activation row, or a pair where rows go by pairs: `out` has room for both.
template <class S, class Format>
void MultiplyOneUnpacked(const uint8_t* tiles, size_t columns, const ActQ8* x, float* out) {
  MultiplyMany<S, Format>(tiles, columns, reinterpret_cast<const char*>(x), 0, 1,
                          reinterpret_cast<float(*)[kPackedRows]>(out));
}

template <class S, template <class> class Format>
void LinearBitmask(const LinearArgs& a) {
  if constexpr (kExpands<S>) {
    MultiplyRows<MultiplyOneExpanded<S, Format<S>>, MultiplyMany<S, Format<S>>>(a);
  } else {
    MultiplyRows<MultiplyOneUnpacked<S, Format<S>>, MultiplyMany<S, Format<S>>>(a);
  }
}

template <class S>
constexpr void SetBitmaskKernels(Kernels* t) {
  const auto set = [t](DType type, void (*run)(const LinearArgs&)) {
    t->linear[static_cast<int>(type)] = {ActFormat::kQ8, run};
  };
  set(DType::kBM_Q4, LinearBitmask<S, PackedBM_Q4>);
  set(DType::kBM_Q8, LinearBitmask<S, PackedBM_Q8>);
}

}  // namespace
}  // namespace edgewise::kernels
