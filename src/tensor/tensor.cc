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

Result<uint64_t> TensorBytes(DType type, const Shape& shape) {
  const DTypeInfo& info = Info(type);
  if (shape.columns() % info.block != 0) {
    return MakeError(Code::kBadData,
                     "rows of %llu values do not divide into the %u-value blocks of %s",
                     static_cast<unsigned long long>(shape.columns()), info.block, info.name);
  }
  uint64_t bytes = 0;
  if (MulOverflows(shape.elements() / info.block, info.block_bytes, &bytes)) {
    return MakeError(Code::kBadData, "the size of %s values of shape %s overflows", info.name,
                     shape.ToString().c_str());
  }
  return bytes;
}

Result<Tensor> Tensor::Allocate(DType type, const Shape& shape) {
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
  std::memset(memory, 0, bytes);
  Tensor tensor;
  tensor.storage_.reset(static_cast<std::byte*>(memory));
  tensor.view_ = {type, shape, tensor.storage_.get(), bytes};
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
