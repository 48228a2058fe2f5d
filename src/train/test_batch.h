// Test only: batches of given tokens.
#pragma once

#include <span>

#include "train/batch.h"

namespace edgewise::train {

// Appends a sequence that learns to predict each of its tokens but the first.
inline void AppendSequence(std::span<const int32_t> sequence, Batch* batch) {
  for (size_t i = 0; i < sequence.size(); ++i) {
    batch->tokens.push_back(sequence[i]);
    batch->targets.push_back(i + 1 < sequence.size() ? sequence[i + 1] : kNoTarget);
  }
  batch->lengths.push_back(static_cast<uint32_t>(sequence.size()));
}

}  // namespace edgewise::train
