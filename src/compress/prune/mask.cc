#include "compress/prune/mask.h"

#include <algorithm>
#include <bit>

#include "base/check.h"
#include "base/strings.h"

namespace edgewise {

Mask::Mask(size_t rows, size_t columns, bool kept)
    : rows_(rows),
      columns_(columns),
      row_words_((columns + 63) / 64),
      words_(rows * row_words_, kept ? ~uint64_t{0} : 0) {
  if (!kept || columns % 64 == 0) return;
  for (size_t row = 1; row <= rows; ++row) {
    words_[row * row_words_ - 1] = (uint64_t{1} << (columns % 64)) - 1;
  }
}

Mask Mask::OfValues(std::span<const float> values, size_t columns) {
  Mask mask(values.size() / columns, columns, false);
  for (size_t row = 0; row < mask.rows_; ++row) {
    for (size_t c = 0; c < columns; ++c) mask.KeepIf(values[row * columns + c] != 0, row, c);
  }
  return mask;
}

size_t Mask::CountKept() const {
  size_t count = 0;
  for (const uint64_t word : words_) count += static_cast<size_t>(std::popcount(word));
  return count;
}

size_t Mask::CountDifferent(const Mask& other) const {
  EW_CHECK(rows_ == other.rows_ && columns_ == other.columns_);
  size_t count = 0;
  for (size_t i = 0; i < words_.size(); ++i) {
    count += static_cast<size_t>(std::popcount(words_[i] ^ other.words_[i]));
  }
  return count;
}

double Mask::Density() const {
  return static_cast<double>(CountKept()) / static_cast<double>(rows_ * columns_);
}

std::optional<Sparsity> Mask::Pattern() const {
  for (const uint32_t group : {4u, 8u, 16u, 32u, 64u}) {
    if (columns_ % group != 0) continue;
    uint32_t most = 0;
    for (size_t row = 0; row < rows_ && most < group; ++row) {
      for (size_t first = 0; first < columns_; first += group) {
        uint32_t count = 0;
        for (size_t c = first; c < first + group; ++c) count += kept(row, c) ? 1 : 0;
        most = std::max(most, count);
      }
    }
    // Groups that are mostly emptier than the fullest are chance.
    if (most == 0 || most == group || Density() * group < most - 0.5) continue;
    auto sparsity = Sparsity::NOfM(most, group);
    if (sparsity) return *sparsity;
  }
  return {};
}

bool Mask::Holds(const Sparsity& sparsity) const {
  if (!sparsity.structured()) {
    return rows_ * columns_ - CountKept() >= rows_ * sparsity.PrunedOf(columns_);
  }
  if (columns_ % sparsity.group != 0) return false;
  for (size_t row = 0; row < rows_; ++row) {
    for (size_t first = 0; first < columns_; first += sparsity.group) {
      uint32_t count = 0;
      for (size_t c = first; c < first + sparsity.group; ++c) count += kept(row, c) ? 1 : 0;
      if (count > sparsity.keep) return false;
    }
  }
  return true;
}

void Mask::Apply(std::span<float> values) const {
  EW_CHECK(values.size() == rows_ * columns_);
  for (size_t row = 0; row < rows_; ++row) {
    for (size_t c = 0; c < columns_; ++c) {
      if (!kept(row, c)) values[row * columns_ + c] = 0;
    }
  }
}

Mask& Mask::operator&=(const Mask& other) {
  EW_CHECK(rows_ == other.rows_ && columns_ == other.columns_);
  for (size_t i = 0; i < words_.size(); ++i) words_[i] &= other.words_[i];
  return *this;
}

Status Mask::CheckShape(size_t rows, size_t columns) const {
  if (rows == rows_ && columns == columns_) return Ok{};
  return MakeError(Code::kInvalidArgument,
                   "the mask is for %zu x %zu weights and the matrix has %zu x %zu: use the mask "
                   "made for this tensor",
                   rows_, columns_, rows, columns);
}

std::vector<std::byte> Mask::ToBytes() const {
  const size_t row_bytes = (columns_ + 7) / 8;
  std::vector<std::byte> bytes(rows_ * row_bytes);
  for (size_t row = 0; row < rows_; ++row) {
    for (size_t b = 0; b < row_bytes; ++b) {
      bytes[row * row_bytes + b] =
          static_cast<std::byte>(words_[row * row_words_ + b / 8] >> (b % 8 * 8));
    }
  }
  return bytes;
}

Result<Mask> Mask::FromBytes(size_t rows, size_t columns, std::span<const std::byte> bytes) {
  const size_t row_bytes = (columns + 7) / 8;
  if (bytes.size() != rows * row_bytes) {
    return MakeError(Code::kBadData, "a mask of %zu x %zu weights takes %zu bytes, not %zu", rows,
                     columns, rows * row_bytes, bytes.size());
  }
  Mask mask(rows, columns, false);
  for (size_t row = 0; row < rows; ++row) {
    for (size_t b = 0; b < row_bytes; ++b) {
      mask.words_[row * mask.row_words_ + b / 8] |=
          std::to_integer<uint64_t>(bytes[row * row_bytes + b]) << (b % 8 * 8);
    }
    if (columns % 64 != 0 && mask.words_[(row + 1) * mask.row_words_ - 1] >> (columns % 64) != 0) {
      return MakeError(Code::kBadData, "row %zu of the mask keeps weights beyond its %zu columns",
                       row, columns);
    }
  }
  return mask;
}

}  // namespace edgewise
