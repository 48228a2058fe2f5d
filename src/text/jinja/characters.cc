#include "text/jinja/characters.h"

#include <cstdint>

#include "text/unicode.h"

namespace edgewise::jinja {
namespace {

// A range of letters whose two cases are `distance` apart (uppercase first); distance 1 means that
// they alternate, uppercase on code points of the parity of `first`.
struct CaseRange {
  char32_t first, last;  // of the uppercase letters (of both when they alternate)
  uint32_t distance;
};

constexpr CaseRange kCaseRanges[] = {
    {0x41, 0x5A, 32},    {0xC0, 0xD6, 32},    {0xD8, 0xDE, 32},     {0x100, 0x12F, 1},
    {0x132, 0x137, 1},   {0x139, 0x148, 1},   {0x14A, 0x177, 1},    {0x179, 0x17E, 1},
    {0x1A0, 0x1A5, 1},   {0x1AF, 0x1B0, 1},   {0x1CD, 0x1DC, 1},    {0x1DE, 0x1EF, 1},
    {0x1F8, 0x21F, 1},   {0x222, 0x233, 1},   {0x388, 0x38A, 37},   {0x391, 0x3A1, 32},
    {0x3A3, 0x3AB, 32},  {0x400, 0x40F, 80},  {0x410, 0x42F, 32},   {0x460, 0x481, 1},
    {0x48A, 0x4BF, 1},   {0x4C1, 0x4CE, 1},   {0x4D0, 0x52F, 1},    {0x531, 0x556, 48},
    {0x1E00, 0x1E95, 1}, {0x1EA0, 0x1EFF, 1}, {0xFF21, 0xFF3A, 32},
};

}  // namespace

Character DecodeAt(std::string_view text, size_t position) {
  size_t end = position;
  const uint32_t code = NextChar(text, &end);
  return {code, end - position};
}

std::vector<size_t> CharacterOffsets(std::string_view text) {
  std::vector<size_t> offsets;
  offsets.reserve(text.size() + 1);
  for (size_t at = 0; at < text.size(); at += DecodeAt(text, at).length) offsets.push_back(at);
  offsets.push_back(text.size());
  return offsets;
}

size_t CountCharacters(std::string_view text) {
  size_t count = 0;
  for (size_t at = 0; at < text.size(); at += DecodeAt(text, at).length) ++count;
  return count;
}

bool IsSpace(char32_t code) {
  return (code >= 9 && code <= 13) || (code >= 0x1C && code <= 0x20) || code == 0x85 ||
         code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
         code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

char32_t UpperOf(char32_t code) {
  if (code == 0xFF) return 0x178;
  if (code == 0x3C2) return 0x3A3;  // final sigma
  for (const CaseRange& range : kCaseRanges) {
    if (range.distance == 1) {
      if (code >= range.first && code <= range.last)
        return (code - range.first) % 2 == 1 ? code - 1 : code;
    } else if (code >= range.first + range.distance && code <= range.last + range.distance) {
      return code - range.distance;
    }
  }
  return code;
}

char32_t LowerOf(char32_t code) { return ToLower(code); }

}  // namespace edgewise::jinja
