#include "formats/safetensors_header.h"

#include <unordered_set>

#include "base/bytes.h"
#include "base/strings.h"

namespace edgewise {
namespace {

constexpr size_t kMaxNumbers = 8;  // of one array: a shape or data_offsets
constexpr size_t kMaxNameBytes = 4096;

void AppendUtf8(uint32_t code, std::string* text) {
  const auto put = [text](uint32_t byte) { *text += static_cast<char>(byte); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

// Reads the one JSON shape that a header has: strings, small arrays of integers, objects of these.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  Result<SafetensorsHeader> Header();

 private:
  Error Bad(const std::string& what) const {
    return MakeError(Code::kBadData, "at byte %zu: %s", at_, what.c_str());
  }
  void SkipBlanks() {
    while (at_ < text_.size() &&
           std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos)
      ++at_;
  }
  // Skips blanks, then takes `wanted` if it comes next.
  bool Take(char wanted) {
    SkipBlanks();
    if (at_ == text_.size() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }
  Status Expect(char wanted) {
    if (Take(wanted)) return Ok{};
    if (at_ == text_.size()) return Bad(Format("'%c' expected, but the header ends", wanted));
    return Bad(Format("'%c' expected, not %s", wanted, Quote(text_.substr(at_, 1)).c_str()));
  }

  Result<std::string> String();
  Status Escape(std::string* text);
  Result<uint32_t> FourHexDigits();
  Result<uint64_t> Integer();
  Result<std::vector<uint64_t>> Integers();
  // Calls member(key) on each key of an object, positioned at its value.
  template <class Member>
  Status Object(Member member);
  Status TensorMember(const std::string& key, SafetensorsEntry* entry, uint32_t* seen);
  Result<SafetensorsEntry> Tensor(std::string name);
  Status FileMetadata(SafetensorsHeader* header);

  std::string_view text_;
  size_t at_ = 0;
};

Result<std::string> Scanner::String() {
  EW_TRY(Expect('"'));
  std::string text;
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (static_cast<unsigned char>(c) < 0x20) return Bad("a control character in a string");
    ++at_;
    if (c == '"') return text;
    if (c == '\\') {
      EW_TRY(Escape(&text));
    } else {
      text += c;
    }
  }
  return Bad("the header ends in a string");
}

Result<uint32_t> Scanner::FourHexDigits() {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i, ++at_) {
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    const size_t digit = std::string_view("0123456789abcdef")
                             .find(static_cast<char>(c >= 'A' && c <= 'F' ? c + 32 : c));
    if (digit == std::string_view::npos) return Bad("four hexadecimal digits expected after \\u");
    value = value << 4 | static_cast<uint32_t>(digit);
  }
  return value;
}

// Reads what follows a backslash.
Status Scanner::Escape(std::string* text) {
  const char c = at_ < text_.size() ? text_[at_] : '\0';
  constexpr std::string_view kLetters = "\"\\/bfnrt";
  constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
  if (const size_t known = kLetters.find(c); known != std::string_view::npos) {
    ++at_;
    *text += kMeanings[known];
    return Ok{};
  }
  if (c != 'u') return Bad("an unknown escape in a string");
  ++at_;
  EW_TRY(uint32_t code, FourHexDigits());
  if (code >= 0xD800 && code < 0xDC00 && text_.substr(at_, 2) == "\\u") {
    at_ += 2;
    EW_TRY(const uint32_t low, FourHexDigits());
    if (low < 0xDC00 || low > 0xDFFF) return Bad("a surrogate without its pair");
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  }
  if (code >= 0xD800 && code <= 0xDFFF) return Bad("a surrogate without its pair");
  AppendUtf8(code, text);
  return Ok{};
}

Result<uint64_t> Scanner::Integer() {
  SkipBlanks();
  const size_t start = at_;
  uint64_t value = 0;
  while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') {
    const auto digit = static_cast<uint64_t>(text_[at_] - '0');
    if (MulOverflows(value, 10, &value) || AddOverflows(value, digit, &value)) {
      return Bad("an integer above 2^64 - 1");
    }
    ++at_;
  }
  if (at_ == start) return Bad("a non-negative integer expected");
  if (at_ - start > 1 && text_[start] == '0') return Bad("an integer with a leading zero");
  return value;
}

Result<std::vector<uint64_t>> Scanner::Integers() {
  EW_TRY(Expect('['));
  std::vector<uint64_t> values;
  if (Take(']')) return values;
  do {
    if (values.size() == kMaxNumbers) {
      return MakeError(Code::kUnsupported, "at byte %zu: an array of more than %zu integers", at_,
                       kMaxNumbers);
    }
    EW_TRY(const uint64_t value, Integer());
    values.push_back(value);
  } while (Take(','));
  EW_TRY(Expect(']'));
  return values;
}

template <class Member>
Status Scanner::Object(Member member) {
  EW_TRY(Expect('{'));
  if (Take('}')) return Ok{};
  do {
    EW_TRY(auto key, String());
    EW_TRY(Expect(':'));
    EW_TRY(member(std::move(key)));
  } while (Take(','));
  return Expect('}');
}

// Reads one of a tensor's three members and adds its bit to `seen`.
Status Scanner::TensorMember(const std::string& key, SafetensorsEntry* entry, uint32_t* seen) {
  uint32_t bit = 0;
  if (key == "dtype") {
    bit = 1;
    EW_TRY(entry->dtype, String());
  } else if (key == "shape") {
    bit = 2;
    EW_TRY(entry->shape, Integers());
  } else if (key == "data_offsets") {
    bit = 4;
    EW_TRY(const auto offsets, Integers());
    if (offsets.size() != 2)
      return Bad(Format("data_offsets has %zu integers, not 2", offsets.size()));
    entry->begin = offsets[0];
    entry->end = offsets[1];
  } else {
    return Bad("an unknown member " + Quote(key));
  }
  if (*seen & bit) return Bad("the member " + Quote(key) + " appears twice");
  *seen |= bit;
  return Ok{};
}

Result<SafetensorsEntry> Scanner::Tensor(std::string name) {
  const std::string where = "tensor " + Quote(name);
  SafetensorsEntry entry;
  entry.name = std::move(name);
  uint32_t seen = 0;
  EW_TRY(
      Object([&](const std::string& key) { return TensorMember(key, &entry, &seen); }).In(where));
  if (seen != 7) return Bad(where + " lacks its dtype, shape or data_offsets");
  return entry;
}

Status Scanner::FileMetadata(SafetensorsHeader* header) {
  std::unordered_set<std::string> keys;
  return Object([&](std::string key) -> Status {
           if (!keys.insert(key).second) return Bad("the key " + Quote(key) + " appears twice");
           EW_TRY(auto value, String());
           header->metadata.emplace_back(std::move(key), std::move(value));
           return Ok{};
         })
      .In("__metadata__");
}

Result<SafetensorsHeader> Scanner::Header() {
  if (!text_.starts_with('{')) return Bad("'{' expected");
  if (!IsUtf8(text_)) return MakeError(Code::kBadData, "not UTF-8 text");
  SafetensorsHeader header;
  bool has_metadata = false;
  EW_TRY(Object([&](std::string key) -> Status {
    if (key == "__metadata__") {
      if (has_metadata) return Bad("__metadata__ appears twice");
      has_metadata = true;
      return FileMetadata(&header);
    }
    if (key.empty() || key.size() > kMaxNameBytes) {
      return Bad(
          Format("a tensor name of %zu bytes; 1 to %zu are read", key.size(), kMaxNameBytes));
    }
    EW_TRY(auto entry, Tensor(std::move(key)));
    header.entries.push_back(std::move(entry));
    return Ok{};
  }));
  SkipBlanks();
  if (at_ < text_.size()) return Bad("text after the header's end");
  return header;
}

}  // namespace

Result<SafetensorsHeader> ParseSafetensorsHeader(std::string_view text) {
  return Scanner(text).Header();
}

}  // namespace edgewise
