#include "tensor/tensor.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/strings.h"
#include "quant/packed.h"

namespace edgewise {
namespace {

constexpr size_t kTensorAlignment = 64;
constexpr size_t kHugePageBytes = 2u << 20;
constexpr size_t kHugeTensorBytes = 2 * kHugePageBytes;  // from here on huge pages pay
constexpr uint64_t kMaxElements = 1ull << 63;

// True when the dimensions multiply, in any order, to at most kMaxElements. A zero counts as one,
// so that rows, columns and strides of an empty shape stay in range too.
bool ProductFits(std::span<const uint64_t> dims) {
  uint64_t product = 1;
  for (const uint64_t dim : dims) {
    if (MulOverflows(product, dim == 0 ? 1 : dim, &product)) return false;
  }
  return product <= kMaxElements;
}

std::string DimsToString(std::span<const uint64_t> dims) {
  std::string text = "[";
  for (size_t i = 0; i < dims.size(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(dims[i]);
  }
  return text + "]";
}

}  // namespace

Shape::Shape(std::initializer_list<uint64_t> dims) {
  EW_CHECK(dims.size() <= static_cast<size_t>(kMaxRank));
  EW_CHECK(ProductFits({dims.begin(), dims.size()}));
  for (const uint64_t dim : dims) dims_[static_cast<size_t>(rank_++)] = dim;
}

Result<Shape> Shape::Make(std::span<const uint64_t> dims) {
  if (dims.size() > static_cast<size_t>(kMaxRank)) {
    return MakeError(Code::kBadData, "%zu dimensions; at most %d are possible", dims.size(),
                     kMaxRank);
  }
  if (!ProductFits(dims)) {
    return MakeError(Code::kBadData, "the shape %s has more than 2^63 values",
                     DimsToString(dims).c_str());
  }
  Shape shape;
  for (const uint64_t dim : dims) shape.dims_[static_cast<size_t>(shape.rank_++)] = dim;
  return shape;
}

uint64_t Shape::elements() const {
  uint64_t product = 1;
  for (int i = 0; i < rank_; ++i) product *= dims_[static_cast<size_t>(i)];
  return product;
}

std::string Shape::ToString() const {
  return DimsToString({dims_.data(), static_cast<size_t>(rank_)});
}

std::string FormatName(DType type, TensorLayout layout) {
  return std::string(Info(type).name) + (layout == TensorLayout::kPacked ? " packed" : "");
}

Result<uint64_t> TensorBytes(DType type, const Shape& shape, TensorLayout layout) {
  const DTypeInfo& info = Info(type);
  if (shape.columns() % info.block != 0) {
    return MakeError(Code::kBadData,
                     "rows of %llu values do not divide into the %u-value blocks of %s",
                     static_cast<unsigned long long>(shape.columns()), info.block, info.name);
  }
  uint64_t blocks = shape.elements() / info.block;
  if (layout == TensorLayout::kPacked) {
    if (!IsPacked(type) || shape.rank() != 2) {
      return MakeError(
          Code::kBadData,
          "%s values of shape %s cannot be packed: only matrices in a block format can", info.name,
          shape.ToString().c_str());
    }
    // At most 2^63 values are in blocks of 32 or more, so the padding is far from overflow.
    blocks = PaddedRows(shape.rows()) * (shape.columns() / info.block);
  }
  uint64_t bytes = 0;
  if (MulOverflows(blocks, info.block_bytes, &bytes)) {
    return MakeError(Code::kBadData, "the size of %s values of shape %s overflows", info.name,
                     shape.ToString().c_str());
  }
  return bytes;
}

void TensorView::Decode(uint64_t first, uint64_t count, float* values) const {
  const DTypeInfo& info = Info(dtype);
  if (layout == TensorLayout::kRows) {
    info.decode(data + info.RowBytes(first), values, count);
    return;
  }
  std::byte blocks[2048];
  const uint64_t step = sizeof(blocks) / info.block_bytes * info.block;
  for (uint64_t done = 0; done < count; done += step) {
    const uint64_t part = std::min(step, count - done);
    CopyBlocks(first + done, part, blocks);
    info.decode(blocks, values + done, part);
  }
}

void TensorView::CopyBlocks(uint64_t first, uint64_t count, std::byte* blocks) const {
  const DTypeInfo& info = Info(dtype);
  if (layout == TensorLayout::kRows) {
    std::memcpy(blocks, data + info.RowBytes(first), info.RowBytes(count));
    return;
  }
  const uint64_t columns = shape.columns();
  for (uint64_t done = 0; done < count;) {
    const uint64_t row = (first + done) / columns, column = (first + done) % columns;
    const uint64_t part = std::min(count - done, columns - column);
    // A run of tiles is packed like a matrix of their columns only.
    const uint64_t in_group = row % kPackedRows;
    const std::byte* tiles =
        data + (row - in_group) * row_bytes() + kPackedRows * info.RowBytes(column);
    UnpackRow(dtype, tiles, in_group, part, blocks + info.RowBytes(done));
    done += part;
  }
}

Result<Tensor> Tensor::AllocateUninitialized(DType type, const Shape& shape) {
  EW_TRY(const uint64_t bytes, TensorBytes(type, shape));
  void* memory = nullptr;
  const size_t alignment = bytes < kHugeTensorBytes ? kTensorAlignment : kHugePageBytes;
  if (::posix_memalign(&memory, alignment, std::max<uint64_t>(bytes, 1)) != 0) memory = nullptr;
  if (memory == nullptr) {
    return MakeError(Code::kOutOfMemory, "not enough memory for %s values of shape %s (%s)",
                     Info(type).name, shape.ToString().c_str(), FormatBytes(bytes).c_str());
  }
  // Huge pages spare a core that streams weights a third of its time; only speed depends on them.
  if (alignment == kHugePageBytes) static_cast<void>(::madvise(memory, bytes, MADV_HUGEPAGE));
  Tensor tensor;
  tensor.storage_.reset(static_cast<std::byte*>(memory));
  tensor.view_ = {type, shape, tensor.storage_.get(), bytes};
  return tensor;
}

Result<Tensor> Tensor::Allocate(DType type, const Shape& shape) {
  EW_TRY(Tensor tensor, AllocateUninitialized(type, shape));
  std::memset(tensor.storage_.get(), 0, tensor.view_.bytes);
  return tensor;
}

Tensor Tensor::Borrow(const TensorView& view) {
  Tensor tensor;
  tensor.view_ = view;
  return tensor;
}

std::byte* Tensor::mutable_data() {
  EW_CHECK(owned());
  return storage_.get();
}

void Tensor::Free::operator()(std::byte* p) const { std::free(p); }

bool TensorIndex::Add(std::string name, const TensorView& view) {
  if (!by_name_.emplace(name, tensors_.size()).second) return false;
  tensors_.push_back({std::move(name), view});
  return true;
}

const TensorView* TensorIndex::Find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second].view;
}

}  // namespace edgewise
