// ByteReader: bounded little-endian reading of untrusted bytes.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "base/result.h"
#include "base/strings.h"

namespace edgewise {

static_assert(std::endian::native == std::endian::little, "file formats are read in place");

// Reads from a view that the caller keeps alive. Every read checks the bytes left; an error names
// the offset and leaves the position unchanged.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <class T>
    requires std::integral<T> || std::floating_point<T>
  Result<T> Read() {
    if (sizeof(T) > remaining()) return Short(sizeof(T));
    T value;
    std::memcpy(&value, bytes_.data() + offset_, sizeof(T));
    offset_ += sizeof(T);
    return value;
  }

  // Returns a view of the next `count` bytes.
  Result<std::span<const std::byte>> ReadBytes(uint64_t count) {
    if (count > remaining()) return Short(count);
    const auto part = bytes_.subspan(offset_, count);
    offset_ += count;
    return part;
  }

  Result<std::string_view> ReadText(uint64_t count) {
    if (count > remaining()) return Short(count);
    const auto* text = reinterpret_cast<const char*>(bytes_.data() + offset_);
    offset_ += count;
    return std::string_view(text, count);
  }

  // Fails unless `count` items of at least `min_size` bytes each can still follow: call before
  // allocating.
  Status CheckCount(uint64_t count, uint64_t min_size) const {
    if (min_size == 0 || count <= remaining() / min_size) return Ok{};
    return MakeError(
        Code::kBadData,
        "at byte %llu: %llu items of at least %llu bytes cannot fit in the %llu bytes left",
        static_cast<unsigned long long>(offset_), static_cast<unsigned long long>(count),
        static_cast<unsigned long long>(min_size), static_cast<unsigned long long>(remaining()));
  }

  uint64_t offset() const { return offset_; }
  uint64_t remaining() const { return bytes_.size() - offset_; }

 private:
  Error Short(uint64_t wanted) const {
    return MakeError(Code::kBadData, "truncated at byte %llu: %llu bytes wanted, %llu left",
                     static_cast<unsigned long long>(offset_),
                     static_cast<unsigned long long>(wanted),
                     static_cast<unsigned long long>(remaining()));
  }
  std::span<const std::byte> bytes_;
  uint64_t offset_ = 0;
};

// Checked arithmetic on sizes from outside: true when the result does not fit.
inline bool MulOverflows(uint64_t a, uint64_t b, uint64_t* result) {
  return __builtin_mul_overflow(a, b, result);
}
inline bool AddOverflows(uint64_t a, uint64_t b, uint64_t* result) {
  return __builtin_add_overflow(a, b, result);
}

}  // namespace edgewise
