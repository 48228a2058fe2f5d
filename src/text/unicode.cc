#include "text/unicode.h"

#include <algorithm>
#include <array>
#include <iterator>

namespace edgewise {
namespace {

struct LowerRange {
  uint32_t first, last;
  uint8_t step;
  int32_t delta;
};
struct CombiningRange {
  uint32_t first, last;
  uint8_t combining_class;
};
struct Decomposition {
  uint32_t code_point, first, second;
};

#include "text/unicode_tables.inc"

// Hangul syllables are composed by arithmetic (Unicode 3.12).
constexpr uint32_t kSBase = 0xAC00, kLBase = 0x1100, kVBase = 0x1161, kTBase = 0x11A7;
constexpr uint32_t kLCount = 19, kVCount = 21, kTCount = 28, kSCount = kLCount * kVCount * kTCount;

Category SearchCategory(uint32_t c) {
  const uint32_t key = c << 8 | 0xFF;
  return static_cast<Category>(
      *(std::upper_bound(std::begin(kCategoryStarts), std::end(kCategoryStarts), key) - 1) & 0xFF);
}

// The first code points, where most text lies, are looked up directly.
constexpr uint32_t kDirect = 0x2100;
const std::array<Category, kDirect>& DirectCategories() {
  static const auto table = [] {
    std::array<Category, kDirect> categories;
    for (uint32_t c = 0; c < kDirect; ++c) categories[c] = SearchCategory(c);
    return categories;
  }();
  return table;
}

// Returns the range that holds `c`, or null.
template <class Range, size_t n>
const Range* FindRange(const Range (&ranges)[n], uint32_t c) {
  const auto* range =
      std::lower_bound(std::begin(ranges), std::end(ranges), c,
                       [](const Range& r, uint32_t value) { return r.last < value; });
  return range != std::end(ranges) && range->first <= c ? range : nullptr;
}

uint8_t CombiningClass(uint32_t c) {
  if (c < 0x300) return 0;
  const CombiningRange* range = FindRange(kCombiningRanges, c);
  return range ? range->combining_class : 0;
}

const Decomposition* FindDecomposition(uint32_t c) {
  const auto* row =
      std::lower_bound(std::begin(kDecompositions), std::end(kDecompositions), c,
                       [](const Decomposition& d, uint32_t value) { return d.code_point < value; });
  return row != std::end(kDecompositions) && row->code_point == c ? row : nullptr;
}

void Decompose(uint32_t c, std::vector<uint32_t>* out) {
  if (c < 0xC0) {
    out->push_back(c);
  } else if (c - kSBase < kSCount) {
    const uint32_t s = c - kSBase;
    out->push_back(kLBase + s / (kVCount * kTCount));
    out->push_back(kVBase + s % (kVCount * kTCount) / kTCount);
    if (s % kTCount != 0) out->push_back(kTBase + s % kTCount);
  } else if (const Decomposition* row = FindDecomposition(c)) {
    Decompose(row->first, out);
    if (row->second != 0) out->push_back(row->second);
  } else {
    out->push_back(c);
  }
}

// Returns the composite of two characters, or 0.
uint32_t Compose(uint32_t first, uint32_t second) {
  if (first - kLBase < kLCount && second - kVBase < kVCount) {
    return kSBase + ((first - kLBase) * kVCount + (second - kVBase)) * kTCount;
  }
  if (first - kSBase < kSCount && (first - kSBase) % kTCount == 0 && second > kTBase &&
      second < kTBase + kTCount) {
    return first + (second - kTBase);
  }
  const auto* index = std::lower_bound(
      std::begin(kCompositions), std::end(kCompositions), std::pair(first, second),
      [](uint16_t i, const std::pair<uint32_t, uint32_t>& pair) {
        return std::pair(kDecompositions[i].first, kDecompositions[i].second) < pair;
      });
  if (index == std::end(kCompositions)) return 0;
  const Decomposition& row = kDecompositions[*index];
  return row.first == first && row.second == second ? row.code_point : 0;
}

// Sorts marks by class, equal ones staying in order: class, place and code point share a 64-bit
// key.
void SortMarks(uint32_t* marks, size_t count) {
  std::vector<uint64_t> keys(count);
  for (size_t i = 0; i < count; ++i) {
    keys[i] = static_cast<uint64_t>(CombiningClass(marks[i])) << 56 |
              static_cast<uint64_t>(i) << 21 | marks[i];
  }
  std::sort(keys.begin(), keys.end());
  for (size_t i = 0; i < count; ++i) marks[i] = static_cast<uint32_t>(keys[i] & 0x1FFFFF);
}

}  // namespace

uint32_t NextChar(std::string_view text, size_t* offset) {
  const auto* p = reinterpret_cast<const uint8_t*>(text.data()) + *offset;
  const size_t left = text.size() - *offset;
  const uint32_t lead = p[0];
  const auto continues = [p](size_t i) { return (p[i] & 0xC0) == 0x80; };
  if (lead < 0x80) {
    *offset += 1;
    return lead;
  }
  if (lead >= 0xC2 && lead < 0xE0 && left >= 2 && continues(1)) {
    *offset += 2;
    return (lead & 0x1F) << 6 | (p[1] & 0x3F);
  }
  if (lead >= 0xE0 && lead < 0xF0 && left >= 3 && continues(1) && continues(2)) {
    const uint32_t c = (lead & 0x0F) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3F);
    if (c >= 0x800 && (c < 0xD800 || c > 0xDFFF)) {
      *offset += 3;
      return c;
    }
  }
  if (lead >= 0xF0 && lead < 0xF5 && left >= 4 && continues(1) && continues(2) && continues(3)) {
    const uint32_t c =
        (lead & 0x07) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3F);
    if (c >= 0x10000 && c < kIllFormed) {
      *offset += 4;
      return c;
    }
  }
  *offset += 1;
  return kIllFormed + lead;
}

void AppendChar(uint32_t c, std::string* text) {
  const auto put = [text](uint32_t byte) { text->push_back(static_cast<char>(byte)); };
  switch (CharBytes(c)) {
    case 1:
      put(c < 0x80 ? c : c - kIllFormed);
      break;
    case 2:
      put(0xC0 | c >> 6);
      put(0x80 | (c & 0x3F));
      break;
    case 3:
      put(0xE0 | c >> 12);
      put(0x80 | (c >> 6 & 0x3F));
      put(0x80 | (c & 0x3F));
      break;
    default:
      put(0xF0 | c >> 18);
      put(0x80 | (c >> 12 & 0x3F));
      put(0x80 | (c >> 6 & 0x3F));
      put(0x80 | (c & 0x3F));
  }
}

std::vector<uint32_t> DecodeUtf8(std::string_view text) {
  std::vector<uint32_t> code_points;
  code_points.reserve(text.size());
  for (size_t offset = 0; offset < text.size();) code_points.push_back(NextChar(text, &offset));
  return code_points;
}

std::string EncodeUtf8(const std::vector<uint32_t>& code_points) {
  std::string text;
  text.reserve(code_points.size());
  for (const uint32_t c : code_points) AppendChar(c, &text);
  return text;
}

Category CategoryOf(uint32_t c) {
  if (c < kDirect) return DirectCategories()[c];
  return c < kIllFormed ? SearchCategory(c) : Category::kSo;
}

bool IsWhiteSpace(uint32_t c) {
  if (c <= 0x20) return c == 0x20 || (c >= 0x09 && c <= 0x0D);
  if (c < 0x1680) return c == 0x85 || c == 0xA0;
  return c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

uint32_t ToLower(uint32_t c) {
  if (c < 0x80) return c - 'A' < 26 ? c + 32 : c;
  const LowerRange* range = FindRange(kLowerRanges, c);
  if (!range || (c - range->first) % range->step != 0) return c;
  return c + static_cast<uint32_t>(range->delta);
}

std::vector<uint32_t> ToNfd(const std::vector<uint32_t>& text) {
  std::vector<uint32_t> out;
  out.reserve(text.size());
  for (const uint32_t c : text) Decompose(c, &out);
  // Runs of combining marks are put into canonical order.
  for (size_t i = 0; i < out.size();) {
    size_t end = i;
    while (end < out.size() && CombiningClass(out[end]) != 0) ++end;
    if (end - i > 1) SortMarks(out.data() + i, end - i);
    i = end + 1;
  }
  return out;
}

std::vector<uint32_t> ToNfc(const std::vector<uint32_t>& text) {
  std::vector<uint32_t> out = ToNfd(text);
  size_t length = 0;          // of the composed text, which is built in place
  size_t starter = SIZE_MAX;  // where the last character of class 0 is
  uint8_t last_class = 0;     // of the last character kept after the starter
  for (size_t i = 0; i < out.size(); ++i) {
    const uint32_t c = out[i];
    const uint8_t combining_class = CombiningClass(c);
    const bool blocked = starter != SIZE_MAX && length > starter + 1 &&
                         (last_class >= combining_class || last_class == 0);
    if (starter != SIZE_MAX && !blocked) {
      if (const uint32_t composite = Compose(out[starter], c)) {
        out[starter] = composite;
        continue;
      }
    }
    if (combining_class == 0) starter = length;
    last_class = combining_class;
    out[length++] = c;
  }
  out.resize(length);
  return out;
}

std::string ToNfc(std::string_view text) {
  // No character below U+0300 changes or takes part in a composition with its neighbours.
  const bool plain =
      std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0xCC; });
  if (plain) return std::string(text);
  return EncodeUtf8(ToNfc(DecodeUtf8(text)));
}

}  // namespace edgewise
