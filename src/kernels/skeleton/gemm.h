// Products of float matrices (kernels/gemm.h), written once over the operations S of an instruction
// set. The lanes of a vector V are S::kWidth rows or columns; each holds a unit, S::kUnit values
// along k, in 32 bits; S::kStep values are the least along k. A panel is (k / kUnit, panel lanes)
// units. The tile is S::kRows rows by S::kVectors vectors of columns.
//
// An element is the sum along k of one pass from zero, then added to c; what stands beside it in
// the tile does not matter.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/half.h"
#include "kernels/gemm.h"

namespace edgewise::kernels {
namespace {

// ---- packing ----

// Units from value k on to the end of the panel's step, one by one.
template <class S, size_t kPanel>
void PackRest(const GemmPackArgs& p, size_t k) {
  const size_t end = (p.k + S::kStep - 1) / S::kStep * S::kStep;
  for (; k < end; k += S::kUnit) {
    const size_t left = k < p.k ? p.k - k : 0, count = left < S::kUnit ? left : S::kUnit;
    for (size_t lane = 0; lane < p.lanes; ++lane) {
      const float* from = p.from + lane * p.lane_stride + k * p.k_stride;
      char* to = p.to + lane / kPanel * p.panel_stride;
      const uint32_t unit = S::Unit(from, p.k_stride, count);
      memcpy(to + (k / S::kUnit * kPanel + lane % kPanel) * sizeof(unit), &unit, sizeof(unit));
    }
  }
}

// A processor does not see by itself that many short runs go on in other rows. An address beyond
// the matrix does no harm.
inline void Prefetch(const float* from, size_t offset) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(from) + offset * sizeof(float);
  __builtin_prefetch(reinterpret_cast<const void*>(at), 0, 2);
}

// Fetches one line of each row of the panel after this.
inline void PrefetchRows(const float* const* rows, size_t count, size_t offset) {
  for (size_t l = 0; l < count; ++l) Prefetch(rows[l], offset);
}

// Values along k are contiguous: transposes four units of a vector of lanes at a time. Lanes that
// the matrix lacks repeat the last one; nobody reads their results.
template <class S, size_t kPanel>
void PackAlongK(const GemmPackArgs& p) {
  constexpr size_t W = S::kWidth, kStep = 4 * S::kUnit;
  const size_t end = p.k / kStep * kStep;
  char* to = p.to;
  for (size_t lane = 0; lane < p.lanes; lane += kPanel, to += p.panel_stride) {
    const size_t last = p.lanes - lane < kPanel ? p.lanes - lane - 1 : kPanel - 1;
    size_t group = 0;
    const auto pack_group = [&]<size_t kCount>() {
      const float* rows[W];
      for (size_t l = 0; l < W; ++l) {
        rows[l] = p.from + (lane + (group + l < last ? group + l : last)) * p.lane_stride;
      }
      for (size_t k = 0; k < end; k += kStep) {
        if (k % 16 == 0) PrefetchRows(rows, W < kPanel ? W : kPanel, kPanel * p.lane_stride + k);
        typename S::V v[4];
        for (size_t r = 0; r < 4; ++r) v[r] = S::LoadAlongK(rows + r, k);
        S::Transpose4(v);
        for (size_t r = 0; r < 4; ++r) {
          S::template StoreFirst<kCount>(to + ((k / S::kUnit + r) * kPanel + group) * 4, v[r]);
        }
      }
    };
    for (; group + W <= kPanel; group += W) pack_group.template operator()<W>();
    if constexpr (kPanel % W != 0) pack_group.template operator()<kPanel % W>();
  }
  PackRest<S, kPanel>(p, end);
}

// Lanes are contiguous.
template <class S, size_t kPanel>
void PackAlongLanes(const GemmPackArgs& p) {
  constexpr size_t W = S::kWidth, kAhead = 8;
  const size_t end = p.k / S::kUnit * S::kUnit;
  for (size_t k = 0; k < end; k += S::kUnit) {
    const float* from = p.from + k * p.k_stride;
    char* to = p.to + k / S::kUnit * kPanel * 4;
    size_t lane = 0;
    for (; lane + kPanel <= p.lanes; lane += kPanel, from += kPanel, to += p.panel_stride) {
      for (size_t row = kAhead; row < kAhead + S::kUnit; ++row) {
        for (size_t l = 0; l < kPanel; l += 16) Prefetch(from, row * p.k_stride + l);
      }
      size_t group = 0;
      for (; group + W <= kPanel; group += W) {
        S::template StoreFirst<W>(to + group * 4,
                                  S::template LoadFirst<W>(from + group, p.k_stride));
      }
      if constexpr (kPanel % W != 0) {
        constexpr size_t kRest = kPanel % W;
        S::template StoreFirst<kRest>(to + group * 4,
                                      S::template LoadFirst<kRest>(from + group, p.k_stride));
      }
    }
    for (size_t l = 0; lane + l < p.lanes; ++l) {
      const uint32_t unit = S::Unit(from + l, p.k_stride, S::kUnit);
      memcpy(to + l * sizeof(unit), &unit, sizeof(unit));
    }
  }
  PackRest<S, kPanel>(p, end);
}

template <class S, size_t kPanel>
void GemmPack(const GemmPackArgs& p) {
  if (p.k_stride == 1) {
    PackAlongK<S, kPanel>(p);
  } else {
    PackAlongLanes<S, kPanel>(p);
  }
}

// ---- the tile ----

// Not inlined: the registers are few enough as they are.
template <class S>
[[gnu::noinline]] void GemmTile(const char* a, const char* b, size_t units, float* c,
                                size_t c_stride, bool accumulate) {
  constexpr size_t R = S::kRows, N = S::kVectors, W = S::kWidth;
  typename S::V sum[R][N];
#pragma GCC unroll 16
  for (size_t i = 0; i < R; ++i) {
#pragma GCC unroll 4
    for (size_t j = 0; j < N; ++j) {
      sum[i][j] = S::Zero();
      __builtin_prefetch(c + i * c_stride + j * W, 1);
    }
  }
  for (size_t u = 0; u < units; ++u, a += R * 4, b += N * W * 4) {
    typename S::V columns[N];
#pragma GCC unroll 4
    for (size_t j = 0; j < N; ++j) columns[j] = S::LoadUnits(b + j * W * 4);
#pragma GCC unroll 16
    for (size_t i = 0; i < R; ++i) {
      const typename S::V row = S::Broadcast(a + i * 4);
#pragma GCC unroll 4
      for (size_t j = 0; j < N; ++j) sum[i][j] = S::Step(sum[i][j], row, columns[j]);
    }
  }
#pragma GCC unroll 16
  for (size_t i = 0; i < R; ++i) {
#pragma GCC unroll 4
    for (size_t j = 0; j < N; ++j) {
      float* to = c + i * c_stride + j * W;
      S::Store(to, accumulate ? S::Add(S::Load(to), sum[i][j]) : sum[i][j]);
    }
  }
}

// A tile of which only rows by columns elements are wanted.
template <class S>
void GemmEdge(const char* a, const char* b, size_t units, size_t rows, size_t columns, float* c,
              size_t c_stride, bool accumulate) {
  constexpr size_t kColumns = S::kVectors * S::kWidth;
  alignas(64) float tile[S::kRows * kColumns];
  GemmTile<S>(a, b, units, tile, kColumns, false);
  for (size_t i = 0; i < rows; ++i) {
    for (size_t j = 0; j < columns; ++j) {
      float& to = c[i * c_stride + j];
      to = accumulate ? to + tile[i * kColumns + j] : tile[i * kColumns + j];
    }
  }
}

// A panel of a stays in the first-level cache while those of b pass by, so that c is met row by
// row: a tile for each of many rows would miss the translation of its addresses each time.
template <class S>
void GemmMultiply(const GemmBlockArgs& g) {
  constexpr size_t R = S::kRows, C = S::kVectors * S::kWidth;
  const size_t units = (g.k + S::kUnit - 1) / S::kUnit;
  for (size_t i = 0; i < g.rows; i += R) {
    const char* a = g.a + i / R * g.a_stride;
    const size_t rows = g.rows - i < R ? g.rows - i : R;
    for (size_t j = 0; j < g.columns; j += C) {
      const char* b = g.b + j / C * g.b_stride;
      const size_t columns = g.columns - j < C ? g.columns - j : C;
      float* c = g.c + i * g.c_stride + j;
      if (rows == R && columns == C) {
        GemmTile<S>(a, b, units, c, g.c_stride, g.accumulate);
      } else {
        GemmEdge<S>(a, b, units, rows, columns, c, g.c_stride, g.accumulate);
      }
    }
  }
}

template <class S>
uint64_t GemmProducts(uint64_t rounds) {
  constexpr size_t kChains = S::kRows * S::kVectors < 12 ? S::kRows * S::kVectors : 12;
  alignas(64) char values[kChains + 1][64] = {};
  asm volatile("" ::"r"(values) : "memory");  // all different, as far as the compiler can see
  const typename S::V a = S::LoadUnits(values[kChains]), b = S::Broadcast(values[kChains]);
  typename S::V sum[kChains];
#pragma GCC unroll 12
  for (size_t i = 0; i < kChains; ++i) sum[i] = S::LoadUnits(values[i]);
  for (uint64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (size_t i = 0; i < kChains; ++i) sum[i] = S::Step(sum[i], b, a);
    asm volatile("");
  }
  typename S::V kept[kChains];
#pragma GCC unroll 12
  for (size_t i = 0; i < kChains; ++i) kept[i] = sum[i];
  asm volatile("" ::"r"(kept) : "memory");
  return rounds * kChains * S::kWidth * S::kUnit * 2;
}

template <class S>
constexpr GemmKernel MakeGemm() {
  constexpr size_t kColumns = S::kVectors * S::kWidth;
  GemmKernel kernel = {};
  kernel.a_lanes = S::kRows;
  kernel.b_lanes = kColumns;
  kernel.k_step = S::kStep;
  kernel.value_bytes = 4 / S::kUnit;
  kernel.max_k = 384 * S::kUnit;
  kernel.pack_a = GemmPack<S, S::kRows>;
  kernel.pack_b = GemmPack<S, kColumns>;
  kernel.multiply = GemmMultiply<S>;
  kernel.products = GemmProducts<S>;
  return kernel;
}

// ---- units of one float ----

// The operations above from those of the float vectors F: LoadRows(rows, k) has 4 values of each of
// rows 0, 4, 8.. in its 128-bit parts, and Transpose4 transposes the four 4 x 4 matrices that lie
// in these parts. With kRound values become the nearest BF16 while they are packed.
template <class F, bool kRound>
struct GemmFloats : F {
  using V = typename F::V;
  static constexpr size_t kUnit = 1, kStep = 1;

  static V Rounded(V v) {
    if constexpr (kRound) return F::RoundToBf16(v);
    return v;
  }
  static uint32_t Unit(const float* p, size_t, size_t) {
    float value = *p;
    if constexpr (kRound) value = Bf16ToFloat(FloatToBf16(value));
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
  }
  static V LoadAlongK(const float* const* rows, size_t k) { return Rounded(F::LoadRows(rows, k)); }
  template <size_t kCount>
  static V LoadFirst(const float* p, size_t) {
    if constexpr (kCount == F::kWidth)
      return Rounded(F::Load(p));
    else
      return Rounded(F::template LoadLanes<kCount>(p));
  }
  template <size_t kCount>
  static void StoreFirst(char* p, V v) {
    if constexpr (kCount == F::kWidth)
      F::Store(reinterpret_cast<float*>(p), v);
    else
      F::template StoreLanes<kCount>(reinterpret_cast<float*>(p), v);
  }
  static V LoadUnits(const char* p) { return F::Load(reinterpret_cast<const float*>(p)); }
  static V Broadcast(const char* p) { return F::Set(*reinterpret_cast<const float*>(p)); }
  static V Step(V sum, V a, V b) { return F::Fma(a, b, sum); }
};

}  // namespace
}  // namespace edgewise::kernels
