// The packing and products of every table's GEMM against double precision, at every remainder.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/half.h"
#include "base/rng.h"
#include "kernels/kernels.h"

namespace edgewise::kernels {
namespace {

constexpr float kUntouched = -12345.0f;

struct AlignedBytes {
  std::vector<char> bytes;
  char* data;
  explicit AlignedBytes(size_t n) : bytes(n + 63) {
    const auto at = reinterpret_cast<uintptr_t>(bytes.data());
    data = bytes.data() + (64 - at % 64) % 64;
  }
};

// A factor of (lanes, k) values, `along_k` or lanes contiguous, the last row without its gap, so
// that a sanitizer sees reads beyond it.
struct Factor {
  size_t lanes, k, lane_stride, k_stride;
  std::vector<float> values;

  Factor(size_t n, size_t depth, bool along_k, Rng& rng) : lanes(n), k(depth) {
    lane_stride = along_k ? k + 3 : 1;
    k_stride = along_k ? 1 : lanes + 3;
    values.resize((lanes - 1) * lane_stride + (k - 1) * k_stride + 1);
    for (float& value : values) value = static_cast<float>(rng.Gaussian());
  }
  float At(size_t lane, size_t i) const { return values[lane * lane_stride + i * k_stride]; }
};

size_t RoundUp(size_t n, size_t step) { return (n + step - 1) / step * step; }

struct Panels {
  AlignedBytes memory;
  size_t stride;
};

// Packs in pieces of `lanes_cut` lanes (a multiple of the panel) and `k_cut` along k.
Panels Pack(const GemmKernel& kernel, bool is_a, const Factor& factor, size_t lanes_cut,
            size_t k_cut) {
  const size_t panel = is_a ? kernel.a_lanes : kernel.b_lanes;
  const size_t stride = RoundUp(factor.k, kernel.k_step) * panel * kernel.value_bytes;
  Panels panels{AlignedBytes(RoundUp(factor.lanes, panel) / panel * stride), stride};
  for (size_t lane = 0; lane < factor.lanes; lane += lanes_cut) {
    for (size_t k = 0; k < factor.k; k += k_cut) {
      GemmPackArgs args = {};
      args.from = factor.values.data() + lane * factor.lane_stride + k * factor.k_stride;
      args.lane_stride = factor.lane_stride;
      args.k_stride = factor.k_stride;
      args.lanes = std::min(lanes_cut, factor.lanes - lane);
      args.k = std::min(k_cut, factor.k - k);
      args.to = panels.memory.data + lane / panel * stride + k * panel * kernel.value_bytes;
      args.panel_stride = stride;
      (is_a ? kernel.pack_a : kernel.pack_b)(args);
    }
  }
  return panels;
}

struct Product {
  size_t rows, columns, stride;
  std::vector<float> c;
};

Product Multiply(const GemmKernel& kernel, const Panels& a, const Panels& b, size_t rows,
                 size_t columns, size_t k, bool accumulate) {
  Product product{rows, columns, columns + 5, {}};
  product.c.assign(rows * product.stride, kUntouched);
  if (accumulate) {
    for (size_t i = 0; i < rows; ++i) {
      for (size_t j = 0; j < columns; ++j)
        product.c[i * product.stride + j] = static_cast<float>(i) - static_cast<float>(j);
    }
  }
  kernel.multiply({a.memory.data, a.stride, b.memory.data, b.stride, rows, columns,
                   RoundUp(k, kernel.k_step), product.c.data(), product.stride, accumulate});
  return product;
}

double Rounded(float value, bool bf16) {
  return static_cast<double>(bf16 ? Bf16ToFloat(FloatToBf16(value)) : value);
}

// Elements further from the exact sum than k + 1 roundings allow, and writes beyond the columns.
size_t Wrong(const Product& product, const Factor& a, const Factor& b, bool bf16, bool accumulate) {
  size_t wrong = 0;
  for (size_t i = 0; i < product.rows; ++i) {
    const float* row = product.c.data() + i * product.stride;
    for (size_t j = 0; j < product.columns; ++j) {
      double exact = accumulate ? static_cast<double>(i) - static_cast<double>(j) : 0;
      double size = std::fabs(exact);
      for (size_t p = 0; p < a.k; ++p) {
        const double term = Rounded(a.At(i, p), bf16) * Rounded(b.At(j, p), bf16);
        exact += term;
        size += std::fabs(term);
      }
      const double bound = static_cast<double>(a.k + 2) * 0x1p-24 * size;
      wrong += !(std::fabs(static_cast<double>(row[j]) - exact) <= bound);
    }
    for (size_t j = product.columns; j < product.stride; ++j) wrong += row[j] != kUntouched;
  }
  return wrong;
}

// Each table's GEMM in each precision.
template <class Function>
void ForEachKernel(Function function) {
  const KernelList list = Available();
  for (size_t i = 0; i < list.size; ++i) {
    for (const bool bf16 : {false, true}) {
      CAPTURE(std::string(list.items[i].name));
      CAPTURE(bf16);
      function(bf16 ? list.items[i].gemm_bf16 : list.items[i].gemm_f32, bf16);
    }
  }
}

}  // namespace

TEST_CASE("products of every remainder of the tile, of both orders in memory") {
  ForEachKernel([](const GemmKernel& kernel, bool bf16) {
    Rng rng(1);
    for (size_t rows = 1; rows <= 2 * kernel.a_lanes + 1; ++rows) {
      for (size_t columns = 1; columns <= 2 * kernel.b_lanes + 1; columns += 1 + rows % 5) {
        const size_t k = 1 + (rows * 7 + columns * 3) % 71;
        const bool accumulate = (rows + columns) % 2 == 0;
        const Factor a(rows, k, rows % 2 == 0, rng), b(columns, k, columns % 3 == 0, rng);
        const Panels a_panels = Pack(kernel, true, a, rows + kernel.a_lanes, k);
        const Panels b_panels = Pack(kernel, false, b, columns + kernel.b_lanes, k);
        const Product product = Multiply(kernel, a_panels, b_panels, rows, columns, k, accumulate);
        CAPTURE(rows);
        CAPTURE(columns);
        CAPTURE(k);
        CHECK(Wrong(product, a, b, bf16, accumulate) == 0);
      }
    }
  });
}

TEST_CASE("products of every length along k") {
  ForEachKernel([](const GemmKernel& kernel, bool bf16) {
    Rng rng(2);
    for (size_t k = 1; k <= 2 * kernel.k_step + 70; ++k) {
      for (const bool along_k : {false, true}) {
        const Factor a(kernel.a_lanes + 2, k, along_k, rng);
        const Factor b(kernel.b_lanes + 3, k, !along_k, rng);
        const Panels a_panels = Pack(kernel, true, a, kernel.a_lanes, kernel.k_step);
        const Panels b_panels = Pack(kernel, false, b, kernel.b_lanes, 2 * kernel.k_step);
        const Product product = Multiply(kernel, a_panels, b_panels, a.lanes, b.lanes, k, false);
        CAPTURE(k);
        CAPTURE(along_k);
        CHECK(Wrong(product, a, b, bf16, false) == 0);
      }
    }
  });
}

TEST_CASE("an element has the same bits wherever it stands in a tile") {
  ForEachKernel([](const GemmKernel& kernel, bool) {
    Rng rng(3);
    constexpr size_t kK = 100;
    const size_t rows = 3 * kernel.a_lanes, columns = 3 * kernel.b_lanes;
    const Factor a(rows, kK, true, rng), b(columns, kK, true, rng);
    const Panels a_panels = Pack(kernel, true, a, rows, kK);
    const Panels b_panels = Pack(kernel, false, b, columns, kK);
    const Product all = Multiply(kernel, a_panels, b_panels, rows, columns, kK, true);
    size_t different = 0;
    for (size_t n = 1; n < 2 * kernel.a_lanes; ++n) {
      const Product some = Multiply(kernel, a_panels, b_panels, n, columns - n, kK, true);
      for (size_t i = 0; i < n; ++i) {
        different += std::memcmp(all.c.data() + i * all.stride, some.c.data() + i * some.stride,
                                 (columns - n) * sizeof(float)) != 0;
      }
    }
    CHECK(different == 0);
  });
}

TEST_CASE("infinity and NaN reach the elements they belong to and no others") {
  ForEachKernel([](const GemmKernel& kernel, bool) {
    Rng rng(4);
    constexpr size_t kK = 9;
    Factor a(kernel.a_lanes + 1, kK, true, rng);
    const Factor b(kernel.b_lanes + 1, kK, false, rng);
    const size_t last = a.lanes - 1;
    a.values[0 * a.lane_stride + 8] = std::numeric_limits<float>::infinity();
    a.values[last * a.lane_stride + 3] = std::bit_cast<float>(0x7F800001u);  // low bits only
    const Panels a_panels = Pack(kernel, true, a, a.lanes + kernel.a_lanes, kK);
    const Panels b_panels = Pack(kernel, false, b, b.lanes + kernel.b_lanes, kK);
    const Product product = Multiply(kernel, a_panels, b_panels, a.lanes, b.lanes, kK, false);
    for (size_t j = 0; j < b.lanes; ++j) {
      CHECK(std::isinf(product.c[j]));
      CHECK(std::isnan(product.c[last * product.stride + j]));
      for (size_t i = 1; i < last; ++i) CHECK(std::isfinite(product.c[i * product.stride + j]));
    }
  });
}

TEST_CASE("the peak counts its operations") {
  ForEachKernel([](const GemmKernel& kernel, bool) {
    CHECK(kernel.products(10) > 0);
    CHECK(kernel.products(30) == 3 * kernel.products(10));
  });
}

}  // namespace edgewise::kernels
