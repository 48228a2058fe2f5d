// Characters of UTF-8 text as Python's str sees them. An ill-formed byte counts as one character.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace edgewise::jinja {

struct Character {
  char32_t code;  // of an ill-formed byte: above U+10FFFF
  size_t length;  // bytes
};

// Reads the character at `position`, which must be inside `text`.
Character DecodeAt(std::string_view text, size_t position);

// Returns the byte offset of each character, and last text.size().
std::vector<size_t> CharacterOffsets(std::string_view text);
size_t CountCharacters(std::string_view text);

// As str.isspace().
bool IsSpace(char32_t code);
// Returns the simple upper case of ASCII, Latin, Greek, Cyrillic and Armenian letters; others stay
// as they are.
char32_t UpperOf(char32_t code);
// Returns the simple lower case of any letter.
char32_t LowerOf(char32_t code);

}  // namespace edgewise::jinja
