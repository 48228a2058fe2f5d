// For tests: builds the bytes of small files, and reads everything a parsed file offers.
#pragma once

#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "formats/metadata.h"
#include "tensor/tensor.h"

namespace edgewise {

// Appends little-endian fields; every call returns *this for chaining.
class ByteBuilder {
 public:
  template <class T>
  ByteBuilder& Number(std::type_identity_t<T> value) {
    const auto* bytes = reinterpret_cast<const std::byte*>(&value);
    bytes_.insert(bytes_.end(), bytes, bytes + sizeof(T));
    return *this;
  }
  ByteBuilder& U8(uint8_t value) { return Number<uint8_t>(value); }
  ByteBuilder& U32(uint32_t value) { return Number<uint32_t>(value); }
  ByteBuilder& U64(uint64_t value) { return Number<uint64_t>(value); }
  ByteBuilder& Raw(std::string_view text) {
    for (const char c : text) bytes_.push_back(static_cast<std::byte>(c));
    return *this;
  }
  // A GGUF string: u64 length, bytes.
  ByteBuilder& Text(std::string_view text) { return U64(text.size()).Raw(text); }
  ByteBuilder& Zeros(size_t count) {
    bytes_.resize(bytes_.size() + count);
    return *this;
  }
  ByteBuilder& Pad(size_t alignment) {
    return Zeros((alignment - bytes_.size() % alignment) % alignment);
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

// Decodes the first and the last row of every tensor and describes every value; returns something
// that depends on them.
inline double TouchEverything(const TensorIndex& tensors, const Metadata& metadata) {
  double sum = 0;
  for (const NamedTensor& tensor : tensors.all()) {
    const TensorView& view = tensor.view;
    if (view.shape.elements() == 0) continue;
    std::vector<float> row(view.shape.columns());
    for (const uint64_t i : {uint64_t{0}, view.shape.rows() - 1}) {
      view.DecodeRow(i, row.data());
      sum += static_cast<double>(row.front()) + static_cast<double>(row.back());
    }
  }
  for (const auto& [key, value] : metadata.all())
    sum += static_cast<double>(Describe(value).size());
  return sum;
}

}  // namespace edgewise
