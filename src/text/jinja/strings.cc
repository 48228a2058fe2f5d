#include "text/jinja/strings.h"

#include <algorithm>
#include <cstring>

#include "base/strings.h"
#include "text/jinja/characters.h"
#include "text/unicode.h"

namespace edgewise::jinja {
namespace {

// Rewrites each character; `change` gets its code and whether it is the first.
template <class Change>
Text Map(const Text& text, Change change) {
  Text result;
  std::string encoded;
  for (size_t at = 0; at < text.size();) {
    const Character character = DecodeAt(text.bytes(), at);
    const char32_t changed = change(character.code, at == 0);
    if (changed == character.code) {
      result.Append(text, at, at + character.length);
    } else {
      encoded.clear();
      AppendChar(changed, &encoded);
      result.Append(encoded, text.TrustedAt(at));
    }
    at += character.length;
  }
  return result;
}

std::vector<Text> SplitWhiteSpace(const Text& text, int64_t limit) {
  std::vector<Text> pieces;
  const std::string& bytes = text.bytes();
  size_t at = 0;
  const auto skip = [&](bool space) {
    while (at < bytes.size()) {
      const Character character = DecodeAt(bytes, at);
      if (IsSpace(character.code) != space) break;
      at += character.length;
    }
  };
  for (skip(true); at < bytes.size(); skip(true)) {
    const size_t begin = at;
    if (limit >= 0 && static_cast<int64_t>(pieces.size()) >= limit) {
      pieces.push_back(text.Slice(begin, bytes.size()));
      break;
    }
    skip(false);
    pieces.push_back(text.Slice(begin, at));
  }
  return pieces;
}

}  // namespace

size_t FindText(std::string_view text, std::string_view part, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  const void* found = memmem(text.data() + from, text.size() - from, part.data(), part.size());
  return found ? static_cast<size_t>(static_cast<const char*>(found) - text.data())
               : std::string_view::npos;
}

Text Strip(const Text& text, Side side, const Text* chars) {
  std::vector<char32_t> taken;
  for (size_t at = 0; chars && at < chars->size();) {
    const Character character = DecodeAt(chars->bytes(), at);
    taken.push_back(character.code);
    at += character.length;
  }
  std::sort(taken.begin(), taken.end());
  const auto goes = [&](char32_t code) {
    return chars ? std::binary_search(taken.begin(), taken.end(), code) : IsSpace(code);
  };
  const std::string& bytes = text.bytes();
  size_t begin = 0, end = bytes.size();
  if (side != Side::kRight) {
    while (begin < end) {
      const Character character = DecodeAt(bytes, begin);
      if (!goes(character.code)) break;
      begin += character.length;
    }
  }
  if (side != Side::kLeft) {
    while (begin < end) {
      size_t last = end - 1;
      while (last > begin && end - last < 4 &&
             (static_cast<unsigned char>(bytes[last]) & 0xC0) == 0x80)
        --last;
      if (last + DecodeAt(bytes, last).length != end) last = end - 1;
      if (!goes(DecodeAt(bytes, last).code)) break;
      end = last;
    }
  }
  return text.Slice(begin, end);
}

Text Upper(const Text& text) {
  return Map(text, [](char32_t code, bool) { return UpperOf(code); });
}

Text Lower(const Text& text) {
  return Map(text, [](char32_t code, bool) { return LowerOf(code); });
}

Text Capitalize(const Text& text) {
  return Map(text, [](char32_t code, bool first) { return first ? UpperOf(code) : LowerOf(code); });
}

Text Title(const Text& text, bool (*separates)(char32_t)) {
  bool starts = true;
  return Map(text, [&](char32_t code, bool) {
    const char32_t changed = starts ? UpperOf(code) : LowerOf(code);
    starts = separates(code);
    return changed;
  });
}

Result<Text> Replace(Runtime& runtime, const Text& text, const Text& from, const Text& to,
                     int64_t count) {
  EW_TRY(runtime.ChargeBytes(text.size() + from.size()));
  Text result;
  size_t done = 0;
  const size_t width = from.empty() ? 1 : from.size();
  for (size_t at = 0; count != 0; --count) {
    const size_t found = from.empty() ? at : FindText(text.bytes(), from.bytes(), at);
    if (found > text.size()) break;
    result.Append(text, done, found);
    result.Append(to);
    if (result.size() > runtime.limits().max_output_bytes) {
      return MakeError(Code::kOutOfMemory, "replace: a text above the limit");
    }
    EW_TRY(runtime.ChargeBytes(to.size()));
    done = found + from.size();
    if (!from.empty()) {
      at = done;
    } else if (found == text.size()) {
      break;
    } else {
      at = found + std::max(DecodeAt(text.bytes(), found).length, width);
    }
  }
  result.Append(text, done, text.size());
  return result;
}

Result<std::vector<Text>> SplitText(Runtime& runtime, const Text& text, const Text* separator,
                                    int64_t limit, bool from_right) {
  EW_TRY(runtime.ChargeBytes(text.size()));
  if (!separator) {
    if (from_right && limit >= 0) {
      return MakeError(Code::kUnsupported, "rsplit() at white space with a limit");
    }
    EW_TRY(runtime.ChargeBytes(text.size() * 32));  // as many as one piece for every two bytes
    return SplitWhiteSpace(text, limit);
  }
  if (separator->empty()) return MakeError(Code::kBadData, "split() with an empty separator");
  std::vector<size_t> cuts;
  const std::string &bytes = text.bytes(), &cut = separator->bytes();
  if (from_right) {
    for (size_t at = bytes.rfind(cut); at != std::string::npos && limit != 0; --limit) {
      cuts.push_back(at);
      EW_TRY(runtime.Charge(1 + cut.size() / 16));
      if (at < cut.size()) break;
      at = bytes.rfind(cut, at - cut.size());
    }
    std::reverse(cuts.begin(), cuts.end());
  } else {
    for (size_t at = FindText(bytes, cut, 0); at != std::string::npos && limit != 0; --limit) {
      cuts.push_back(at);
      EW_TRY(runtime.Charge(1));
      at = FindText(bytes, cut, at + cut.size());
    }
  }
  std::vector<Text> pieces;
  size_t begin = 0;
  for (const size_t at : cuts) {
    pieces.push_back(text.Slice(begin, at));
    begin = at + cut.size();
  }
  pieces.push_back(text.Slice(begin, bytes.size()));
  return pieces;
}

std::vector<Text> SplitLines(const Text& text) {
  std::vector<Text> lines;
  const std::string& bytes = text.bytes();
  for (size_t at = 0; at < bytes.size();) {
    size_t end = at;
    while (end < bytes.size() && bytes[end] != '\n' && bytes[end] != '\r') ++end;
    lines.push_back(text.Slice(at, end));
    at = end + 1;
    if (end + 1 < bytes.size() && bytes[end] == '\r' && bytes[end + 1] == '\n') ++at;
  }
  return lines;
}

Result<Text> JoinItems(Runtime& runtime, const std::vector<Value>& items, const Text& separator) {
  Text result;
  for (size_t i = 0; i < items.size(); ++i) {
    EW_TRY(const Text text, ToText(runtime, items[i]));
    EW_TRY(runtime.ChargeBytes(separator.size()));
    if (i > 0) result.Append(separator);
    result.Append(text);
    if (result.size() > runtime.limits().max_output_bytes) {
      return MakeError(Code::kOutOfMemory, "join: a text above the limit");
    }
  }
  return result;
}

}  // namespace edgewise::jinja
