// Mask: which weights of a matrix stay.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "compress/prune/sparsity.h"

namespace edgewise {

// One bit for each weight of a (rows, columns) matrix, 1 = kept, each row in 64-bit words of its
// own whose spare bits are 0. Writing to different rows from different threads is safe.
class Mask {
 public:
  Mask() = default;
  // Keeps nothing, or all.
  Mask(size_t rows, size_t columns, bool kept);
  // Keeps what is not 0 of `values` (rows, columns).
  static Mask OfValues(std::span<const float> values, size_t columns);

  size_t rows() const { return rows_; }
  size_t columns() const { return columns_; }
  bool kept(size_t row, size_t column) const {
    return (words_[row * row_words_ + column / 64] >> (column % 64) & 1) != 0;
  }
  void Keep(size_t row, size_t column) {
    words_[row * row_words_ + column / 64] |= uint64_t{1} << (column % 64);
  }
  // Without a branch, for loops that decide about every weight.
  void KeepIf(bool kept, size_t row, size_t column) {
    words_[row * row_words_ + column / 64] |= uint64_t{kept} << (column % 64);
  }
  void Prune(size_t row, size_t column) {
    words_[row * row_words_ + column / 64] &= ~(uint64_t{1} << (column % 64));
  }

  size_t CountKept() const;
  // Weights in which this mask and `other`, of the same shape, differ.
  size_t CountDifferent(const Mask& other) const;
  // The share of weights kept.
  double Density() const;
  // The N:M that it follows, with the smallest M of 4, 8, 16, 32 and 64; empty: none.
  std::optional<Sparsity> Pattern() const;
  // True when as many weights are pruned as `sparsity` asks for: M - N or more in each group of
  // each row, or in all as many as PrunedOf(columns) in each row.
  bool Holds(const Sparsity& sparsity) const;
  // Sets the pruned of `values` (rows, columns) to zero.
  void Apply(std::span<float> values) const;
  // Keeps what `other`, of the same shape, keeps too.
  Mask& operator&=(const Mask& other);
  friend bool operator==(const Mask&, const Mask&) = default;

  // Errors: kInvalidArgument (the mask is of another shape).
  Status CheckShape(size_t rows, size_t columns) const;

  // Bits as they are stored: row after row, ceil(columns / 8) bytes each; bit c % 8 of byte c / 8
  // is column c.
  std::vector<std::byte> ToBytes() const;
  // Errors: kBadData (too few or too many bytes, or a spare bit that is set).
  static Result<Mask> FromBytes(size_t rows, size_t columns, std::span<const std::byte> bytes);

 private:
  size_t rows_ = 0, columns_ = 0, row_words_ = 0;
  std::vector<uint64_t> words_;  // (rows, row_words)
};

}  // namespace edgewise
