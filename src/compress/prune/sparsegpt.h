// SparseGPT (Frantar and Alistarh 2023): prunes from left to right and lets the columns not yet
// seen make up for what each pruned weight adds to the output error.
//
// The paper works on U, H^-1 = U^T U. Here H = R R^T (feedback.h), so that U = R^-1, and what the
// columns before a block ask of it is one product with R and one with the inverse of R's diagonal
// block, which is U's. The masks are the paper's: lowest w^2 / U_ii^2 = (w R_ii)^2.
#pragma once

#include <cstddef>
#include <span>

#include "base/result.h"
#include "base/thread_pool.h"
#include "compress/prune/input_metric.h"
#include "compress/prune/mask.h"
#include "compress/prune/rounding.h"
#include "compress/prune/sparsity.h"

namespace edgewise {

// Columns that are pruned together: 128, or the most whole groups of M in 128.
size_t SweepColumns(const Sparsity& sparsity);

// Prunes `w` (rows, n). Unstructured: the lowest of all rows in each SweepColumns, so that after
// each the pruned number PrunedOf(weights so far), exactly (the paper's code takes one more in each
// block). N:M: M - N of each group when the sweep reaches it. `rounder`, if not null, rounds what
// is kept as the sweep passes; its group must divide SweepColumns and n, and M the group. The
// result does not depend on the number of threads. Errors: kInvalidArgument
// (Sparsity::CheckColumns, shapes, the rounder's group); kBadData (NaN or infinity, given
// or by overflow). What `within` (rows, n), if not null, does not keep goes first.
Result<PrunedMatrix> PruneSparseGpt(std::span<const float> w, const InputMetric& input,
                                    const Sparsity& sparsity, GroupRounder* rounder,
                                    ThreadPool* pool, const Mask* within = nullptr);

// The same weight updates for a mask that is given. With a rounder and the values and mask of
// PruneAlps this rounds them with feedback: about half the error of pruning and rounding in one
// sweep. The error returned is against `w`. Errors: those above; kInvalidArgument
// (Mask::CheckShape).
Result<PrunedMatrix> UpdateForMask(std::span<const float> w, const InputMetric& input,
                                   const Mask& mask, GroupRounder* rounder, ThreadPool* pool);

}  // namespace edgewise
