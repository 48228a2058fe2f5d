// Gemm: products of float matrices on all threads of a pool, in F32 or with factors in BF16.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

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

// Owns the buffers into which factors are packed, at most 9 MiB and two panels; one caller at a
// time.
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
  // Part of one factor, packed: lanes [first, first + lanes) of it and k [k_first, k_first + k).
  struct Slab {
    const Matrix* matrix;
    bool lanes_are_rows;
    size_t panel;  // lanes
    void (*pack)(const kernels::GemmPackArgs& args);
    size_t first = 0, lanes = 0, k_first = 0, k = 0;
    char* packed = nullptr;
    size_t panel_stride = 0;  // bytes

    bool AlongK() const { return matrix->transposed != lanes_are_rows; }
    void Set(size_t first_lane, size_t lane_count, size_t first_k, size_t k_count,
             size_t lane_bytes);
    size_t PieceLanes() const;
    size_t PieceK() const;
    size_t Pieces() const;
    void Pack(size_t piece, size_t value_bytes) const;
  };
  void Pack(const Slab& a, const Slab* b);
  void MultiplySlabs(const Slab& a, const Slab& b, float* c, size_t c_stride, bool accumulate);

  ThreadPool* pool_;
  kernels::GemmKernel kernel_;
  Buffer a_, b_;
};

}  // namespace edgewise::train
