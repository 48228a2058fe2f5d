// The error that quantized weights make in the output of a linear layer, from the second moments H
// of its input alone: E |(W - Q) x|^2 = tr((W - Q) H (W - Q)^T) over all tokens.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "model/checkpoint.h"
#include "quant/dtype.h"

namespace edgewise {

// At most `limit` rows of tensor `index`, evenly spaced, as floats: (rows, columns). Errors: those
// of Checkpoint::Load; kBadData (NaN or infinity).
Result<std::vector<float>> LoadRows(const Checkpoint& model, size_t index, size_t limit);

// Errors: kBadData (NaN or infinity in the (rows, columns) values of tensor `name`).
Status CheckFinite(const std::string& name, std::span<const float> values, size_t columns);

// Encodes rows of a matrix as the quantized file will hold them.
struct RowEncoding {
  DType type;
  std::span<const float> importance;  // (columns) of the scaled columns; empty: 1 each
  std::span<const float> scales;      // (columns) that multiply the columns before; empty: 1 each
};

// Returns the output error of `w` (rows, n) encoded so, for inputs with moments `h` (n, n); h empty
// is the identity. The sum does not depend on the number of threads.
double OutputError(std::span<const float> w, size_t n, const RowEncoding& encoding,
                   std::span<const float> h, ThreadPool* pool);

// The same for blocks that are there already: rows of `type`.
double OutputError(std::span<const float> w, size_t n, DType type, std::span<const std::byte> rows,
                   std::span<const float> h, ThreadPool* pool);

}  // namespace edgewise
