#include "base/yaml.h"

#include <doctest/doctest.h>

#include <limits>
#include <string>

namespace edgewise {
namespace {

std::string ErrorOf(std::string_view text) {
  const auto document = ParseYaml(text);
  return document ? std::string() : document.error().message;
}

Json MustParse(std::string_view text) {
  const auto document = ParseYaml(text);
  REQUIRE_MESSAGE(document, (document ? "" : document.error().message));
  return document->root();
}

bool Contains(const std::string& text, std::string_view part) {
  return text.find(part) != text.npos;
}

TEST_CASE("scalars have the types of the core schema") {
  const Json json = MustParse(
      "a: [1, -2, 3.5, 1e3, true, ~, no, '7', \"x\\u00e9\", 0x10, 1.2.3, 9223372036854775807]\n"
      "empty:\n"
      "text: two words  # a comment\n"
      "block: |\n  one\n  two\n");
  const JsonArray& a = *json.Find("a")->AsArray();
  CHECK(a[0].AsInt() == 1);
  CHECK(a[1].AsInt() == -2);
  CHECK(a[2].AsDouble() == 3.5);
  CHECK(a[3].AsDouble() == 1000.0);
  CHECK(a[4].AsBool() == true);
  CHECK(a[5].is_null());
  CHECK(*a[6].AsString() == "no");
  CHECK(*a[7].AsString() == "7");
  CHECK(*a[8].AsString() == "x\xC3\xA9");
  CHECK(*a[9].AsString() == "0x10");
  CHECK(*a[10].AsString() == "1.2.3");
  CHECK(a[11].AsInt() == std::numeric_limits<int64_t>::max());
  CHECK(json.Find("empty")->is_null());
  CHECK(*json.Find("text")->AsString() == "two words");
  CHECK(*json.Find("block")->AsString() == "one\ntwo\n");
}

TEST_CASE("an empty text is null") {
  CHECK(MustParse("").is_null());
  CHECK(MustParse("# nothing\n").is_null());
}

TEST_CASE("marks tell where a value or its key stands") {
  const auto document = ParseYaml("# recipe\na: 1\nlist:\n  - x\n  -   b: {c: 2}\nz: 3\n");
  REQUIRE(document);
  const Json& root = document->root();
  const auto mark = [&](const Json& node) {
    const YamlMark at = document->MarkOf(node);
    return std::pair(at.line, at.column);
  };
  CHECK(mark(root) == std::pair(2, 1));
  CHECK(mark(*root.Find("a")) == std::pair(2, 1));
  const JsonArray& list = *root.Find("list")->AsArray();
  CHECK(mark(list[0]) == std::pair(4, 5));
  CHECK(mark(*list[1].Find("b")) == std::pair(5, 7));
  CHECK(mark(*list[1].Find("b")->Find("c")) == std::pair(5, 11));
  CHECK(mark(*root.Find("z")) == std::pair(6, 1));
}

TEST_CASE("what is not read is refused with its place") {
  CHECK(Contains(ErrorOf("a: &x 1\n"), "line 1, column 4: anchors"));
  CHECK(Contains(ErrorOf("a: &x 1\nb: *x\n"), "anchors"));
  CHECK(Contains(ErrorOf("a: !!str 1\n"), "line 1, column 4: tags"));
  CHECK(Contains(ErrorOf("a: !!map {}\n"), "tags"));
  CHECK(Contains(ErrorOf("a: 1\n  b: 2\n"), "line 2"));
  CHECK(Contains(ErrorOf("a: [1, 2\n"), "line"));
  CHECK(Contains(ErrorOf("a: 1\nb: 2\na: 3\n"), "line 3, column 1: the key \"a\" appears twice"));
  CHECK(Contains(ErrorOf("[1]: 2\n"), "a key must be a text"));
  CHECK(Contains(ErrorOf("{}: 2\n"), "a key must be a text"));
  CHECK(Contains(ErrorOf("a: 1\n---\nb: 2\n"), "more than one document"));
  CHECK(Contains(ErrorOf("a: \xFF\n"), "UTF-8"));
  CHECK(Contains(ErrorOf(std::string(kMaxYamlBytes + 1, ' ')), "at most"));
}

TEST_CASE("depth is limited, however deep the text") {
  const auto nested = [](int depth) {
    return std::string(static_cast<size_t>(depth), '[') +
           std::string(static_cast<size_t>(depth), ']');
  };
  CHECK(ErrorOf(nested(kMaxYamlDepth)).empty());
  CHECK(Contains(ErrorOf(nested(kMaxYamlDepth + 1)), "nested deeper"));
  CHECK(Contains(ErrorOf(nested(500000)), "nested deeper"));
}

}  // namespace
}  // namespace edgewise
