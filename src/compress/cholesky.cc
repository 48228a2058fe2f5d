#include "compress/cholesky.h"

#include <Eigen/Cholesky>
#include <algorithm>

namespace edgewise {
namespace {

constexpr Eigen::Index kBlock = 128;

}  // namespace

// Blocked; the work below each diagonal block is split over the pool.
bool Factorize(DoubleMatrix* a, ThreadPool* pool) {
  const Eigen::Index n = a->rows();
  for (Eigen::Index k = 0; k < n; k += kBlock) {
    const Eigen::Index size = std::min(kBlock, n - k), below = n - k - size;
    Eigen::Ref<DoubleMatrix> diagonal = a->block(k, k, size, size);
    if (Eigen::LLT<Eigen::Ref<DoubleMatrix>> llt(diagonal); llt.info() != Eigen::Success)
      return false;
    const auto tiles = static_cast<size_t>((below + kBlock - 1) / kBlock);
    const auto rows_of = [&](size_t tile) {
      return std::min(kBlock, below - static_cast<Eigen::Index>(tile) * kBlock);
    };
    const auto row_of = [&](size_t tile) {
      return k + size + static_cast<Eigen::Index>(tile) * kBlock;
    };
    pool->ParallelFor(tiles, 1, [&](size_t begin, size_t end, int) {
      for (size_t tile = begin; tile < end; ++tile) {
        auto part = a->block(row_of(tile), k, rows_of(tile), size);
        diagonal.triangularView<Eigen::Lower>().transpose().solveInPlace<Eigen::OnTheRight>(part);
      }
    });
    pool->ParallelFor(tiles, 1, [&](size_t begin, size_t end, int) {
      for (size_t tile = begin; tile < end; ++tile) {
        const auto left = a->block(row_of(tile), k, rows_of(tile), size);
        for (size_t other = 0; other <= tile; ++other) {
          a->block(row_of(tile), row_of(other), rows_of(tile), rows_of(other)).noalias() -=
              left * a->block(row_of(other), k, rows_of(other), size).transpose();
        }
      }
    });
  }
  return true;
}

}  // namespace edgewise
