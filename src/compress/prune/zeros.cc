#include "compress/prune/zeros.h"

#include <algorithm>

namespace edgewise {
namespace {

constexpr uint64_t kDenseShare = 10;     // a matrix with fewer zeros than one in so many is dense
constexpr uint32_t kGroups[] = {4, 64};  // of the sparse formats

bool TooFull(const std::vector<float>& row, uint32_t group) {
  if (row.size() % group != 0) return true;
  for (auto at = row.begin(); at != row.end(); at += group) {
    if (std::count(at, at + group, 0.0f) < group / 2) return true;
  }
  return false;
}

}  // namespace

bool ZeroScan::Add(const TensorView& matrix) {
  std::vector<float> row(matrix.shape.columns());
  uint64_t zeros = 0;
  for (uint64_t r = 0; r < matrix.shape.rows(); ++r) {
    matrix.DecodeRow(r, row.data());
    zeros += static_cast<uint64_t>(std::count(row.begin(), row.end(), 0.0f));
    for (uint32_t i = 0; i < 2; ++i) {
      if ((too_full_ >> i & 1) == 0 && TooFull(row, kGroups[i])) too_full_ |= 1u << i;
    }
  }
  weights_ += matrix.shape.elements();
  zeros_ += zeros;
  dense_ = kDenseShare * zeros < matrix.shape.elements();
  return !dense_;
}

double ZeroScan::share() const {
  if (dense_ || weights_ == 0) return 0;
  return static_cast<double>(zeros_) / static_cast<double>(weights_);
}

std::vector<DType> ZeroScan::Formats() const {
  std::vector<DType> formats;
  if (share() < 0.5) return formats;
  for (const DTypeInfo& info : AllDTypes()) {
    for (uint32_t i = 0; i < 2; ++i) {
      if (info.sparse_group == kGroups[i] && (too_full_ >> i & 1) == 0) formats.push_back(info.id);
    }
  }
  return formats;
}

}  // namespace edgewise
