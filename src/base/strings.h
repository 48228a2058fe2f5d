// Small text functions that C++20 on gcc 12 lacks (no std::format there).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace edgewise {

// Returns the printf-formatted text.
[[gnu::format(printf, 1, 2)]] std::string Format(const char* format, ...);

// Returns an Error whose message is printf-formatted.
[[gnu::format(printf, 2, 3)]] Error MakeError(Code code, const char* format, ...);

// Splits on every `separator`; n separators give n + 1 pieces, which view into `text`.
std::vector<std::string_view> Split(std::string_view text, std::string_view separator);

// Returns `text` without leading and trailing blanks, tabs and line ends.
std::string_view Trim(std::string_view text);

std::string Join(const std::vector<std::string>& parts, std::string_view separator);

// Returns "1.4 MiB", "812 B": at most four significant digits, binary units.
std::string FormatBytes(uint64_t bytes);

// Returns "850 ms", "12.3 s", "4 min 05 s".
std::string FormatSeconds(double seconds);

// Returns `text` between double quotes with control bytes, quotes and invalid UTF-8 escaped and
// at most `max_bytes` of it shown: for putting outside data into a message.
std::string Quote(std::string_view text, size_t max_bytes = 80);

// Parse the whole of `text`; anything else in it, or a value out of range, is an error.
Result<int64_t> ParseInt(std::string_view text);
Result<double> ParseDouble(std::string_view text);

// True when `text` is well-formed UTF-8 (no surrogates, no overlong forms).
bool IsUtf8(std::string_view text);

// Returns `text` with every maximal ill-formed UTF-8 part replaced by U+FFFD.
std::string ReplaceInvalidUtf8(std::string_view text);

}  // namespace edgewise
