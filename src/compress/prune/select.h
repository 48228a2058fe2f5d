// Selection: from scores to the weights that are pruned, those with the lowest scores of each set
// that is compared. Counts are exact; of equal scores the first by position go first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "compress/prune/mask.h"
#include "compress/prune/sparsity.h"

namespace edgewise {

// Which weights compete when sparsity is unstructured; N:M compares those of each group.
enum class PruneScope : uint8_t {
  kRow,     // those of each row: Wanda, RIA
  kMatrix,  // all of a matrix: magnitude
};

// Calls prune(index) for the `count` lowest of `scores`, which are >= 0, by rising index.
void SelectLowest(std::span<const float> scores, size_t count,
                  FunctionRef<void(size_t index)> prune);

// Returns bit i set for the `keep` highest of `scores`, at most 64 and >= 0.
uint64_t SelectOfGroup(std::span<const float> scores, size_t keep);

// Prunes the lowest of `scores` (rows, columns), >= 0: M - N in each group, or
// sparsity.PrunedOf(weights compared). Does not depend on the number of threads. Errors:
// kInvalidArgument (Sparsity::CheckColumns).
Result<Mask> SelectMask(std::span<const float> scores, size_t columns, const Sparsity& sparsity,
                        PruneScope scope, ThreadPool* pool);

// The exact threshold over all matrices of a model, whose scores are never in memory together:
// show every matrix to Count, then in the same order to Refine, then to Select. Of equal scores at
// the threshold, those of the first matrices go first. Not thread-safe.
class GlobalSelection {
 public:
  // Prunes PrunedOf(all scores counted) of the unstructured `sparsity`.
  explicit GlobalSelection(const Sparsity& sparsity);
  void Count(std::span<const float> scores);
  void Refine(std::span<const float> scores);
  Mask Select(std::span<const float> scores, size_t columns);

 private:
  enum class Pass : uint8_t { kCount, kRefine, kSelect };
  void Advance(Pass to);
  Sparsity sparsity_;
  Pass pass_ = Pass::kCount;
  std::vector<uint64_t> counts_;  // by upper or by lower half of the scores' bits
  uint64_t left_ = 0;             // to prune of scores >= threshold, as far as it is known
  uint32_t threshold_ = 0;        // bits of a score
};

}  // namespace edgewise
