#include "eval/invisible.h"

#include <algorithm>
#include <array>
#include <optional>

#include "base/strings.h"
#include "text/unicode.h"

namespace edgewise {
namespace {

struct Range {
  uint32_t first, last;
  InvisibleKind kind;
};
// Ascending. Sources: Unicode 14, properties Default_Ignorable_Code_Point and Bidi_Control.
constexpr std::array<Range, 21> kRanges = {{{0x0000, 0x0008, InvisibleKind::kControl},
                                            {0x000B, 0x000C, InvisibleKind::kControl},
                                            {0x000E, 0x001F, InvisibleKind::kControl},
                                            {0x007F, 0x009F, InvisibleKind::kControl},
                                            {0x00AD, 0x00AD, InvisibleKind::kZeroWidth},
                                            {0x034F, 0x034F, InvisibleKind::kZeroWidth},
                                            {0x061C, 0x061C, InvisibleKind::kBidi},
                                            {0x115F, 0x1160, InvisibleKind::kZeroWidth},
                                            {0x17B4, 0x17B5, InvisibleKind::kZeroWidth},
                                            {0x180B, 0x180F, InvisibleKind::kVariationSelector},
                                            {0x200B, 0x200D, InvisibleKind::kZeroWidth},
                                            {0x200E, 0x200F, InvisibleKind::kBidi},
                                            {0x202A, 0x202E, InvisibleKind::kBidi},
                                            {0x2060, 0x2065, InvisibleKind::kZeroWidth},
                                            {0x2066, 0x2069, InvisibleKind::kBidi},
                                            {0x206A, 0x206F, InvisibleKind::kControl},
                                            {0x3164, 0x3164, InvisibleKind::kZeroWidth},
                                            {0xFE00, 0xFE0F, InvisibleKind::kVariationSelector},
                                            {0xFEFF, 0xFEFF, InvisibleKind::kZeroWidth},
                                            {0xFFA0, 0xFFA0, InvisibleKind::kZeroWidth},
                                            {0xFFF9, 0xFFFB, InvisibleKind::kControl}}};

std::optional<InvisibleKind> KindOf(uint32_t c) {
  if (c >= 0xE0000 && c <= 0xE007F) return InvisibleKind::kTag;
  if (c >= 0xE0100 && c <= 0xE01EF) return InvisibleKind::kVariationSelector;
  for (const Range& range : kRanges) {
    if (c >= range.first && c <= range.last) return range.kind;
  }
  return std::nullopt;
}

// Letters written from right to left: Hebrew, Arabic, Syriac, Thaana, NKo, ... and their
// presentation forms.
bool IsRightToLeft(uint32_t c) {
  const bool block = (c >= 0x0590 && c <= 0x08FF) || (c >= 0xFB1D && c <= 0xFDFF) ||
                     (c >= 0xFE70 && c <= 0xFEFC) || (c >= 0x10800 && c <= 0x10FFF) ||
                     (c >= 0x1E800 && c <= 0x1EFFF);
  return block && IsLetter(CategoryOf(c));
}

// Letters and marks of scripts in which a joiner changes the shapes beside it: Arabic to Khmer,
// Mongolian, and the Brahmic scripts of later blocks.
bool IsShaping(uint32_t c) {
  const bool block = (c >= 0x0600 && c <= 0x0E7F) || (c >= 0x0F00 && c <= 0x109F) ||
                     (c >= 0x1780 && c <= 0x18AF) || (c >= 0x1900 && c <= 0x1CFF) ||
                     (c >= 0xA800 && c <= 0xABFF) || (c >= 0xFB50 && c <= 0xFEFC) ||
                     (c >= 0x10A00 && c <= 0x11FFF);
  return block && (IsLetter(CategoryOf(c)) || IsMark(CategoryOf(c)));
}

bool IsEmoji(uint32_t c) {
  return (c >= 0x2190 && c <= 0x2BFF) || (c >= 0x1F000 && c <= 0x1FAFF) || c == 0xFE0F;
}

bool TakesSelector(uint32_t c) {
  const Category category = CategoryOf(c);
  return IsEmoji(c) || IsSymbol(category) || category == Category::kNd || c == '#' || c == '*' ||
         c == 0x203C || c == 0x2049 || c == 0x303D || (c >= 0x3400 && c <= 0x9FFF) ||
         (c >= 0x1800 && c <= 0x18AF) || (c >= 0x20000 && c <= 0x3FFFF) || IsShaping(c);
}

class Scanner {
 public:
  explicit Scanner(std::string_view text) : characters_(DecodeUtf8(text)) {
    right_to_left_ = std::any_of(characters_.begin(), characters_.end(), IsRightToLeft);
  }

  std::vector<InvisibleCharacter> Find() {
    std::vector<InvisibleCharacter> found;
    size_t offset = 0;
    for (size_t i = 0; i < characters_.size(); ++i) {
      const uint32_t c = characters_[i];
      if (c == kFlag)
        in_flag_ = IsFlag(i + 1);
      else if (c < 0xE0020 || c > 0xE007F)
        in_flag_ = false;
      const std::optional<InvisibleKind> kind = KindOf(c);
      if (kind && !IsHonest(*kind, i)) found.push_back({*kind, c, offset});
      offset += CharBytes(c);
    }
    return found;
  }

 private:
  static constexpr uint32_t kFlag = 0x1F3F4;

  // Whether one to six tag letters and the tag that ends them follow: a flag of a region.
  bool IsFlag(size_t begin) const {
    size_t end = begin;
    while (end < characters_.size() && end < begin + 7 && characters_[end] >= 0xE0030 &&
           characters_[end] <= 0xE007A) {
      ++end;
    }
    return end > begin && end < characters_.size() && characters_[end] == 0xE007F;
  }

  bool IsHonest(InvisibleKind kind, size_t i) const {
    const uint32_t c = characters_[i];
    const uint32_t before = i > 0 ? characters_[i - 1] : 0;
    const uint32_t after = i + 1 < characters_.size() ? characters_[i + 1] : 0;
    switch (kind) {
      case InvisibleKind::kZeroWidth:
        if (c == 0xFEFF) return i == 0;
        if (c == 0x00AD) return IsLetter(CategoryOf(before)) && IsLetter(CategoryOf(after));
        if (c == 0x200D && IsEmoji(before) && IsEmoji(after)) return true;
        // A joiner may also end a word, to show the joined form of its last letter.
        return (c == 0x200C || c == 0x200D) && IsShaping(before);
      case InvisibleKind::kBidi:
        return right_to_left_ && c != 0x202D && c != 0x202E;
      case InvisibleKind::kTag:
        return in_flag_;
      case InvisibleKind::kVariationSelector:
        return i > 0 && TakesSelector(before) && before != 0xFE0F;
      case InvisibleKind::kControl:
        return false;
    }
    return false;
  }

  std::vector<uint32_t> characters_;
  bool right_to_left_ = false;
  bool in_flag_ = false;
};

}  // namespace

std::vector<InvisibleCharacter> FindInvisible(std::string_view text) {
  return Scanner(text).Find();
}

std::string SpellInvisible(std::string_view text) {
  std::string shown;
  for (const uint32_t c : DecodeUtf8(text)) {
    if (c == '\t' || c == '\n' || c == '\r') {
      shown += ' ';
    } else if (c >= kIllFormed) {
      shown += "\uFFFD";
    } else if (KindOf(c)) {
      shown += Format("<U+%04X>", c);
    } else {
      AppendChar(c, &shown);
    }
  }
  return shown;
}

const char* InvisibleName(InvisibleKind kind) {
  switch (kind) {
    case InvisibleKind::kZeroWidth:
      return "zero-width";
    case InvisibleKind::kBidi:
      return "bidi control";
    case InvisibleKind::kTag:
      return "tag";
    case InvisibleKind::kVariationSelector:
      return "variation selector";
    case InvisibleKind::kControl:
      return "control";
  }
  return "control";
}

}  // namespace edgewise
