// Exact and near duplicates among texts.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "base/thread_pool.h"

namespace edgewise {

// What a text repeats.
struct Duplicate {
  size_t original = 0;    // the first text of its group; its own index where it repeats nothing
  double similarity = 0;  // to the most similar text of the group that it was compared with
  bool exact = false;     // the bytes of an earlier text
};

// Groups texts whose sets of word trigrams have a Jaccard similarity of at least `threshold` (above
// 0, at most 1) with a member of the group. Pairs to compare come from MinHash with 20 bands of 6
// (Broder 1997; Leskovec et al., Mining of Massive Datasets, ch. 3), which misses a pair of
// similarity 0.8 once in 400; then the true similarity is computed. In each band a text is compared
// with at most 32 before it, so that time is linear in the texts. Texts without any word are not
// near duplicates of anything. The result does not depend on the number of threads. Errors:
// kCancelled.
Result<std::vector<Duplicate>> FindDuplicates(const std::vector<std::string>& texts,
                                              double threshold, ThreadPool* pool,
                                              Progress* progress);

}  // namespace edgewise
