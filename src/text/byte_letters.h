// The letters of GPT-2 for bytes: printable Latin-1 stands for itself, the other bytes for U+0100
// and up, in order.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "text/unicode.h"

namespace edgewise {

inline constexpr bool IsPrintableByte(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) ||
         (byte >= 0xAE && byte <= 0xFF);
}

// The bytes that are not printable, in order: 0x00-0x20, 0x7F-0xA0, 0xAD.
inline uint32_t ByteLetter(uint8_t byte) {
  if (IsPrintableByte(byte)) return byte;
  if (byte <= 0x20) return 0x100u + byte;
  return byte == 0xAD ? 0x143 : 0x121u + byte - 0x7F;
}

inline void AppendByteLetter(uint8_t byte, std::string* text) {
  AppendChar(ByteLetter(byte), text);
}

inline std::optional<uint8_t> ByteOfLetter(uint32_t letter) {
  if (letter < 0x100) {
    if (!IsPrintableByte(letter)) return std::nullopt;
    return static_cast<uint8_t>(letter);
  }
  if (letter <= 0x120) return static_cast<uint8_t>(letter - 0x100);
  if (letter <= 0x142) return static_cast<uint8_t>(letter - 0x121 + 0x7F);
  if (letter == 0x143) return uint8_t{0xAD};
  return std::nullopt;
}

}  // namespace edgewise
