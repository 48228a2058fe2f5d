// Rotation: the same model in other coordinates, in which single columns with large values are
// spread over all (QuaRot, Ashkboos et al. 2024; the part of it that costs nothing at run time).
//
// Residual stream: x' = x R with R = diag(signs) H, H the orthonormal Hadamard matrix. The weights
// of norms go into the matrices behind them, W' = W diag(gamma) R; matrices that write to the
// stream become R^T W. Values of attention: v' = H v in each head, undone in the columns of
// attn_output. The result is an ordinary model of the same architecture.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "model/checkpoint.h"

namespace edgewise {

struct Rotation {
  Checkpoint model;  // every rotated tensor is F32
  // False where the embedding is also the output matrix: the last norm's weight fits into only one
  // of the two; and where a norm stands between a matrix and the stream.
  bool residual = false;
  bool values = false;
};

// `seed` draws the signs. Errors: kUnsupported (nothing can be rotated), those of Checkpoint::Load.
Result<Rotation> Rotate(const Checkpoint& model, uint64_t seed);

}  // namespace edgewise
