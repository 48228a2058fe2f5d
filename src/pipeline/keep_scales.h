// What training made of the scales of blocks, kept where the writer of the model finds it.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "base/result.h"
#include "base/thread_pool.h"
#include "pipeline/tensor_journal.h"
#include "train/block_scales.h"

namespace edgewise {

// Appends each tensor whose scales were learned to the journal, where `index_of` gives its number,
// unless it is there. Errors: those of TensorJournal.
Status KeepScales(const train::BlockScales& scales, std::span<const float> learned,
                  FunctionRef<size_t(const std::string& name)> index_of, TensorJournal* journal);

}  // namespace edgewise
