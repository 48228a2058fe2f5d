// Schedules: the steps in which a model is pruned to its final sparsity.
#pragma once

#include <cstdint>
#include <vector>

#include "compress/prune/sparsity.h"

namespace edgewise {

// Returns what each of `steps` prunes to, the last `target`: shares s (1 - (1 - t / steps)^3),
// which take most at first (Zhu and Gupta 2017). Of N:M with the same M the next N above, but less
// than M; steps that would prune nothing are left out, so that 2:4 has at most two (3:4, 2:4).
std::vector<Sparsity> PruneSchedule(const Sparsity& target, uint32_t steps);

}  // namespace edgewise
