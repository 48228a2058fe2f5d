// Products of F32, F16 and BF16 weights, all of them or 2 of each 4, with float activations,
// written once over the float vectors S (see vector_ops.h). A tile of 4 weight rows by up to
// S::kTokens activation rows stays in registers, each product as a vector of partial sums along the
// columns. Few activation rows: weights go from memory through registers. More: 512 columns of 8
// weight rows, as floats, stay in the first-level cache and the same columns of 96 activation rows
// in the second (the blocking of Goto and van de Geijn 2008).
//
// The order of additions is the tile's: S::kWidth sums over each 512 columns, their total, and the
// totals in order. It does not depend on the number of rows.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/skeleton/vector_ops.h"
#include "quant/blocks.h"

namespace edgewise::kernels {
namespace {

constexpr size_t kTileRows = 4;    // weight rows
constexpr size_t kPanelRows = 8;   // weight rows
constexpr size_t kChunk = 512;     // columns
constexpr size_t kXBlock = 96;     // activation rows that meet one panel
constexpr size_t kRowBlock = 256;  // weight rows whose outputs stay in the second-level cache
constexpr size_t kFewTokens = 8;   // up to here unpacking costs more than it saves

// Each weight format gives
//   Bytes: of `columns` values, a multiple of kBlock;
//   Load: the S::kWidth values from column c of a row on.

template <class S>
struct WeightF32 {
  static constexpr size_t kBlock = 1;
  static constexpr size_t Bytes(size_t columns) { return 4 * columns; }
  static typename S::V Load(const char* row, size_t c) { return S::LoadBytes(row + 4 * c); }
};
template <class S>
struct WeightF16 {
  static constexpr size_t kBlock = 1;
  static constexpr size_t Bytes(size_t columns) { return 2 * columns; }
  static typename S::V Load(const char* row, size_t c) {
    return S::FromF16(S::LoadHalves(row + 2 * c));
  }
};
template <class S>
struct WeightBf16 {
  static constexpr size_t kBlock = 1;
  static constexpr size_t Bytes(size_t columns) { return 2 * columns; }
  static typename S::V Load(const char* row, size_t c) {
    return S::FromBf16(S::LoadHalves(row + 2 * c));
  }
};

// ---- weights pruned 2:4 ----

// For the positions of 2 kept values in each of two fours: the byte of the 4 halves that each byte
// of 8 dense halves is; 0x80, which gives 0, where none is.
struct PairTable {
  alignas(64) uint8_t from[256][16];
};
constexpr PairTable MakePairTable() {
  PairTable table = {};
  for (unsigned at = 0; at < 256; ++at) {
    for (unsigned i = 0; i < 16; ++i) table.from[at][i] = 0x80;
    for (unsigned k = 0; k < 4; ++k) {
      const unsigned element = 4 * (k / 2) + (at >> (2 * k) & 3);
      table.from[at][2 * element] = static_cast<uint8_t>(2 * k);
      table.from[at][2 * element + 1] = static_cast<uint8_t>(2 * k + 1);
    }
  }
  return table;
}
constexpr PairTable kPairs = MakePairTable();

// The halves of S::kWidth columns with their zeros.
template <class S>
inline typename S::Halves SpreadPairs(const char* row, size_t c) {
  const uint8_t* block = reinterpret_cast<const uint8_t*>(row) + c / 16 * sizeof(BlockS24_F16);
  const uint8_t *at = block + c % 16 / 8, *kept = block + offsetof(BlockS24_F16, kept) + c % 16;
  if constexpr (S::kWidth == 4) {
    return S::Spread(kPairs.from[*at >> (c % 8) & 15], nullptr, kept);
  } else {
    return S::Spread(kPairs.from[*at], kPairs.from[at[S::kWidth / 16]], kept);
  }
}

template <class S>
struct WeightS24F16 {
  static constexpr size_t kBlock = 16;
  static constexpr size_t Bytes(size_t columns) { return columns / 16 * sizeof(BlockS24_F16); }
  static typename S::V Load(const char* row, size_t c) {
    return S::FromF16(SpreadPairs<S>(row, c));
  }
};
template <class S>
struct WeightS24Bf16 {
  static constexpr size_t kBlock = 16;
  static constexpr size_t Bytes(size_t columns) { return WeightS24F16<S>::Bytes(columns); }
  static typename S::V Load(const char* row, size_t c) {
    return S::FromBf16(SpreadPairs<S>(row, c));
  }
};

// ---- the tile ----

// Adds the products of the S::kWidth columns from c on.
template <class S, class Weight, size_t N>
[[gnu::always_inline]] inline void AddColumn(const char* const* w, const float* const* x, size_t c,
                                             typename S::V (*sum)[kTileRows]) {
  typename S::V act[N];
#pragma GCC unroll 8
  for (size_t t = 0; t < N; ++t) act[t] = S::Load(x[t] + c);
#pragma GCC unroll 4
  for (size_t r = 0; r < kTileRows; ++r) {
    const typename S::V v = Weight::Load(w[r], c);
#pragma GCC unroll 8
    for (size_t t = 0; t < N; ++t) sum[t][r] = S::Fma(v, act[t], sum[t][r]);
  }
}

// y[t][r] += the dot of w_rows[r] and x_rows[t] over up to kChunk columns, a multiple of
// S::kWidth. Not inlined: where gcc sees the operands as local arrays, it reorders the loop until
// registers spill.
template <class S, class Weight, size_t N>
[[gnu::noinline]] void AddTile(const char* const* w_rows, const float* const* x_rows,
                               size_t columns, float* const* y) {
  constexpr size_t W = S::kWidth;
  const char* w[kTileRows];
  const float* x[N];
  typename S::V sum[N][kTileRows];
#pragma GCC unroll 4
  for (size_t r = 0; r < kTileRows; ++r) w[r] = w_rows[r];
#pragma GCC unroll 8
  for (size_t t = 0; t < N; ++t) {
    x[t] = x_rows[t];
#pragma GCC unroll 4
    for (size_t r = 0; r < kTileRows; ++r) sum[t][r] = S::Zero();
  }
  size_t c = 0;
  for (; c + 2 * W <= columns; c += 2 * W) {
    AddColumn<S, Weight, N>(w, x, c, sum);
    asm volatile("" ::: "memory");  // the two steps stay apart, for the same reason
    AddColumn<S, Weight, N>(w, x, c + W, sum);
  }
  if (c < columns) AddColumn<S, Weight, N>(w, x, c, sum);
#pragma GCC unroll 8
  for (size_t t = 0; t < N; ++t) S::AddSums(sum[t][0], sum[t][1], sum[t][2], sum[t][3], y[t]);
}

// AddTile for n <= N activation rows.
template <class S, class Weight, size_t N = S::kTokens>
inline void AddTileOf(size_t n, const char* const* w, const float* const* x, size_t columns,
                      float* const* y) {
  if constexpr (N > 1) {
    if (n < N) return AddTileOf<S, Weight, N - 1>(n, w, x, columns, y);
  }
  AddTile<S, Weight, N>(w, x, columns, y);
}

// Activation rows of the next tile where `left` remain: never one after full ones.
template <class S>
inline size_t TileTokens(size_t left) {
  if (left <= S::kTokens) return left;
  return left < 2 * S::kTokens ? (left + 1) / 2 : S::kTokens;
}

// ---- packing ----

template <class S>
inline size_t Padded(size_t width) {
  return (width + S::kWidth - 1) / S::kWidth * S::kWidth;
}

// `width` values as floats, then zeros to a whole number of vectors.
template <class S, class Weight>
inline void PackRow(const char* from, size_t width, float* to) {
  constexpr size_t W = S::kWidth;
  size_t c = 0;
  for (; c + 4 * W <= width; c += 4 * W) {
#pragma GCC unroll 4
    for (size_t u = c; u < c + 4 * W; u += W) S::Store(to + u, Weight::Load(from, u));
  }
  for (; c + W <= width; c += W) S::Store(to + c, Weight::Load(from, c));
  if constexpr (Weight::kBlock < W) {
    if (c == width) return;
    char rest[Weight::Bytes(W)] = {};
    memcpy(rest, from + Weight::Bytes(c), Weight::Bytes(width - c));
    S::Store(to + c, Weight::Load(rest, 0));
  }
}

// ---- few activation rows ----

// AddTileOf for any number of columns up to kChunk.
template <class S, class Weight>
void AddRest(size_t n, const char* const* w, const float* const* x, size_t width, float* const* y) {
  alignas(64) float w_rows[kTileRows][kChunk], x_rows[S::kTokens][kChunk];
  const char* ws[kTileRows];
  const float* xs[S::kTokens];
  for (size_t r = 0; r < kTileRows; ++r) {
    PackRow<S, Weight>(w[r], width, w_rows[r]);
    ws[r] = reinterpret_cast<const char*>(w_rows[r]);
  }
  for (size_t t = 0; t < n; ++t) {
    PackRow<S, WeightF32<S>>(reinterpret_cast<const char*>(x[t]), width, x_rows[t]);
    xs[t] = x_rows[t];
  }
  AddTileOf<S, WeightF32<S>>(n, ws, xs, Padded<S>(width), y);
}

// 4 weight rows from row i on, or those that are left, with n <= S::kTokens activation rows.
template <class S, class Weight>
void MultiplyFew(const LinearArgs& a, size_t i, size_t j, size_t n) {
  const size_t rows = a.rows - i < kTileRows ? a.rows - i : kTileRows;
  const char* w[kTileRows];
  for (size_t r = 0; r < kTileRows; ++r) {
    w[r] = static_cast<const char*>(a.w) + (i + (r < rows ? r : 0)) * a.w_stride;
  }
  const float* x[S::kTokens];
  float* y[S::kTokens];
  float sums[S::kTokens][kTileRows] = {};
  for (size_t t = 0; t < n; ++t) {
    x[t] = reinterpret_cast<const float*>(static_cast<const char*>(a.x) + (j + t) * a.x_stride);
    y[t] = sums[t];
  }
  for (size_t c = 0; c < a.columns; c += kChunk) {
    const size_t width = a.columns - c < kChunk ? a.columns - c : kChunk;
    if (width % S::kWidth == 0) {
      AddTileOf<S, Weight>(n, w, x, width, y);
    } else {
      AddRest<S, Weight>(n, w, x, width, y);
    }
    for (size_t r = 0; r < kTileRows; ++r) w[r] += Weight::Bytes(width);
    for (size_t t = 0; t < n; ++t) x[t] += width;
  }
  for (size_t t = 0; t < n; ++t) {
    memcpy(a.y + (j + t) * a.y_stride + i, sums[t], rows * sizeof(float));
  }
}

// ---- many activation rows ----

// y += the products of one panel with n <= S::kTokens packed activation rows.
template <class S>
inline void AddPanel(const float (*w)[kChunk], size_t rows, const float (*x)[kChunk], size_t n,
                     size_t width, float* y, size_t y_stride) {
  const float* xs[S::kTokens];
  for (size_t t = 0; t < n; ++t) xs[t] = x[t];
  for (size_t i = 0; i < rows; i += kTileRows) {
    const char* ws[kTileRows];
    for (size_t r = 0; r < kTileRows; ++r) ws[r] = reinterpret_cast<const char*>(w[i + r]);
    float* ys[S::kTokens];
    if (rows - i >= kTileRows) {
      for (size_t t = 0; t < n; ++t) ys[t] = y + t * y_stride + i;
      AddTileOf<S, WeightF32<S>>(n, ws, xs, width, ys);
      continue;
    }
    float part[S::kTokens][kTileRows] = {};
    for (size_t t = 0; t < n; ++t) {
      ys[t] = part[t];
      memcpy(part[t], y + t * y_stride + i, (rows - i) * sizeof(float));
    }
    AddTileOf<S, WeightF32<S>>(n, ws, xs, width, ys);
    for (size_t t = 0; t < n; ++t) {
      memcpy(y + t * y_stride + i, part[t], (rows - i) * sizeof(float));
    }
  }
}

// All weight rows with `count` <= kXBlock activation rows from row j on.
template <class S, class Weight>
void MultiplyMany(const LinearArgs& a, size_t j, size_t count) {
  alignas(64) float x[kXBlock][kChunk];
  alignas(64) float w[kPanelRows][kChunk] = {};
  for (size_t t = 0; t < count; ++t) memset(a.y + (j + t) * a.y_stride, 0, a.rows * sizeof(float));
  for (size_t c = 0; c < a.columns; c += kChunk) {
    const size_t width = a.columns - c < kChunk ? a.columns - c : kChunk;
    for (size_t t = 0; t < count; ++t) {
      const char* from = static_cast<const char*>(a.x) + (j + t) * a.x_stride;
      PackRow<S, WeightF32<S>>(from + c * sizeof(float), width, x[t]);
    }
    const char* from = static_cast<const char*>(a.w) + Weight::Bytes(c);
    for (size_t i = 0; i < a.rows; i += kPanelRows) {
      const size_t left = a.rows - i;
      const size_t rows = left < kPanelRows ? left : kPanelRows;
      const size_t next = left - rows < kPanelRows ? left - rows : kPanelRows;
      for (size_t r = 0; r < rows; ++r, from += a.w_stride) {
        PackRow<S, Weight>(from, width, w[r]);
      }
      size_t fetched = 0;  // bytes of each row of the next panel
      for (size_t t = 0, n; t < count; t += n) {
        n = TileTokens<S>(count - t);
        for (; fetched * count < Weight::Bytes(width) * (t + n); fetched += 64) {
          for (size_t r = 0; r < next; ++r) __builtin_prefetch(from + r * a.w_stride + fetched);
        }
        AddPanel<S>(w, rows, x + t, n, Padded<S>(width), a.y + (j + t) * a.y_stride + i,
                    a.y_stride);
      }
    }
  }
}

template <class S, template <class> class Weight>
void LinearFloats(const LinearArgs& a) {
  for (size_t j = 0; j < a.n; j += kXBlock) {
    const size_t count = a.n - j < kXBlock ? a.n - j : kXBlock;
    for (size_t i = 0; count > kFewTokens && i < a.rows; i += kRowBlock) {
      LinearArgs part = a;
      part.w = static_cast<const char*>(a.w) + i * a.w_stride;
      part.rows = a.rows - i < kRowBlock ? a.rows - i : kRowBlock;
      part.y = a.y + i;
      MultiplyMany<S, Weight<S>>(part, j, count);
    }
    if (count > kFewTokens) continue;
    for (size_t i = 0; i < a.rows; i += kTileRows) {
      for (size_t t = 0, n; t < count; t += n) {
        n = TileTokens<S>(count - t);
        MultiplyFew<S, Weight<S>>(a, i, j + t, n);
      }
    }
  }
}

template <class S>
constexpr void SetFloatKernels(Kernels* t) {
  t->linear[static_cast<int>(DType::kF32)] = {ActFormat::kF32, LinearFloats<S, WeightF32>};
  t->linear[static_cast<int>(DType::kF16)] = {ActFormat::kF32, LinearFloats<S, WeightF16>};
  t->linear[static_cast<int>(DType::kBF16)] = {ActFormat::kF32, LinearFloats<S, WeightBf16>};
  t->linear[static_cast<int>(DType::kS24_F16)] = {ActFormat::kF32, LinearFloats<S, WeightS24F16>};
  t->linear[static_cast<int>(DType::kS24_BF16)] = {ActFormat::kF32, LinearFloats<S, WeightS24Bf16>};
}

}  // namespace
}  // namespace edgewise::kernels
