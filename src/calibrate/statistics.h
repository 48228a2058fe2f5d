// InputStatistics: what calibration learns about the input of a linear layer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "tensor/tensor.h"

namespace edgewise {

// Moments of each input column over tokens.
struct ColumnMoments {
  uint64_t tokens = 0;
  std::vector<double> sum;          // (columns); empty: not known, as from calibration files
  std::vector<double> sum_squares;  // (columns)
  std::vector<double> sum_abs;      // (columns)
  std::vector<float> max_abs;       // (columns)

  explicit ColumnMoments(size_t columns = 0)
      : sum(columns), sum_squares(columns), sum_abs(columns), max_abs(columns) {}
  size_t columns() const { return max_abs.size(); }
  // Adds (n, columns) inputs, rows `stride` floats apart.
  void Add(const float* rows, size_t n, size_t stride);
  void Merge(const ColumnMoments& other);  // of as many columns
};

// H = sum over tokens of x x^T in float32: the Hessian of a linear layer's squared error, up to a
// factor. Or sum x z^T of two inputs. Products of 512 tokens are summed by the F32 kernel, then
// added. Not thread-safe; results do not depend on the number of threads.
class ProductSum {
 public:
  static constexpr size_t kPanel = 512;  // tokens multiplied together
  static constexpr size_t kTile = 64;    // rows of the sum that are one piece of work

  // Errors: kOutOfMemory.
  static Result<ProductSum> Create(size_t columns, ThreadPool* pool);
  // Of x z^T, both of `columns`. Errors: kOutOfMemory.
  static Result<ProductSum> CreateCross(size_t columns, ThreadPool* pool);
  // Adds n inputs, rows `stride` floats apart.
  void Add(const float* rows, size_t n, size_t stride);
  // Adds n inputs x and z, for CreateCross.
  void AddCross(const float* x, size_t x_stride, const float* z, size_t z_stride, size_t n);
  size_t columns() const { return columns_; }
  // The sum so far, (columns, columns).
  float* Finish();

 private:
  ProductSum() = default;
  bool cross() const { return left_.owned(); }
  void Flush();
  ThreadPool* pool_ = nullptr;
  size_t columns_ = 0;
  size_t waiting_ = 0;  // tokens in the panel
  Tensor sum_;          // (columns, columns); of x x^T its lower triangle
  Tensor panel_;        // (columns, 512), tokens innermost: x, or z where there are both
  Tensor left_;         // x where there are both, else empty
};

}  // namespace edgewise
