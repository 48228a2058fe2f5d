#include "text/pretokenize.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "base/rng.h"
#include "text/unicode.h"

#ifdef EDGEWISE_HAVE_PCRE2
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#endif

namespace edgewise {
namespace {

using Pieces = std::vector<std::string>;

Pieces Split(PreTokenizer kind, const std::string& text) {
  Pieces pieces;
  uint32_t begin = 0;
  for (const uint32_t end : PreTokenize(kind, text)) {
    pieces.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  CHECK(begin == text.size());
  return pieces;
}

TEST_CASE("gpt-2 splits words, numbers, marks and blanks") {
  CHECK(Split(PreTokenizer::kGpt2, "I'm here,  they'LL go 123abc\n\n x ") ==
        Pieces{"I", "'m", " here", ",", " ", " they", "'", "LL", " go", " 123", "abc", "\n\n", " x",
               " "});
  CHECK(Split(PreTokenizer::kGpt2, "").empty());
  CHECK(Split(PreTokenizer::kGpt2, "\tb") == Pieces{"\t", "b"});
  CHECK(Split(PreTokenizer::kGpt2, "\xFF\xFE!a") == Pieces{"\xFF\xFE!", "a"});
}

TEST_CASE("llama-bpe and qwen2 differ in numbers only") {
  CHECK(Split(PreTokenizer::kLlama3, "They'LL 12345!\n\n  x\t y") ==
        Pieces{"They", "'LL", " ", "123", "45", "!\n\n", " ", " x", "\t", " y"});
  CHECK(Split(PreTokenizer::kQwen2, "a 123") == Pieces{"a", " ", "1", "2", "3"});
  CHECK(Split(PreTokenizer::kLlama3, "a \n \n  b") == Pieces{"a", " \n \n", " ", " b"});
}

TEST_CASE("starcoder, falcon, default and deepseek-coder run their stages in order") {
  CHECK(Split(PreTokenizer::kStarcoder, "x 123 's") == Pieces{"x", " ", "1", "2", "3", " '", "s"});
  CHECK(Split(PreTokenizer::kFalcon, "a`b 12345=x") ==
        Pieces{"a", "`", "b", " ", "123", "45", "=", "x"});
  CHECK(Split(PreTokenizer::kFalcon, "12345") == Pieces{"123", "45"});
  CHECK(Split(PreTokenizer::kDefault, "it's 12345") == Pieces{"it", "'", "s", " ", "123", "45"});
  CHECK(Split(PreTokenizer::kDeepseekCoder,
              "a b\n\n 12 \xE4\xB8\xAD"
              "c!!") ==
        Pieces{"a", " b", "\n", "\n", " ", "1", "2", " ", "\xE4\xB8\xAD", "c", "!!"});
}

TEST_CASE("names") {
  CHECK(*FindPreTokenizer("") == PreTokenizer::kDefault);
  CHECK(*FindPreTokenizer("llama-bpe") == PreTokenizer::kLlama3);
  CHECK(*FindPreTokenizer("smollm") == PreTokenizer::kStarcoder);
  const auto unknown = FindPreTokenizer("no-such");
  REQUIRE_FALSE(unknown.has_value());
  CHECK(unknown.error().code == Code::kUnsupported);
  CHECK(unknown.error().message.find("qwen2") != std::string::npos);
}

#ifdef EDGEWISE_HAVE_PCRE2
// Splits each piece by the regex as a pre-tokenizer does: matches and the gaps between them.
Pieces SplitByRegex(const Pieces& pieces, const std::string& pattern) {
  int error = 0;
  PCRE2_SIZE where = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_UTF | PCRE2_UCP, &error, &where, nullptr);
  REQUIRE(code != nullptr);
  pcre2_match_data* match = pcre2_match_data_create_from_pattern(code, nullptr);
  Pieces out;
  for (const std::string& piece : pieces) {
    size_t at = 0;
    while (at < piece.size()) {
      // The subject ends with its piece, but starts inside it: no pattern looks back.
      const int found = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(piece.data()), piece.size(),
                                    at, 0, match, nullptr);
      if (found < 0) break;
      const PCRE2_SIZE* range = pcre2_get_ovector_pointer(match);
      if (range[0] > at) out.push_back(piece.substr(at, range[0] - at));
      out.push_back(piece.substr(range[0], range[1] - range[0]));
      at = range[1];
    }
    if (at < piece.size()) out.push_back(piece.substr(at));
  }
  pcre2_match_data_free(match);
  pcre2_code_free(code);
  return out;
}

TEST_CASE("PCRE2 splits random text in the same way") {
  const std::string gpt2 =
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
  const auto llama = [](const std::string& digits) {
    return R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|)" +
           digits + R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  };
  const std::vector<std::pair<PreTokenizer, std::vector<std::string>>> kinds = {
      {PreTokenizer::kGpt2, {gpt2}},
      {PreTokenizer::kLlama3, {llama(R"(\p{N}{1,3})")}},
      {PreTokenizer::kQwen2, {llama(R"(\p{N})")}},
      {PreTokenizer::kStarcoder, {R"(\p{N})", gpt2}},
      {PreTokenizer::kFalcon, {R"([\p{P}\$\+<=>\^~\|`]+)", gpt2, "[0-9][0-9][0-9]"}},
      {PreTokenizer::kDefault, {R"([\p{P}\$\+<=>\^~\|]+)", gpt2, R"(\p{N}+)", "[0-9][0-9][0-9]"}},
      {PreTokenizer::kDeepseekCoder,
       {"[\r\n]", R"(\s?\p{L}+)", R"(\s?\p{P}+)",
        R"([\x{4E00}-\x{9FA5}\x{0800}-\x{4E00}\x{AC00}-\x{D7FF}]+)", R"(\p{N})"}},
  };
  const std::string likely = "''''     \t\n\r\n\v  aabzZstdmrevlREVLLSTMD0123456789.,!$`+=<>^|~_-(";
  Rng rng(3);
  for (int round = 0; round < 4000; ++round) {
    std::string text;
    for (uint64_t i = rng.Below(30); i > 0; --i) {
      const uint64_t pick = rng.Below(10);
      if (pick < 7) {
        text += likely[rng.Below(likely.size())];
        continue;
      }
      uint32_t c = static_cast<uint32_t>(rng.Below(pick == 7   ? 0x500
                                                   : pick == 8 ? 0xFFFF
                                                               : 0x20000));
      // U+180E is white space to PCRE2 alone.
      if (c == 0x180E || (c >= 0xD800 && c < 0xE000)) c = 0x3000;
      AppendChar(c, &text);
    }
    for (const auto& [kind, stages] : kinds) {
      Pieces expected = {text};
      if (text.empty()) expected.clear();
      for (const std::string& stage : stages) expected = SplitByRegex(expected, stage);
      CAPTURE(text);
      CAPTURE(static_cast<int>(kind));
      REQUIRE(Split(kind, text) == expected);
    }
  }
}
#endif

TEST_CASE("a megabyte of one character stays one pass") {
  for (const std::string unit : {"a", " ", "\n", "1", "!", "'", "\xE4\xB8\xAD", "\xFF", " \n"}) {
    std::string text;
    while (text.size() < (1u << 20)) text += unit;
    for (const PreTokenizer kind :
         {PreTokenizer::kGpt2, PreTokenizer::kLlama3, PreTokenizer::kQwen2,
          PreTokenizer::kStarcoder, PreTokenizer::kFalcon, PreTokenizer::kDeepseekCoder,
          PreTokenizer::kDefault}) {
      const auto ends = PreTokenize(kind, text);
      REQUIRE_FALSE(ends.empty());
      CHECK(ends.back() == text.size());
    }
  }
}

}  // namespace
}  // namespace edgewise
