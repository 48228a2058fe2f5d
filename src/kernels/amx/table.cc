// AMX: products of BF16 in tile registers, each 16 rows of 64 bytes; tdpbf16ps adds the product of
// (16, 32) and (32, 16) values to (16, 16) floats. Everything else is that of AVX512_BF16.
//
// A panel of a is (k / 32, 32 rows, 32) values, so that two tiles of 16 rows lie one after the
// other; a panel of b is (k / 2, 32 columns, 2), of which a tile is 16 lines of one half.
#include <immintrin.h>
#include <string.h>

#include "kernels/avx512bf16/gemm.h"
#include "kernels/skeleton/gemm.h"
#include "kernels/tables.h"

namespace edgewise::kernels {
namespace {

constexpr size_t kTile = 16;   // rows or columns
constexpr size_t kLanes = 32;  // of a panel: two tiles
constexpr size_t kTileK = 32;
constexpr size_t kTileBytes = 1024;

// ---- packing ----

struct AmxColumns : Avx512Bf16Gemm {
  static constexpr size_t kStep = kTileK;
};

// 32 values along k of 16 rows become a tile. Rows and values that the matrix lacks are zeros.
void PackTileAlongK(const float* from, size_t stride, size_t rows, size_t k, char* to) {
  const __mmask16 low = static_cast<__mmask16>(k >= 16 ? 0xFFFF : (1u << k) - 1);
  const __mmask16 high = static_cast<__mmask16>(k >= 32  ? 0xFFFF
                                                : k > 16 ? (1u << (k - 16)) - 1
                                                         : 0);
  for (size_t row = 0; row < kTile; ++row, from += stride, to += 64) {
    __m512 values = _mm512_setzero_ps();
    if (row < rows) {
      values = Avx512Bf16Gemm::Convert(_mm512_maskz_loadu_ps(high, from + 16),
                                       _mm512_maskz_loadu_ps(low, from));
      const float* const next[] = {from, from + 16};
      PrefetchRows(next, 2, kLanes * stride);
    }
    _mm512_storeu_ps(to, values);
  }
}

// Transposes a matrix of 16 x 16 units.
void Transpose16(__m512* v) {
  for (size_t i = 0; i < 16; i += 4) Avx512Gemm::Transpose4(v + i);
  __m512 turned[16];
#pragma GCC unroll 4
  for (size_t j = 0; j < 4; ++j) {
    const __m512 low01 = _mm512_shuffle_f32x4(v[j], v[4 + j], 0x44);
    const __m512 high01 = _mm512_shuffle_f32x4(v[j], v[4 + j], 0xEE);
    const __m512 low23 = _mm512_shuffle_f32x4(v[8 + j], v[12 + j], 0x44);
    const __m512 high23 = _mm512_shuffle_f32x4(v[8 + j], v[12 + j], 0xEE);
    turned[j] = _mm512_shuffle_f32x4(low01, low23, 0x88);
    turned[4 + j] = _mm512_shuffle_f32x4(low01, low23, 0xDD);
    turned[8 + j] = _mm512_shuffle_f32x4(high01, high23, 0x88);
    turned[12 + j] = _mm512_shuffle_f32x4(high01, high23, 0xDD);
  }
#pragma GCC unroll 16
  for (size_t i = 0; i < 16; ++i) v[i] = turned[i];
}

// The same of 16 rows whose values lie side by side for each k.
void PackTileAlongRows(const float* from, size_t stride, size_t rows, size_t k, char* to) {
  __m512 pairs[16];
  for (size_t u = 0; u < kTileK / 2; ++u, from += 2 * stride) {
    if (rows >= kTile && 2 * u + 1 < k) {
      pairs[u] = Avx512Bf16Gemm::LoadFirst<kTile>(from, stride);
      continue;
    }
    uint32_t units[kTile] = {};
    const size_t count = 2 * u + 1 < k ? 2 : 2 * u < k ? 1 : 0;
    for (size_t row = 0; row < rows && row < kTile && count > 0; ++row) {
      units[row] = Avx512Bf16Gemm::Unit(from + row, stride, count);
    }
    pairs[u] = Avx512Floats::LoadBytes(units);
  }
  Transpose16(pairs);
  for (size_t row = 0; row < kTile; ++row) _mm512_storeu_ps(to + row * 64, pairs[row]);
}

void PackA(const GemmPackArgs& p) {
  for (size_t lane = 0; lane < p.lanes; lane += kLanes) {
    for (size_t k = 0; k < p.k; k += kTileK) {
      char* to = p.to + lane / kLanes * p.panel_stride + k * kLanes * 2;
      for (size_t row = lane; row < lane + kLanes; row += kTile, to += kTileBytes) {
        const size_t rows = row < p.lanes ? p.lanes - row : 0;
        const float* from = p.from + (rows > 0 ? row : 0) * p.lane_stride + k * p.k_stride;
        if (p.k_stride == 1) {
          PackTileAlongK(from, p.lane_stride, rows, p.k - k, to);
        } else {
          PackTileAlongRows(from, p.k_stride, rows, p.k - k, to);
        }
      }
    }
  }
}

// ---- the tiles ----

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
// In memory of its own: the intrinsics do not tell gcc 12 that all of it is read.
constexpr TileConfig kConfig;

// A tile of 32 x 32: registers 0 to 3 hold it, 4 and 5 rows, 6 and 7 columns.
void MultiplyTiles(const char* a, const char* b, size_t k, float* c, size_t c_stride,
                   bool accumulate) {
  const size_t stride = c_stride * sizeof(float);
  float* below = c + kTile * c_stride;
  for (size_t i = 0; i < kLanes; ++i) {
    __builtin_prefetch(c + i * c_stride, 1);
    __builtin_prefetch(c + i * c_stride + kTile, 1);
  }
  if (accumulate) {
    _tile_loadd(0, c, stride);
    _tile_loadd(1, c + kTile, stride);
    _tile_loadd(2, below, stride);
    _tile_loadd(3, below + kTile, stride);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (size_t p = 0; p < k; p += kTileK, a += 2 * kTileBytes, b += 2 * kTileBytes) {
    _tile_loadd(6, b, 128);
    _tile_loadd(4, a, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + 64, 128);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + kTileBytes, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c, stride);
  _tile_stored(1, c + kTile, stride);
  _tile_stored(2, below, stride);
  _tile_stored(3, below + kTile, stride);
}

// A tile of which only rows x columns elements are wanted.
void MultiplyEdge(const char* a, const char* b, size_t k, size_t rows, size_t columns, float* c,
                  size_t c_stride, bool accumulate) {
  alignas(64) float tile[kLanes * kLanes] = {};
  for (size_t i = 0; accumulate && i < rows; ++i) {
    memcpy(tile + i * kLanes, c + i * c_stride, columns * sizeof(float));
  }
  MultiplyTiles(a, b, k, tile, kLanes, accumulate);
  for (size_t i = 0; i < rows; ++i) {
    memcpy(c + i * c_stride, tile + i * kLanes, columns * sizeof(float));
  }
}

void Multiply(const GemmBlockArgs& g) {
  _tile_loadconfig(&kConfig);
  for (size_t i = 0; i < g.rows; i += kLanes) {
    const char* a = g.a + i / kLanes * g.a_stride;
    const size_t rows = g.rows - i < kLanes ? g.rows - i : kLanes;
    for (size_t j = 0; j < g.columns; j += kLanes) {
      const char* b = g.b + j / kLanes * g.b_stride;
      const size_t columns = g.columns - j < kLanes ? g.columns - j : kLanes;
      float* c = g.c + i * g.c_stride + j;
      if (rows == kLanes && columns == kLanes) {
        MultiplyTiles(a, b, g.k, c, g.c_stride, g.accumulate);
      } else {
        MultiplyEdge(a, b, g.k, rows, columns, c, g.c_stride, g.accumulate);
      }
    }
  }
  _tile_release();  // or every context switch would save 8 KiB
}

uint64_t Products(uint64_t rounds) {
  _tile_loadconfig(&kConfig);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(6);
  for (uint64_t round = 0; round < rounds; ++round) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 6);
    _tile_dpbf16ps(2, 4, 6);
    _tile_dpbf16ps(3, 4, 6);
  }
  _tile_release();
  return rounds * 4 * kTile * kTile * kTileK * 2;
}

constexpr Kernels Table() {
  Kernels t = {};
  t.name = "amx";
  t.gemm_bf16.a_lanes = kLanes;
  t.gemm_bf16.b_lanes = kLanes;
  t.gemm_bf16.k_step = kTileK;
  t.gemm_bf16.value_bytes = 2;
  t.gemm_bf16.max_k = 1024;
  t.gemm_bf16.pack_a = PackA;
  t.gemm_bf16.pack_b = GemmPack<AmxColumns, kLanes>;
  t.gemm_bf16.multiply = Multiply;
  t.gemm_bf16.products = Products;
  return t;
}

}  // namespace

constinit const Kernels kAmx = Table();

}  // namespace edgewise::kernels
