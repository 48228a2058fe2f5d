// Packing of matrices on their way to a file, so that the runtime need not do it at each load.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "compress/quantize/quantize.h"
#include "model/spec.h"
#include "tensor/tensor.h"

namespace edgewise {

struct PackingCount {
  size_t packed = 0;
  size_t left = 0;  // matrices in block formats that stay in rows and are packed at load
};

// Packs in `plan` the matrices in block formats that the runtime uses as linear layers. One that
// holds several layers stays in rows, with a reason, where a layer begins inside 16 rows.
PackingCount PlanPacking(const ModelSpec& spec, std::vector<TensorPlan>* plan);

// Packs the blocks of one matrix, which come row by row in pieces of any size.
class RowPacker {
 public:
  using Sink = FunctionRef<Status(std::span<const std::byte> bytes)>;
  RowPacker(DType type, const Shape& shape) : type_(type), columns_(shape.columns()) {}
  // Hands all groups of 16 rows that are complete now to `sink`. Errors: those of `sink`.
  Status Write(std::span<const std::byte> blocks, Sink sink);
  // Does the same for the rows left, padded to 16.
  Status Finish(Sink sink);

 private:
  DType type_;
  size_t columns_;
  std::vector<std::byte> rows_, packed_;
};

}  // namespace edgewise
