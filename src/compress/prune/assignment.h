#pragma once

#include <cstddef>
#include <vector>

namespace edgewise {

// Returns for each of n rows a column of its own so that the sum of `scores` (n, n) there is
// greatest: the linear sum assignment problem, by shortest augmenting paths with potentials (Kuhn
// 1955, Jonker and Volgenant 1987), O(n^3).
std::vector<size_t> MaximalAssignment(const std::vector<double>& scores, size_t n);

}  // namespace edgewise
