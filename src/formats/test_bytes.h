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
    return Raw({reinterpret_cast<const char*>(&value), sizeof(value)});
  }
  ByteBuilder& U8(uint8_t value) { return Number<uint8_t>(value); }
  ByteBuilder& U32(uint32_t value) { return Number<uint32_t>(value); }
  ByteBuilder& U64(uint64_t value) { return Number<uint64_t>(value); }
  ByteBuilder& Raw(std::string_view text) {
    text_ += text;
    return *this;
  }
  // A GGUF string: u64 length, bytes.
  ByteBuilder& Text(std::string_view text) { return U64(text.size()).Raw(text); }
  ByteBuilder& Zeros(size_t count) {
    text_.append(count, '\0');
    return *this;
  }
  ByteBuilder& Pad(size_t alignment) {
    return Zeros((alignment - text_.size() % alignment) % alignment);
  }
  size_t size() const { return text_.size(); }
  // An allocation of exactly this size, so that the sanitizers see the first byte past its end.
  std::vector<std::byte> bytes() const {
    const auto bytes = std::as_bytes(std::span(text_));
    return {bytes.begin(), bytes.end()};
  }

 private:
  std::string text_;
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
