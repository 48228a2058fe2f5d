// What differs between a tensor in a Hugging Face folder and in a GGUF: the order of the rows of
// rotated heads, and norms that lack 1.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "model/arch/tensors.h"
#include "model/checkpoint.h"

namespace edgewise {

// True for the weights of a norm, which lack 1 there where Architecture::norms_add_one says so.
inline bool IsNorm(const NeededTensor& tensor) { return tensor.name.ends_with("norm.weight"); }

// The row of Hugging Face's order, two halves of a head of `head` rows, that is `row` of GGUF's,
// pairs: of interleaved RoPE pair i is rows 2i and 2i + 1.
inline uint64_t HalvesRow(uint64_t row, uint64_t head) {
  const uint64_t i = row % head;
  return row - i + i % 2 * (head / 2) + i / 2;
}

// Moves the rows of (rows, columns) values between the two orders.
std::vector<float> MoveHeadRows(const std::vector<float>& values, uint64_t rows, uint32_t heads,
                                bool to_gguf);

// The values of a tensor of the model that NeededTensors(model.spec()) names, as a Hugging Face
// folder holds them. Errors: those of Checkpoint::Load; kUnsupported (an architecture without such
// a folder).
Result<std::vector<float>> LoadForHf(const Checkpoint& model, const NeededTensor& needed);

}  // namespace edgewise
