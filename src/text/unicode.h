// Unicode for tokenizers: UTF-8, general categories, simple lower case, canonical normalization
// (Unicode 14).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace edgewise {

// General categories, in the order of the generated table.
enum class Category : uint8_t {
  kLu,
  kLl,
  kLt,
  kLm,
  kLo,
  kMn,
  kMc,
  kMe,
  kNd,
  kNl,
  kNo,
  kPc,
  kPd,
  kPs,
  kPe,
  kPi,
  kPf,
  kPo,
  kSm,
  kSc,
  kSk,
  kSo,
  kZs,
  kZl,
  kZp,
  kCc,
  kCf,
  kCs,
  kCo,
  kCn,
};

// A byte of ill-formed UTF-8 is handled as the code point kIllFormed + byte, so that no text is
// ever lost.
inline constexpr uint32_t kIllFormed = 0x110000;

// Returns the character at `*offset` (which must be inside `text`) and moves `*offset` past it.
uint32_t NextChar(std::string_view text, size_t* offset);
// Appends the UTF-8 form, or the single byte that kIllFormed + byte stands for.
void AppendChar(uint32_t code_point, std::string* text);
std::vector<uint32_t> DecodeUtf8(std::string_view text);
std::string EncodeUtf8(const std::vector<uint32_t>& code_points);
// Returns the length that AppendChar would append, in bytes.
inline size_t CharBytes(uint32_t c) {
  return c < 0x80 || c >= kIllFormed ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
}

// Code points of kIllFormed and above count as kSo, the category of U+FFFD.
Category CategoryOf(uint32_t code_point);
inline bool IsLetter(Category c) { return c <= Category::kLo; }
inline bool IsMark(Category c) { return c >= Category::kMn && c <= Category::kMe; }
inline bool IsNumber(Category c) { return c >= Category::kNd && c <= Category::kNo; }
inline bool IsPunctuation(Category c) { return c >= Category::kPc && c <= Category::kPo; }
inline bool IsSymbol(Category c) { return c >= Category::kSm && c <= Category::kSo; }
// The property White_Space.
bool IsWhiteSpace(uint32_t code_point);
// The simple (one to one) lower case, or the code point itself.
uint32_t ToLower(uint32_t code_point);

// Return the canonical decomposition, and the canonical composition, of the text.
std::vector<uint32_t> ToNfd(const std::vector<uint32_t>& text);
std::vector<uint32_t> ToNfc(const std::vector<uint32_t>& text);
// The same on UTF-8; quick when nothing needs composing.
std::string ToNfc(std::string_view text);

}  // namespace edgewise
