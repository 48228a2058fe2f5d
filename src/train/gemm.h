// Gemm: the matrix product of training, split over threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/thread_pool.h"

namespace edgewise::train {

enum class Precision : uint8_t { kF32, kBf16 };

// A matrix as the product reads it: element (i, j) is data[i * stride + j], or data[j * stride + i]
// when transposed.
struct Matrix {
  const float* data;
  size_t stride;
  bool transposed = false;
};

class Gemm {
 public:
  Gemm(ThreadPool* pool, Precision precision) : pool_(pool), precision_(precision) {}
  void Multiply(const Matrix& a, const Matrix& b, size_t m, size_t n, size_t k, float* c,
                size_t c_stride, bool accumulate) {
    for (size_t i = 0; i < m; ++i) {
      for (size_t j = 0; j < n; ++j) {
        float sum = accumulate ? c[i * c_stride + j] : 0;
        for (size_t l = 0; l < k; ++l) {
          const float x = a.transposed ? a.data[l * a.stride + i] : a.data[i * a.stride + l];
          const float y = b.transposed ? b.data[j * b.stride + l] : b.data[l * b.stride + j];
          sum += x * y;
        }
        c[i * c_stride + j] = sum;
      }
    }
  }

 private:
  ThreadPool* pool_;
  Precision precision_;
};

}  // namespace edgewise::train
