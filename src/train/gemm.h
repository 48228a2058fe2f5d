// Gemm: products of float matrices on all threads of a pool, in F32 or with factors in BF16.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/gemm.h"

namespace edgewise::train {

enum class Precision : uint8_t { kF32, kBf16 };

// A matrix as the product reads it, row by row: element (i, j) is data[i * stride + j], or
// data[j * stride + i] when transposed.
struct Matrix {
  const float* data;
  size_t stride;  // floats
  bool transposed = false;
};

// Owns the buffers into which factors are packed: at most 8 MiB and a panel of columns, and 192 KiB
// and a panel of rows for each thread. One caller at a time.
class Gemm {
 public:
  // Uses the kernels of this CPU (kernels::Active); `pool` must outlive this.
  Gemm(ThreadPool* pool, Precision precision);
  // The same with a kernel of choice.
  Gemm(ThreadPool* pool, const kernels::GemmKernel& kernel);

  // Computes c (m, n), rows c_stride floats apart, = a (m, k) * b (k, n), plus c before where
  // `accumulate`. In BF16 both factors are rounded to nearest even on the way in, sums are F32. An
  // element is summed in an order that depends on k alone: not on threads, on m, or on n.
  void Multiply(const Matrix& a, const Matrix& b, size_t m, size_t n, size_t k, float* c,
                size_t c_stride, bool accumulate);

 private:
  // Packed panels: 64-byte aligned memory that only grows.
  struct Buffer {
    char* Reserve(size_t bytes);
    struct Free {
      void operator()(char* p) const;
    };
    std::unique_ptr<char, Free> data;
    size_t size = 0;
  };
  struct Product;
  struct Range {
    size_t first, count;
  };
  void PackColumns(const Product& product, Range columns, Range k, char* packed);
  void MultiplyRows(const Product& product, Range columns, Range k, const char* packed);

  ThreadPool* pool_;
  kernels::GemmKernel kernel_;
  std::vector<Buffer> rows_;  // of a, by thread
  Buffer columns_;            // of b, for all threads
};

}  // namespace edgewise::train
