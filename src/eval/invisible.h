// Characters that a reader does not see, or that change the order of what he sees.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace edgewise {

enum class InvisibleKind : uint8_t {
  kZeroWidth,          // ZWSP, word joiner, ZWNJ, ZWJ, soft hyphen, fillers, BOM inside a text
  kBidi,               // embeddings, overrides, isolates (U+202A-202E, U+2066-2069) and marks
  kTag,                // U+E0000-E007F, ASCII that no font shows
  kVariationSelector,  // U+FE00-FE0F, U+E0100-E01EF
  kControl,            // C0 and C1 but tab and line ends, and other format characters
};

struct InvisibleCharacter {
  InvisibleKind kind;
  uint32_t code_point;
  size_t offset;  // bytes from the start of the text
};

// Returns the characters of `text` that have no honest use where they stand. Left out: joiners
// inside a word of a script that shapes its letters (Arabic, Indic, ...) and in emoji sequences,
// variation selectors after a symbol, digit or ideograph, tags of an emoji flag, bidi marks,
// embeddings and isolates in a text with right-to-left letters (overrides always count), a BOM at
// the very start, soft hyphens between letters. Any bytes are accepted.
std::vector<InvisibleCharacter> FindInvisible(std::string_view text);

// Returns `text` with every character of these kinds, honest or not, spelled out ("<U+200B>"), line
// ends and tabs as blanks, ill-formed bytes as U+FFFD: for showing outside data to people.
std::string SpellInvisible(std::string_view text);

// "zero-width", "bidi control", ...
const char* InvisibleName(InvisibleKind kind);

}  // namespace edgewise
