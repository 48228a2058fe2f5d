// LoraAdapter: low-rank changes of a model's matrices, apart from the model (LoRA, Hu et al. 2021).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/checkpoint.h"

namespace edgewise {

// What is added to a matrix (out, in): (alpha / rank) B A.
struct LoraPair {
  std::string weight;  // GGUF: "blk.0.attn_q.weight"
  uint64_t rank, in, out;
  std::vector<float> a;  // (rank, in)
  std::vector<float> b;  // (out, rank), its rows in GGUF's order
};

struct LoraAdapter {
  double alpha = 0;  // above 0
  std::vector<LoraPair> pairs;
};

// Returns the model with the adapter in its matrices, which are F32 then: W + (alpha / rank) B A,
// or with `keep_zeros` that where W is not zero, and zero where it is. Errors: kInvalidArgument (a
// matrix that the model lacks, or of another shape, named).
Result<Checkpoint> MergeAdapter(const Checkpoint& model, LoraAdapter adapter,
                                bool keep_zeros = false);

}  // namespace edgewise
