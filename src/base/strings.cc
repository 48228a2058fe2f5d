#include "base/strings.h"

#include <charconv>
#include <cmath>
#include <cstdarg>
#include <cstdio>

namespace edgewise {
namespace {

std::string FormatV(const char* format, va_list args) {
  va_list copy;
  va_copy(copy, args);
  const int size = std::vsnprintf(nullptr, 0, format, copy);
  va_end(copy);
  if (size <= 0) return {};
  std::string text(static_cast<size_t>(size), '\0');
  std::vsnprintf(text.data(), text.size() + 1, format, args);
  return text;
}

// Returns the length of the well-formed UTF-8 character at the start of `text`, or 0 when there is
// none; `*bad` is then the length of the maximal ill-formed part (Unicode 15, section 3.9, "U+FFFD
// substitution of maximal subparts").
size_t Utf8CharLength(std::string_view text, size_t* bad) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  *bad = 1;
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  size_t length = 0;
  unsigned char low = 0x80, high = 0xBF;  // allowed range of the second byte
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return 0;
  }
  for (size_t i = 1; i < length; ++i) {
    if (i >= text.size() || byte(i) < low || byte(i) > high) {
      *bad = i;
      return 0;
    }
    low = 0x80;
    high = 0xBF;
  }
  return length;
}

}  // namespace

std::string Format(const char* format, ...) {
  va_list args;
  va_start(args, format);
  std::string text = FormatV(format, args);
  va_end(args);
  return text;
}

Error MakeError(Code code, const char* format, ...) {
  va_list args;
  va_start(args, format);
  Error error{code, FormatV(format, args)};
  va_end(args);
  return error;
}

std::vector<std::string_view> Split(std::string_view text, std::string_view separator) {
  std::vector<std::string_view> pieces;
  EW_CHECK(!separator.empty());
  size_t begin = 0;
  for (;;) {
    const size_t end = text.find(separator, begin);
    if (end == std::string_view::npos) break;
    pieces.push_back(text.substr(begin, end - begin));
    begin = end + separator.size();
  }
  pieces.push_back(text.substr(begin));
  return pieces;
}

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n\v\f";
  const size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

std::string Join(const std::vector<std::string>& parts, std::string_view separator) {
  std::string text;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) text += separator;
    text += parts[i];
  }
  return text;
}

std::string FormatBytes(uint64_t bytes) {
  if (bytes < 1024) return Format("%llu B", static_cast<unsigned long long>(bytes));
  constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (value >= 1000 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  const int decimals = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return Format("%.*f %s", decimals, value, kUnits[unit]);
}

std::string FormatSeconds(double seconds) {
  if (seconds < 0.9995) return Format("%.0f ms", seconds * 1e3);
  if (seconds < 99.95) return Format("%.1f s", seconds);
  const auto whole = static_cast<long long>(std::llround(seconds));
  if (whole < 3600) return Format("%lld min %02lld s", whole / 60, whole % 60);
  return Format("%lld h %02lld min", whole / 3600, whole / 60 % 60);
}

std::string Quote(std::string_view text, size_t max_bytes) {
  std::string quoted = "\"";
  size_t i = 0;
  while (i < text.size() && i < max_bytes) {
    size_t bad = 0;
    const size_t length = Utf8CharLength(text.substr(i), &bad);
    const auto byte = static_cast<unsigned char>(text[i]);
    if (length == 0 || byte < 0x20 || byte == 0x7F) {
      quoted += Format("\\x%02X", byte);
      ++i;
    } else {
      if (byte == '"' || byte == '\\') quoted += '\\';
      quoted += text.substr(i, length);
      i += length;
    }
  }
  quoted += '"';
  if (i < text.size()) quoted += Format("... (%zu bytes)", text.size());
  return quoted;
}

Result<int64_t> ParseInt(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::result_out_of_range) {
    return MakeError(Code::kInvalidArgument, "%s is out of range", Quote(text).c_str());
  }
  if (error != std::errc{} || end != text.data() + text.size()) {
    return MakeError(Code::kInvalidArgument, "%s is not a whole number", Quote(text).c_str());
  }
  return value;
}

Result<double> ParseDouble(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::result_out_of_range) {
    return MakeError(Code::kInvalidArgument, "%s is out of range", Quote(text).c_str());
  }
  if (error != std::errc{} || end != text.data() + text.size()) {
    return MakeError(Code::kInvalidArgument, "%s is not a number", Quote(text).c_str());
  }
  return value;
}

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    size_t bad = 0;
    const size_t length = Utf8CharLength(text, &bad);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string ReplaceInvalidUtf8(std::string_view text) {
  std::string valid;
  valid.reserve(text.size());
  while (!text.empty()) {
    size_t bad = 0;
    const size_t length = Utf8CharLength(text, &bad);
    if (length == 0) {
      valid += "\xEF\xBF\xBD";
      text.remove_prefix(bad);
    } else {
      valid += text.substr(0, length);
      text.remove_prefix(length);
    }
  }
  return valid;
}

}  // namespace edgewise
