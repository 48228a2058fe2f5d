// Test only: how well scores tell planted examples from clean ones.
#pragma once

#include <cstddef>
#include <vector>

namespace edgewise {

// The area under the ROC curve: the probability that a planted example scores higher than a clean
// one, equal scores counted half (Mann-Whitney).
inline double Auc(const std::vector<double>& scores, const std::vector<bool>& planted) {
  double wins = 0, pairs = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    for (size_t j = 0; j < scores.size(); ++j) {
      if (!planted[i] || planted[j]) continue;
      wins += scores[i] > scores[j] ? 1 : scores[i] == scores[j] ? 0.5 : 0;
      ++pairs;
    }
  }
  return wins / pairs;
}

}  // namespace edgewise
