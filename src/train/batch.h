// Batch: token sequences one behind the other, without padding, and what is to follow each token.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace edgewise::train {

inline constexpr int32_t kNoTarget = -1;

// Where a sequence begins in a corpus.
struct Origin {
  uint64_t document = 0;
  uint64_t token = 0;  // of that document
};

// Sequences of any lengths packed into rows; a token sees those of its own sequence only, and
// positions begin at 0 in each.
struct Batch {
  std::vector<int32_t> tokens;    // (n)
  std::vector<int32_t> targets;   // (n): the token that is to follow, or kNoTarget
  std::vector<uint32_t> lengths;  // of the sequences, at least 1 each, n in all
  std::vector<Origin> origins;    // of the sequences; empty: of no corpus
  // (n): 1 where the student itself chose the target, which is no truth to learn; empty: nowhere.
  std::vector<uint8_t> sampled;

  size_t size() const { return tokens.size(); }
  size_t CountTargets() const {
    size_t count = 0;
    for (const int32_t target : targets) count += target != kNoTarget;
    return count;
  }
};

}  // namespace edgewise::train
