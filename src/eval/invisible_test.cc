#include "eval/invisible.h"

#include <doctest/doctest.h>

#include <string>

namespace edgewise {
namespace {

TEST_CASE("Honest uses are left alone") {
  for (const char* text :
       {"plain text\twith\r\nline ends", "\uFEFFa byte order mark at the start",
        "a family \U0001F468\u200D\U0001F469\u200D\U0001F467 and a heart \u2764\uFE0F, key "
        "1\uFE0F\u20E3",
        "Scotland \U0001F3F4\U000E0067\U000E0062\U000E0073\U000E0063\U000E0074\U000E007F wins",
        "\u0645\u06CC\u200C\u062E\u0648\u0627\u0647\u0645", "\u0915\u094D\u200D\u0937",
        "\u05E9\u05DC\u05D5\u05DD (a)\u200F \u2067mixed\u2069", "hy\u00ADphen"}) {
    CAPTURE(text);
    CHECK(FindInvisible(text).empty());
  }
}

TEST_CASE("Hidden characters are found, with their kind and place") {
  const auto only = [](const char* text) {
    const auto found = FindInvisible(text);
    REQUIRE(found.size() == 1);
    return found[0];
  };
  CHECK(only("ab\u200B").kind == InvisibleKind::kZeroWidth);
  CHECK(only("ab\u200B").offset == 2);
  CHECK(only("pass\u200Dword").code_point == 0x200D);
  CHECK(only("a\uFEFF").kind == InvisibleKind::kZeroWidth);
  CHECK(only("\u00E9\u202E txet").kind == InvisibleKind::kBidi);
  CHECK(only("\u00E9\u202E txet").offset == 2);
  CHECK(only("\u05E9\u202E").kind == InvisibleKind::kBidi);
  CHECK(only("if (a\u2066) {").kind == InvisibleKind::kBidi);
  CHECK(only("hi\U000E0041").kind == InvisibleKind::kTag);
  CHECK(only("a\uFE01").kind == InvisibleKind::kVariationSelector);
  CHECK(only("a\U000E0100").kind == InvisibleKind::kVariationSelector);
  CHECK(only("bell\a").kind == InvisibleKind::kControl);
  CHECK(FindInvisible("\U0001F3F4\U000E0067\U000E0062 no end").size() == 2);
  CHECK(FindInvisible("\xFF\xFE any bytes").empty());
  CHECK(FindInvisible("").empty());
}

TEST_CASE("Invisible characters are spelled out for people") {
  CHECK(SpellInvisible("a\u200B\nb\x1B[0m\xFF\U000E0041") ==
        "a<U+200B> b<U+001B>[0m\uFFFD<U+E0041>");
}

}  // namespace
}  // namespace edgewise
