#include "text/pretokenize.h"

#include <string>

#include "base/strings.h"
#include "text/unicode.h"

namespace edgewise {
namespace {

struct Name {
  std::string_view name;
  PreTokenizer kind;
};

constexpr Name kNames[] = {
    {"default", PreTokenizer::kDefault},
    {"gpt-2", PreTokenizer::kGpt2},
    {"phi-2", PreTokenizer::kGpt2},
    {"mpt", PreTokenizer::kGpt2},
    {"olmo", PreTokenizer::kGpt2},
    {"jais", PreTokenizer::kGpt2},
    {"trillion", PreTokenizer::kGpt2},
    {"granite-docling", PreTokenizer::kGpt2},
    {"exaone4", PreTokenizer::kGpt2},
    {"roberta-bpe", PreTokenizer::kGpt2},
    {"llama-bpe", PreTokenizer::kLlama3},
    {"llama3", PreTokenizer::kLlama3},
    {"llama-v3", PreTokenizer::kLlama3},
    {"falcon3", PreTokenizer::kLlama3},
    {"falcon-h1", PreTokenizer::kLlama3},
    {"pixtral", PreTokenizer::kLlama3},
    {"lfm2", PreTokenizer::kLlama3},
    {"dbrx", PreTokenizer::kLlama3},
    {"smaug-bpe", PreTokenizer::kLlama3},
    {"glm4", PreTokenizer::kLlama3},
    {"chatglm-bpe", PreTokenizer::kLlama3},
    {"qwen2", PreTokenizer::kQwen2},
    {"deepseek-r1-qwen", PreTokenizer::kQwen2},
    {"stablelm2", PreTokenizer::kQwen2},
    {"hunyuan", PreTokenizer::kQwen2},
    {"megrez", PreTokenizer::kQwen2},
    {"grok-2", PreTokenizer::kQwen2},
    {"starcoder", PreTokenizer::kStarcoder},
    {"refact", PreTokenizer::kStarcoder},
    {"command-r", PreTokenizer::kStarcoder},
    {"smollm", PreTokenizer::kStarcoder},
    {"codeshell", PreTokenizer::kStarcoder},
    {"exaone", PreTokenizer::kStarcoder},
    {"minerva-7b", PreTokenizer::kStarcoder},
    {"falcon", PreTokenizer::kFalcon},
    {"deepseek-coder", PreTokenizer::kDeepseekCoder},
};

enum Class : uint8_t {
  kLetterClass = 1,
  kNumberClass = 2,
  kSpaceClass = 4,
  kPunctuationClass = 8,
  kOtherClass = 16,
};

uint8_t ClassOf(uint32_t c) {
  if (IsWhiteSpace(c)) return kSpaceClass;
  const Category category = CategoryOf(c);
  if (IsLetter(category)) return kLetterClass;
  if (IsNumber(category)) return kNumberClass;
  return IsPunctuation(category) ? kPunctuationClass : kOtherClass;
}

// The characters of the text, with their classes.
struct Chars {
  std::vector<uint32_t> code;
  std::vector<uint8_t> type;

  // Returns the end of the run of characters of these classes that starts at `i`.
  size_t Run(size_t i, size_t end, int classes) const {
    while (i < end && (type[i] & classes) != 0) ++i;
    return i;
  }
};

// A matcher returns the end of the match that starts at `i`, or `i` when none does. `end` is where
// the piece ends.

// 's 't 'm 'd 're 've 'll, with `fold` in any case.
size_t MatchContraction(const Chars& t, size_t i, size_t end, bool fold) {
  if (t.code[i] != '\'' || i + 1 >= end) return i;
  const auto letter = [&](size_t k) {
    const uint32_t c = t.code[k];
    return fold && c >= 'A' && c <= 'Z' ? c + 32 : c;
  };
  const uint32_t a = letter(i + 1);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return i + 2;
  if (i + 2 >= end) return i;
  const uint32_t b = letter(i + 2);
  return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? i + 3 : i;
}

// \s+(?!\S)|\s+ : leaves the last blank of a run to the word that follows.
size_t MatchSpaces(const Chars& t, size_t i, size_t end) {
  const size_t stop = t.Run(i, end, kSpaceClass);
  return stop == end || stop == i + 1 ? stop : stop - 1;
}

size_t MatchGpt2(const Chars& t, size_t i, size_t end) {
  if (const size_t stop = MatchContraction(t, i, end, false); stop > i) return stop;
  const size_t word = t.code[i] == ' ' && i + 1 < end ? i + 1 : i;
  switch (t.type[word]) {
    case kLetterClass:
      return t.Run(word, end, kLetterClass);
    case kNumberClass:
      return t.Run(word, end, kNumberClass);
    case kSpaceClass:
      return MatchSpaces(t, i, end);
    default:
      return t.Run(word, end, kPunctuationClass | kOtherClass);
  }
}

bool IsNewline(uint32_t c) { return c == '\r' || c == '\n'; }

// \s*[\r\n]+|\s+(?!\S)|\s+
size_t MatchLines(const Chars& t, size_t i, size_t end) {
  const size_t stop = t.Run(i, end, kSpaceClass);
  for (size_t k = stop; k > i; --k) {
    if (IsNewline(t.code[k - 1])) return k;
  }
  return stop == end || stop == i + 1 ? stop : stop - 1;
}

template <size_t kMaxDigits>
size_t MatchLlama3(const Chars& t, size_t i, size_t end) {
  if (const size_t stop = MatchContraction(t, i, end, true); stop > i) return stop;
  const uint8_t type = t.type[i];
  if (type == kLetterClass) return t.Run(i, end, kLetterClass);
  if (type == kNumberClass) {
    return t.Run(i, end < i + kMaxDigits ? end : i + kMaxDigits, kNumberClass);
  }
  if (!IsNewline(t.code[i]) && i + 1 < end && t.type[i + 1] == kLetterClass) {
    return t.Run(i + 1, end, kLetterClass);
  }
  const size_t word = t.code[i] == ' ' && i + 1 < end ? i + 1 : i;
  if (t.type[word] & (kPunctuationClass | kOtherClass)) {
    size_t stop = t.Run(word, end, kPunctuationClass | kOtherClass);
    while (stop < end && IsNewline(t.code[stop])) ++stop;
    return stop;
  }
  return MatchLines(t, i, end);
}

// \s?C+ for a class C.
template <Class kClass>
size_t MatchBlankAndRun(const Chars& t, size_t i, size_t end) {
  const size_t word = t.type[i] == kSpaceClass && i + 1 < end ? i + 1 : i;
  return t.type[word] == kClass ? t.Run(word, end, kClass) : i;
}

size_t MatchNewline(const Chars& t, size_t i, size_t) { return IsNewline(t.code[i]) ? i + 1 : i; }

size_t MatchNumber(const Chars& t, size_t i, size_t) {
  return t.type[i] == kNumberClass ? i + 1 : i;
}

size_t MatchNumbers(const Chars& t, size_t i, size_t end) { return t.Run(i, end, kNumberClass); }

size_t MatchThreeDigits(const Chars& t, size_t i, size_t end) {
  if (end - i < 3) return i;
  for (size_t k = i; k < i + 3; ++k) {
    if (t.code[k] < '0' || t.code[k] > '9') return i;
  }
  return i + 3;
}

// The ranges of DeepSeek's pattern: U+4E00-9FA5, U+0800-4E00, U+AC00-D7FF.
size_t MatchEastAsian(const Chars& t, size_t i, size_t end) {
  const auto inside = [](uint32_t c) {
    return (c >= 0x800 && c <= 0x9FA5) || (c >= 0xAC00 && c <= 0xD7FF);
  };
  while (i < end && inside(t.code[i])) ++i;
  return i;
}

template <bool kBacktick>
size_t MatchMarks(const Chars& t, size_t i, size_t end) {
  const auto inside = [&](size_t k) {
    if (t.type[k] == kPunctuationClass) return true;
    const uint32_t c = t.code[k];
    return c == '$' || c == '+' || c == '<' || c == '=' || c == '>' || c == '^' || c == '~' ||
           c == '|' || (kBacktick && c == '`');
  };
  while (i < end && inside(i)) ++i;
  return i;
}

// Splits every piece (given by its end) into matches and the gaps between them.
template <class Match>
void Stage(const Chars& chars, std::vector<uint32_t>* ends, Match match) {
  std::vector<uint32_t> out;
  out.reserve(ends->size() + chars.code.size() / 4);
  size_t i = 0;
  for (const uint32_t end : *ends) {
    size_t gap = i;
    while (i < end) {
      const size_t stop = match(chars, i, end);
      if (stop == i) {
        ++i;
        continue;
      }
      if (gap < i) out.push_back(static_cast<uint32_t>(i));
      out.push_back(static_cast<uint32_t>(stop));
      gap = i = stop;
    }
    if (gap < end) out.push_back(end);
  }
  *ends = std::move(out);
}

void RunStages(PreTokenizer kind, const Chars& chars, std::vector<uint32_t>* ends) {
  switch (kind) {
    case PreTokenizer::kGpt2:
      return Stage(chars, ends, MatchGpt2);
    case PreTokenizer::kLlama3:
      return Stage(chars, ends, MatchLlama3<3>);
    case PreTokenizer::kQwen2:
      return Stage(chars, ends, MatchLlama3<1>);
    case PreTokenizer::kStarcoder:
      Stage(chars, ends, MatchNumber);
      return Stage(chars, ends, MatchGpt2);
    case PreTokenizer::kFalcon:
      Stage(chars, ends, MatchMarks<true>);
      Stage(chars, ends, MatchGpt2);
      return Stage(chars, ends, MatchThreeDigits);
    case PreTokenizer::kDeepseekCoder:
      Stage(chars, ends, MatchNewline);
      Stage(chars, ends, MatchBlankAndRun<kLetterClass>);
      Stage(chars, ends, MatchBlankAndRun<kPunctuationClass>);
      Stage(chars, ends, MatchEastAsian);
      return Stage(chars, ends, MatchNumber);
    case PreTokenizer::kDefault:
      Stage(chars, ends, MatchMarks<false>);
      Stage(chars, ends, MatchGpt2);
      Stage(chars, ends, MatchNumbers);
      return Stage(chars, ends, MatchThreeDigits);
  }
}

}  // namespace

Result<PreTokenizer> FindPreTokenizer(std::string_view name) {
  if (name.empty()) return PreTokenizer::kDefault;
  std::string known;
  for (const Name& row : kNames) {
    if (row.name == name) return row.kind;
    known += known.empty() ? "" : ", ";
    known += row.name;
  }
  return MakeError(Code::kUnsupported, "pre-tokenizer %s is not supported; known ones: %s",
                   Quote(name).c_str(), known.c_str());
}

std::vector<uint32_t> PreTokenize(PreTokenizer kind, std::string_view text) {
  Chars chars;
  chars.code = DecodeUtf8(text);
  chars.type.resize(chars.code.size());
  for (size_t i = 0; i < chars.code.size(); ++i) chars.type[i] = ClassOf(chars.code[i]);

  std::vector<uint32_t> ends;
  if (chars.code.empty()) return ends;
  ends.push_back(static_cast<uint32_t>(chars.code.size()));
  RunStages(kind, chars, &ends);

  // From characters to bytes.
  uint32_t byte = 0;
  size_t i = 0;
  for (uint32_t& end : ends) {
    for (; i < end; ++i) byte += static_cast<uint32_t>(CharBytes(chars.code[i]));
    end = byte;
  }
  return ends;
}

}  // namespace edgewise
