// What differs between a tensor in a Hugging Face folder and in a GGUF: the order of the rows of
// rotated heads, and norms that lack 1.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "model/arch/tensors.h"
#include "model/checkpoint.h"

namespace edgewise {

// Moves the rows of (rows, columns) values between Hugging Face's order, two halves of a head, and
// GGUF's, pairs.
std::vector<float> MoveHeadRows(const std::vector<float>& values, uint64_t rows, uint32_t heads,
                                bool to_gguf);

// The values of a tensor of the model that NeededTensors(model.spec()) names, as a Hugging Face
// folder holds them. Errors: those of Checkpoint::Load; kUnsupported (an architecture without such
// a folder).
Result<std::vector<float>> LoadForHf(const Checkpoint& model, const NeededTensor& needed);

}  // namespace edgewise
