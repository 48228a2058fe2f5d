// Products of whole matrices against double precision, in every use, on any number of threads.
#include "train/gemm.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "base/half.h"
#include "base/rng.h"
#include "kernels/kernels.h"

namespace edgewise::train {
namespace {

constexpr float kUntouched = -12345.0f;

// A (rows, columns) matrix, maybe stored transposed, with gaps between the rows in memory.
struct Stored {
  std::vector<float> values;
  Matrix matrix;

  Stored(size_t rows, size_t columns, bool transposed, uint64_t seed) {
    const size_t lines = transposed ? columns : rows, length = transposed ? rows : columns;
    const size_t stride = length + 3;
    values.resize(lines * stride + 1);
    Rng rng(seed);
    for (float& value : values) value = static_cast<float>(rng.Gaussian());
    matrix = {values.data(), stride, transposed};
  }
  float At(size_t i, size_t j) const {
    return values[matrix.transposed ? j * matrix.stride + i : i * matrix.stride + j];
  }
};

struct Case {
  size_t m, n, k;
};

std::vector<float> Multiply(Gemm& gemm, const Stored& a, const Stored& b, const Case& of,
                            bool accumulate) {
  const size_t stride = of.n + 2;
  std::vector<float> c(of.m * stride + 1, kUntouched);
  for (size_t i = 0; accumulate && i < of.m; ++i) {
    for (size_t j = 0; j < of.n; ++j) c[i * stride + j] = static_cast<float>(i % 7);
  }
  gemm.Multiply(a.matrix, b.matrix, of.m, of.n, of.k, c.data(), stride, accumulate);
  return c;
}

double Rounded(float value, bool bf16) {
  return static_cast<double>(bf16 ? Bf16ToFloat(FloatToBf16(value)) : value);
}

// Elements of every `step`th row and column further from the exact sum than roundings allow, and
// writes beyond the columns.
size_t Wrong(const std::vector<float>& c, const Stored& a, const Stored& b, const Case& of,
             bool bf16, bool accumulate, size_t step) {
  size_t wrong = 0;
  const size_t stride = of.n + 2;
  for (size_t i = 0; i < of.m; i += i + step < of.m ? step : 1) {
    for (size_t j = 0; j < of.n; j += j + step < of.n ? step : 1) {
      double exact = accumulate ? static_cast<double>(i % 7) : 0, size = exact;
      for (size_t p = 0; p < of.k; ++p) {
        const double term = Rounded(a.At(i, p), bf16) * Rounded(b.At(p, j), bf16);
        exact += term;
        size += std::fabs(term);
      }
      const double bound = static_cast<double>(of.k + 2) * 0x1p-24 * size;
      wrong += !(std::fabs(static_cast<double>(c[i * stride + j]) - exact) <= bound);
    }
    for (size_t j = of.n; j < stride; ++j) wrong += c[i * stride + j] != kUntouched;
  }
  return wrong;
}

template <class Function>
void ForEachKernel(Function function) {
  const kernels::KernelList list = kernels::Available();
  for (size_t i = 0; i < list.size; ++i) {
    for (const bool bf16 : {false, true}) {
      CAPTURE(std::string(list.items[i].name));
      CAPTURE(bf16);
      function(bf16 ? list.items[i].gemm_bf16 : list.items[i].gemm_f32, bf16);
    }
  }
}

}  // namespace

TEST_CASE("products of small matrices of any size in every use") {
  ThreadPool pool(2);
  ForEachKernel([&](const kernels::GemmKernel& kernel, bool bf16) {
    Gemm gemm(&pool, kernel);
    uint64_t seed = 1;
    for (const size_t m : {1, 2, 5, 13, 33, 70}) {
      for (const size_t n : {1, 3, 16, 31, 65}) {
        for (const size_t k : {1, 2, 7, 32, 99}) {
          for (const int use : {0, 1, 2, 3}) {
            const Case of{m, n, k};
            const Stored a(m, k, use % 2 == 1, ++seed), b(k, n, use >= 2, ++seed);
            const bool accumulate = seed % 3 == 0;
            const std::vector<float> c = Multiply(gemm, a, b, of, accumulate);
            CAPTURE(m);
            CAPTURE(n);
            CAPTURE(k);
            CAPTURE(use);
            CHECK(Wrong(c, a, b, of, bf16, accumulate, 1) == 0);
          }
        }
      }
    }
  });
}

TEST_CASE("products that are cut along rows, columns and k") {
  ThreadPool pool(3);
  // The last one's columns are packed for a part of k at a time.
  for (const Case& of :
       {Case{9, 8200, 800}, Case{8200, 9, 800}, Case{150, 170, 3000}, Case{5, 240, 20000}}) {
    for (const bool transposed : {false, true}) {
      const Stored a(of.m, of.k, transposed, 1), b(of.k, of.n, !transposed, 2);
      CAPTURE(of.m);
      CAPTURE(of.n);
      CAPTURE(transposed);
      ForEachKernel([&](const kernels::GemmKernel& kernel, bool bf16) {
        Gemm gemm(&pool, kernel);
        const std::vector<float> c = Multiply(gemm, a, b, of, true);
        CHECK(Wrong(c, a, b, of, bf16, true, 61) == 0);
      });
    }
  }
}

TEST_CASE("nothing along k gives zeros, or what was there") {
  ThreadPool pool(1);
  Gemm gemm(&pool, Precision::kF32);
  std::vector<float> c = {1, 2, 3, 4, 5, 6};
  const float none = 0;
  gemm.Multiply({&none, 1}, {&none, 1}, 2, 2, 0, c.data(), 3, true);
  CHECK(c == std::vector<float>{1, 2, 3, 4, 5, 6});
  gemm.Multiply({&none, 1}, {&none, 1}, 2, 2, 0, c.data(), 3, false);
  CHECK(c == std::vector<float>{0, 0, 3, 0, 0, 6});
  gemm.Multiply({&none, 1}, {&none, 1}, 0, 2, 5, c.data(), 3, false);
  gemm.Multiply({&none, 1}, {&none, 1}, 2, 0, 5, c.data(), 3, false);
  CHECK(c == std::vector<float>{0, 0, 3, 0, 0, 6});
}

TEST_CASE("an element does not depend on threads nor on how rows are cut") {
  ForEachKernel([](const kernels::GemmKernel& kernel, bool) {
    const Case of{310, 210, 900};
    const Stored a(of.m, of.k, false, 1), b(of.k, of.n, true, 2);
    ThreadPool one(1), four(4);
    Gemm alone(&one, kernel), together(&four, kernel);
    const std::vector<float> c = Multiply(alone, a, b, of, true);
    CHECK(c == Multiply(together, a, b, of, true));

    std::vector<float> parts(c.size(), kUntouched);
    const size_t stride = of.n + 2;
    for (size_t i = 0; i < of.m; ++i) {
      for (size_t j = 0; j < of.n; ++j) parts[i * stride + j] = static_cast<float>(i % 7);
    }
    for (size_t i = 0, rows = 1; i < of.m; i += rows, rows = std::min(2 * rows, of.m - i)) {
      const Matrix some{a.matrix.data + i * a.matrix.stride, a.matrix.stride};
      together.Multiply(some, b.matrix, rows, of.n, of.k, parts.data() + i * stride, stride, true);
    }
    CHECK(c == parts);
  });
}

TEST_CASE("each precision has its kernels") {
  ThreadPool pool(1);
  const float a = 1 + 0x1p-12f, b = 3;  // a is 1 in BF16
  float c = 0;
  Gemm(&pool, Precision::kF32).Multiply({&a, 1}, {&b, 1}, 1, 1, 1, &c, 1, false);
  CHECK(c == a * b);
  Gemm(&pool, Precision::kBf16).Multiply({&a, 1}, {&b, 1}, 1, 1, 1, &c, 1, true);
  CHECK(c == a * b + b);
}

}  // namespace edgewise::train
