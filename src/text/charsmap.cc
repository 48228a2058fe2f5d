#include "text/charsmap.h"

#include <cstring>
#include <optional>

#include "base/bytes.h"
#include "base/strings.h"

namespace edgewise {
namespace {

// A unit of darts-clone: offset to the children, label, and whether a value hangs below.
uint32_t Offset(uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }
uint32_t Label(uint32_t unit) { return unit & ((1u << 31) | 0xFF); }
bool HasValue(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t ValueOf(uint32_t unit) { return unit & ((1u << 31) - 1); }

}  // namespace

Result<CharsMap> CharsMap::Parse(std::string_view bytes) {
  ByteReader reader(std::as_bytes(std::span(bytes.data(), bytes.size())));
  auto size = reader.Read<uint32_t>();
  if (!size) return std::move(size).error().In("precompiled_charsmap");
  if (*size == 0 || *size % 4 != 0) {
    return MakeError(Code::kBadData,
                     "precompiled_charsmap: a trie of %u bytes is not a number of 4-byte units",
                     *size);
  }
  auto trie = reader.ReadBytes(*size);
  if (!trie) return std::move(trie).error().In("precompiled_charsmap");
  CharsMap map;
  map.units_.resize(*size / 4);
  std::memcpy(map.units_.data(), trie->data(), *size);
  map.replacements_ = bytes.substr(reader.offset());
  if (map.replacements_.empty() || map.replacements_.back() != '\0') {
    return MakeError(Code::kBadData, "precompiled_charsmap: the last replacement has no end");
  }
  return map;
}

size_t CharsMap::Match(std::string_view text, std::string_view* replacement) const {
  if (units_.empty()) return 0;
  size_t length = 0;
  uint32_t node = Offset(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    node ^= byte;
    // An index outside the table can only come from a damaged file; it matches nothing.
    if (byte == 0 || node >= units_.size() || Label(units_[node]) != byte) break;
    const uint32_t unit = units_[node];
    node ^= Offset(unit);
    if (!HasValue(unit)) continue;
    if (node >= units_.size() || ValueOf(units_[node]) >= replacements_.size()) break;
    length = i + 1;
    *replacement = std::string_view(replacements_.c_str() + ValueOf(units_[node]));
  }
  return length;
}

}  // namespace edgewise
