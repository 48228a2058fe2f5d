#include "compress/quantize/pattern.h"

#include <doctest/doctest.h>

#include <string>

namespace edgewise {
namespace {

bool Found(std::string_view source, std::string_view text) {
  auto pattern = Pattern::Parse(source);
  REQUIRE_MESSAGE(pattern, source);
  return pattern->FoundIn(text);
}

std::string Why(std::string_view source) {
  auto pattern = Pattern::Parse(source);
  REQUIRE_FALSE(pattern);
  CHECK(pattern.error().code == Code::kInvalidArgument);
  return pattern.error().message;
}

TEST_CASE("a pattern is searched anywhere in the name, in either case") {
  CHECK(Found("attn_v", "blk.3.attn_v.weight"));
  CHECK(Found("ATTN_V", "blk.3.attn_v.weight"));
  CHECK_FALSE(Found("attn_v", "blk.3.attn_q.weight"));
}

TEST_CASE("operators") {
  struct Case {
    const char* pattern;
    const char* text;
    bool found;
  };
  const Case cases[] = {
      {"blk\\.1\\.", "blk.1.attn_v.weight", true},
      {"blk\\.1\\.", "blk.11.attn_v.weight", false},
      {"blk.1.", "blk.11.attn_v.weight", true},  // an unescaped dot is any byte
      {"blk\\.(1|2)\\.ffn", "blk.2.ffn_up.weight", true},
      {"blk\\.(1|2)\\.ffn", "blk.3.ffn_up.weight", false},
      {"\\.(\\d*[13579])\\.attn_k", "blk.21.attn_k.weight", true},
      {"\\.(\\d*[13579])\\.attn_k", "blk.20.attn_k.weight", false},
      {"^output\\.weight$", "output.weight", true},
      {"^output\\.weight$", "blk.0.attn_output.weight", false},
      {"^output$", "output.weight", false},
      {"ab+c", "xabbbcx", true},
      {"ab+c", "ac", false},
      {"ab?c", "ac", true},
      {"ab?c", "abbc", false},
      {"a(bc)*d", "abcbcd", true},
      {"a(bc)*d", "abcbd", false},
      {"(a|b|)c", "c", true},
      {"(?:a|b)c", "bc", true},
      {"[^0-9]1", "a1", true},
      {"[^0-9]1", "21", false},
      {"[]x]", "]", true},
      {"[a\\]]b", "]b", true},
      {"[a-c-]d", "-d", true},
      {"\\w+\\.weight", "ffn_up.weight", true},
      {"(a*)*b", "aaab", true},
      {"(a*)*b", "aaac", false},
      {"a|^b", "cb", false},
      {"x$|b", "ab", true},
  };
  for (const Case& c : cases) {
    CAPTURE(c.pattern);
    CAPTURE(c.text);
    CHECK(Found(c.pattern, c.text) == c.found);
  }
}

TEST_CASE("time is linear where backtracking would not end") {
  std::string pattern, text;
  for (int i = 0; i < 60; ++i) {
    pattern += "a?";
    text += "a";
  }
  CHECK(Found(pattern + text, text));
  CHECK_FALSE(Found("(a+)+b", std::string(5000, 'a')));
}

TEST_CASE("anything else is refused with its place") {
  CHECK(Why("a{2}").find("character 2") != std::string::npos);
  CHECK(Why("(ab").find("'(' without ')'") != std::string::npos);
  CHECK(Why("ab)").find("')' without '('") != std::string::npos);
  CHECK(Why("*a").find("nothing before it") != std::string::npos);
  CHECK(Why("a**").find("in a row") != std::string::npos);
  CHECK(Why("[ab").find("'[' without ']'") != std::string::npos);
  CHECK(Why("[z-a]").find("range") != std::string::npos);
  CHECK(Why("a\\").find("at the end") != std::string::npos);
  CHECK(Why("\\bx").find("escapes") != std::string::npos);
  CHECK(Why("(?=x)").find("(?:") != std::string::npos);
  CHECK(Why(std::string(1001, 'a')).find("1001") != std::string::npos);
  CHECK(Why(std::string(200, '(')).find("nested") != std::string::npos);
  CHECK(Why("").find("empty") != std::string::npos);
}

}  // namespace
}  // namespace edgewise
