// Sparsity: how many weights of a matrix pruning takes away, and how free it is in where.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace edgewise {

// Unstructured: a share of the weights. N:M: of each M consecutive inputs of a row M - N are
// pruned, which sparse formats and hardware can use.
struct Sparsity {
  double ratio = 0;    // of the weights that are pruned, in [0, 1); 1 - N/M for N:M
  uint32_t keep = 0;   // N; 0: unstructured
  uint32_t group = 0;  // M, at most 64; 0: unstructured

  // Reads "50%", "0.5", or "2:4" for N:M. Errors: kInvalidArgument.
  static Result<Sparsity> Parse(std::string_view text);
  // Errors: kInvalidArgument (`ratio` is not in [0, 1)).
  static Result<Sparsity> Unstructured(double ratio);
  // Errors: kInvalidArgument (not 1 <= keep < group <= 64).
  static Result<Sparsity> NOfM(int64_t keep, int64_t group);

  bool structured() const { return group != 0; }
  // The weights pruned of `count` that are compared: floor(ratio * count), where a decimal such as
  // 0.29 counts as itself and not as the nearest binary fraction below.
  size_t PrunedOf(size_t count) const;
  // Errors: kInvalidArgument (M does not divide rows of `columns` weights).
  Status CheckColumns(size_t columns) const;
  // "2:4" or "50%".
  std::string ToString() const;
};

}  // namespace edgewise
