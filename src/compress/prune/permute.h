// Channel permutation: an order of the input columns in which N:M groups keep more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "compress/prune/sparsity.h"

namespace edgewise {

struct ChannelOrder {
  std::vector<uint32_t> columns;  // place c takes old column columns[c]
  double kept_score = 0;          // sum of the scores that N:M keeps in this order
  double kept_score_before = 0;   // in the order as it was
};

// Returns an order of the columns of `scores` (rows, columns), >= 0, for the N:M `sparsity`:
// columns by falling sum are dealt to groups in zig-zag, then of each place in the groups in turn
// the columns are assigned anew so that the kept sum is greatest (RIA, Zhang et al. 2024). Never
// keeps less than the order as it was. Whoever gives the matrix its inputs must apply the order
// too. Does not depend on the number of threads. Errors: kInvalidArgument (not N:M,
// Sparsity::CheckColumns).
Result<ChannelOrder> PermuteChannels(std::span<const float> scores, size_t columns,
                                     const Sparsity& sparsity, ThreadPool* pool);

}  // namespace edgewise
