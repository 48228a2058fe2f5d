// ZeroScan: what the zeros of a model's linear layers would save in a sparse format.
#pragma once

#include <cstdint>
#include <vector>

#include "quant/dtype.h"
#include "tensor/tensor.h"

namespace edgewise {

// Reads the matrices that pruning would change (IsPrunable), all of them. Not thread-safe.
class ZeroScan {
 public:
  // Counts the zeros of one matrix. Returns false when fewer than a tenth of its weights are 0: the
  // model is dense, and need not be read further.
  bool Add(const TensorView& matrix);

  bool dense() const { return dense_; }
  // The share of zeros; 0 for a dense model.
  double share() const;
  // The sparse formats that would hold every weight of a model with zeros in half of its weights
  // or more, in the order of AllDTypes.
  std::vector<DType> Formats() const;

 private:
  uint64_t weights_ = 0, zeros_ = 0;
  bool dense_ = false;
  uint32_t too_full_ = 0;  // bit i: the i-th kind of group has more than half other than 0
};

}  // namespace edgewise
