// Cholesky factors of second moments in double precision.
#pragma once

#include <Eigen/Core>

#include "base/thread_pool.h"

namespace edgewise {

using DoubleMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Replaces the lower triangle of the symmetric `a`, of which nothing else is read, by L of
// L L^T = a. Returns false when `a` is not positive definite. Does not depend on the number of
// threads.
bool Factorize(DoubleMatrix* a, ThreadPool* pool);

}  // namespace edgewise
