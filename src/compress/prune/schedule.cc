#include "compress/prune/schedule.h"

#include <algorithm>

namespace edgewise {

std::vector<Sparsity> PruneSchedule(const Sparsity& target, uint32_t steps) {
  std::vector<Sparsity> schedule;
  uint32_t pruned = 0;  // of M, so far
  for (uint32_t t = 1; t < steps; ++t) {
    const double left = 1 - static_cast<double>(t) / steps;
    const double ratio = target.ratio * (1 - left * left * left);
    if (!target.structured()) {
      schedule.push_back({.ratio = ratio});
      continue;
    }
    const auto count = std::max(1u, static_cast<uint32_t>(ratio * target.group));
    if (count <= pruned || count >= target.group - target.keep) continue;
    pruned = count;
    schedule.push_back({.ratio = static_cast<double>(count) / target.group,
                        .keep = target.group - count,
                        .group = target.group});
  }
  schedule.push_back(target);
  return schedule;
}

}  // namespace edgewise
