// Shapes, views and owned tensors. Row-major; the last dimension is contiguous: a linear layer is
// (out, in).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/check.h"
#include "base/result.h"
#include "quant/dtype.h"

namespace edgewise {

// Up to four dimensions, outermost first (GGUF lists them innermost first; readers turn them
// round).
class Shape {
 public:
  static constexpr int kMaxRank = 4;
  Shape() = default;  // rank 0: one value
  Shape(std::initializer_list<uint64_t> dims);
  // Errors: kBadData (rank above 4, product above 2^63).
  static Result<Shape> Make(std::span<const uint64_t> dims);

  int rank() const { return rank_; }
  uint64_t operator[](int i) const { return dims_[static_cast<size_t>(i)]; }
  uint64_t elements() const;
  uint64_t columns() const {
    return rank_ == 0 ? 1 : dims_[static_cast<size_t>(rank_ - 1)];
  }  // the contiguous one
  uint64_t rows() const { return columns() == 0 ? 0 : elements() / columns(); }
  bool operator==(const Shape&) const = default;
  std::string ToString() const;  // "[2048, 256]"

 private:
  int rank_ = 0;
  std::array<uint64_t, kMaxRank> dims_ = {};
};

// How the bytes of a tensor are arranged; its values do not depend on it.
enum class TensorLayout : uint8_t {
  kRows,    // row by row, each a run of blocks
  kPacked,  // a matrix in a block format, 16 rows interleaved for the kernels
            // (quant/packed_layout.h)
};

// The format and the layout for people: "q4_0", "q4_0 packed".
std::string FormatName(DType type, TensorLayout layout);

// Bytes a tensor of this type and shape takes; packed rows are padded to a multiple of 16. Errors:
// kBadData (the block does not divide the row, no matrix in a block format to be packed, overflow).
Result<uint64_t> TensorBytes(DType type, const Shape& shape,
                             TensorLayout layout = TensorLayout::kRows);

// A tensor somewhere else's memory: cheap to copy, owns nothing, valid as long as its owner. `data`
// may have any alignment, because a file may place a tensor anywhere, and is arranged by `layout`:
// read values by DecodeRow, blocks by CopyBlocks, which know both layouts.
struct TensorView {
  DType dtype = DType::kF32;
  Shape shape;
  const std::byte* data = nullptr;
  size_t bytes = 0;
  TensorLayout layout = TensorLayout::kRows;

  // Bytes of a row's blocks, in either layout.
  size_t row_bytes() const { return Info(dtype).RowBytes(shape.columns()); }
  // The blocks of row i; only of a tensor that is stored in rows.
  const std::byte* row(uint64_t i) const {
    EW_CHECK(layout == TensorLayout::kRows);
    return data + i * row_bytes();
  }
  // Decodes row i into columns() floats.
  void DecodeRow(uint64_t i, float* values) const {
    Decode(i * shape.columns(), shape.columns(), values);
  }
  // Values are counted row by row; `first` and `count` are multiples of the block.
  void Decode(uint64_t first, uint64_t count, float* values) const;
  void CopyBlocks(uint64_t first, uint64_t count, std::byte* blocks) const;
  std::span<const std::byte> as_bytes() const { return {data, bytes}; }
};

// An owned tensor, 64-byte aligned, or a view of memory that someone else keeps alive.
class Tensor {
 public:
  Tensor() = default;
  // Returns a tensor in rows that owns zeroed memory. Errors: kBadData, kOutOfMemory.
  static Result<Tensor> Allocate(DType type, const Shape& shape);
  // The same for memory that the caller writes whole: its bytes are unspecified.
  static Result<Tensor> AllocateUninitialized(DType type, const Shape& shape);
  // Returns a tensor that borrows `view`.
  static Tensor Borrow(const TensorView& view);

  const TensorView& view() const { return view_; }
  bool owned() const { return storage_ != nullptr; }
  // Writable bytes; only for owned tensors.
  std::byte* mutable_data();

 private:
  TensorView view_;
  struct Free {
    void operator()(std::byte* p) const;
  };
  std::unique_ptr<std::byte, Free> storage_;
};

struct NamedTensor {
  std::string name;
  TensorView view;
};

// The tensors of a file in file order, found by name in constant time.
class TensorIndex {
 public:
  // False when the name is already there.
  bool Add(std::string name, const TensorView& view);
  const TensorView* Find(std::string_view name) const;
  std::span<const NamedTensor> all() const { return tensors_; }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
  };
  std::vector<NamedTensor> tensors_;
  std::unordered_map<std::string, size_t, Hash, std::equal_to<>> by_name_;
};

}  // namespace edgewise
