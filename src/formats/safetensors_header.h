// The JSON header of a safetensors file. A scanner of its own, because a general JSON tree of a
// hostile 100 MB header would take gigabytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace edgewise {

// A tensor as declared: nothing but the JSON types is checked.
struct SafetensorsEntry {
  std::string name;
  std::string dtype;
  std::vector<uint64_t> shape;
  uint64_t begin = 0;  // data_offsets
  uint64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // in order of appearance; names may repeat
  std::vector<std::pair<std::string, std::string>> metadata;  // "__metadata__"
};

// Errors: kBadData (with the byte of the header), kUnsupported (more dimensions than any tensor
// has).
Result<SafetensorsHeader> ParseSafetensorsHeader(std::string_view text);

}  // namespace edgewise
