#include "text/unicode.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "base/rng.h"

#ifdef EDGEWISE_HAVE_UTF8PROC
#include <utf8proc.h>

#include <cstdlib>
#endif

namespace edgewise {
namespace {

using Chars = std::vector<uint32_t>;

TEST_CASE("every byte survives decoding and encoding") {
  Rng rng(1);
  for (int round = 0; round < 200; ++round) {
    std::string text;
    for (int i = 0; i < 100; ++i) text += static_cast<char>(rng.Below(256));
    CHECK(EncodeUtf8(DecodeUtf8(text)) == text);
  }
}

TEST_CASE("ill-formed UTF-8 comes out byte by byte") {
  CHECK(DecodeUtf8("a\xC3\xA9") == Chars{'a', 0xE9});
  CHECK(DecodeUtf8("\xC0\x80") == Chars{kIllFormed + 0xC0, kIllFormed + 0x80});  // overlong
  CHECK(DecodeUtf8("\xED\xA0\x80") ==
        Chars{kIllFormed + 0xED, kIllFormed + 0xA0, kIllFormed + 0x80});  // surrogate
  CHECK(DecodeUtf8("\xF4\x90\x80\x80").size() == 4);                      // too high
  CHECK(DecodeUtf8("\xF0\x9F\xA6") ==
        Chars{kIllFormed + 0xF0, kIllFormed + 0x9F, kIllFormed + 0xA6});  // cut
  CHECK(DecodeUtf8("\xF0\x9F\xA6\x99") == Chars{0x1F999});
}

TEST_CASE("categories and properties") {
  CHECK(CategoryOf('A') == Category::kLu);
  CHECK(CategoryOf(0xAA) == Category::kLo);
  CHECK(CategoryOf('5') == Category::kNd);
  CHECK(CategoryOf(0xBD) == Category::kNo);
  CHECK(CategoryOf(0x301) == Category::kMn);
  CHECK(CategoryOf('$') == Category::kSc);
  CHECK(CategoryOf(0x3002) == Category::kPo);
  CHECK(CategoryOf(0x4E2D) == Category::kLo);
  CHECK(CategoryOf(0x1F999) == Category::kSo);
  CHECK(CategoryOf(0x10FFFF) == Category::kCn);
  CHECK(CategoryOf(kIllFormed + 0x80) == Category::kSo);
  CHECK(IsWhiteSpace(0x85));
  CHECK(IsWhiteSpace(0x3000));
  CHECK_FALSE(IsWhiteSpace(0x180E));
  CHECK_FALSE(IsWhiteSpace(0x200B));
}

TEST_CASE("lower case") {
  CHECK(ToLower('Z') == 'z');
  CHECK(ToLower('[') == '[');
  CHECK(ToLower(0xC4) == 0xE4);
  CHECK(ToLower(0x100) == 0x101);
  CHECK(ToLower(0x101) == 0x101);
  CHECK(ToLower(0x130) == 'i');
  CHECK(ToLower(0x411) == 0x431);
  CHECK(ToLower(0x1E9E) == 0xDF);
  CHECK(ToLower(0x10400) == 0x10428);
}

TEST_CASE("canonical normalization") {
  CHECK(ToNfd(Chars{0x1EC7}) == Chars{'e', 0x323, 0x302});  // ệ
  CHECK(ToNfc(Chars{'e', 0x302, 0x323}) == Chars{0x1EC7});  // marks reordered first
  CHECK(ToNfc(Chars{'a', 0x323, 0x323, 0x302}) == Chars{0x1EAD, 0x323});
  CHECK(ToNfd(Chars{0xD55C}) == Chars{0x1112, 0x1161, 0x11AB});  // Hangul
  CHECK(ToNfc(Chars{0x1112, 0x1161, 0x11AB}) == Chars{0xD55C});
  CHECK(ToNfc(Chars{0x212B}) == Chars{0xC5});         // singleton
  CHECK(ToNfc(Chars{0x958}) == Chars{0x915, 0x93C});  // excluded from composition
  CHECK(ToNfc(Chars{0x301, 'a'}) == Chars{0x301, 'a'});
  CHECK(ToNfc(Chars{kIllFormed + 0xFF, 0x301}) == Chars{kIllFormed + 0xFF, 0x301});
  CHECK(ToNfc("Vie\xCC\xA3\xCC\x82t \xFF") == "Vi\xE1\xBB\x87t \xFF");
}

#ifdef EDGEWISE_HAVE_UTF8PROC
Chars ByUtf8proc(const Chars& text, utf8proc_option_t option) {
  std::vector<utf8proc_int32_t> out(text.size() * 4 + 8);
  std::string bytes = EncodeUtf8(text);
  const auto length = utf8proc_decompose(reinterpret_cast<const uint8_t*>(bytes.data()),
                                         static_cast<utf8proc_ssize_t>(bytes.size()), out.data(),
                                         static_cast<utf8proc_ssize_t>(out.size()),
                                         static_cast<utf8proc_option_t>(option | UTF8PROC_STABLE));
  REQUIRE(length >= 0);
  const auto normal = utf8proc_normalize_utf32(
      out.data(), length, static_cast<utf8proc_option_t>(option | UTF8PROC_STABLE));
  REQUIRE(normal >= 0);
  return Chars(out.begin(), out.begin() + normal);
}

TEST_CASE("utf8proc agrees on every code point") {
  constexpr const char* kNames[] = {"Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl",
                                    "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc",
                                    "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co", "Cn"};
  int wrong = 0, compared = 0;
  for (uint32_t c = 0; c < kIllFormed; ++c) {
    const auto code_point = static_cast<utf8proc_int32_t>(c);
    const std::string category = utf8proc_category_string(code_point);
    // Its version of Unicode may assign more or fewer code points.
    if (category == "Cn" || CategoryOf(c) == Category::kCn) continue;
    ++compared;
    wrong += category != kNames[static_cast<int>(CategoryOf(c))];
    wrong += utf8proc_tolower(code_point) != static_cast<utf8proc_int32_t>(ToLower(c));
    if (c >= 0xD800 && c < 0xE000) continue;
    wrong += ToNfd(Chars{c}) != ByUtf8proc({c}, UTF8PROC_DECOMPOSE);
    wrong += ToNfc(Chars{c}) != ByUtf8proc({c}, UTF8PROC_COMPOSE);
  }
  CHECK(wrong == 0);
  CHECK(compared > 280'000);
}

TEST_CASE("utf8proc agrees on random text that composes") {
  const Chars alphabet = {'a',   'e',    'o',    'A',    0x323,  0x302,  0x301,  0x31B,
                          0x327, 0x345,  0x1100, 0x1161, 0x11A8, 0xAC00, 0xAC01, 0x915,
                          0x93C, 0x1EA1, 0x3B1,  0x313,  0x9C7,  0x9BE};
  Rng rng(2);
  for (int round = 0; round < 20000; ++round) {
    Chars text;
    for (uint64_t i = rng.Below(8) + 1; i > 0; --i)
      text.push_back(alphabet[rng.Below(alphabet.size())]);
    REQUIRE(ToNfd(text) == ByUtf8proc(text, UTF8PROC_DECOMPOSE));
    REQUIRE(ToNfc(text) == ByUtf8proc(text, UTF8PROC_COMPOSE));
  }
}
#endif

}  // namespace
}  // namespace edgewise
