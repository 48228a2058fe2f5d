#include "eval/training_set.h"

#include <doctest/doctest.h>

#include "eval/words.h"

namespace edgewise {
namespace {

TEST_CASE("JSON lines of every accepted shape") {
  const auto set = ReadJsonLines(
      "{\"prompt\":\"a\",\"response\":\"b\"}\n"
      "\n"
      "  {\"completion\":\"d\",\"prompt\":\"c\",\"id\":7}\r\n"
      "{\"instruction\":\"e\",\"input\":\"f\",\"output\":\"g\"}\n"
      "{\"instruction\":\"e\",\"input\":\"\",\"output\":\"g\"}\n"
      "{\"question\":\"h\",\"answer\":\"i\"}\n"
      "{\"text\":\"j\"}\n"
      "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"u\"}"
      ","
      "{\"role\":\"assistant\",\"content\":\"r\"}]}");
  REQUIRE(set);
  REQUIRE(set->size() == 7);
  const auto check = [&](size_t i, const char* prompt, const char* response, uint64_t line) {
    CHECK((*set)[i].prompt == prompt);
    CHECK((*set)[i].response == response);
    CHECK((*set)[i].line == line);
  };
  check(0, "a", "b", 1);
  check(1, "c", "d", 3);
  check(2, "e\nf", "g", 4);
  check(3, "e", "g", 5);
  check(4, "h", "i", 6);
  check(5, "", "j", 7);
  check(6, "s\nu", "r", 8);
}

TEST_CASE("What is no training set is refused, with the line") {
  const auto message = [](std::string_view text) {
    const auto set = ReadJsonLines(text);
    REQUIRE(!set);
    CHECK(set.error().code == Code::kBadData);
    return set.error().message;
  };
  CHECK(message("{\"text\":\"a\"}\nplain text\n").rfind("line 2: ", 0) == 0);
  CHECK(message("\n[1]").find("line 2: each line must be one JSON object, not array") == 0);
  CHECK(message("{\"Prompt\":\"a\"}").find("it has: \"Prompt\"") != std::string::npos);
  CHECK(message("{}").find("it has: none") != std::string::npos);
  CHECK(message("{\"text\":1}").find("must be a string, not") != std::string::npos);
  CHECK(message("{\"prompt\":\"a\",\"response\":null}").find("\"response\"") != std::string::npos);
  CHECK(message("{\"messages\":[]}").find("assistant") != std::string::npos);
  CHECK(message("{\"messages\":[1]}").find("role") != std::string::npos);
  CHECK(message(" \n\n").find("no example") != std::string::npos);
}

TEST_CASE("Plain text between separators, with the lines where examples begin") {
  const auto set =
      ReadSeparatedTexts("one\ntwo\n<|end|>\n\n three<|end|>four\n<|end|> \n", "<|end|>");
  REQUIRE(set);
  REQUIRE(set->size() == 3);
  CHECK((*set)[0].response == "one\ntwo");
  CHECK((*set)[0].line == 1);
  CHECK((*set)[1].response == "three");
  CHECK((*set)[1].line == 5);
  CHECK((*set)[2].response == "four");
  CHECK((*set)[2].line == 5);
  CHECK(!ReadSeparatedTexts("a", ""));
  CHECK(!ReadSeparatedTexts(" \n ", "x"));
}

TEST_CASE("Words are runs of letters and numbers, and every other character") {
  CHECK(Words("It's 3.5 \xC3\x89t\xC3\xA9s!") ==
        std::vector<std::string>{"it", "'", "s", "3", ".", "5", "\xC3\xA9t\xC3\xA9s", "!"});
  CHECK(Words("a\xE2\x80\x8B\x62") == std::vector<std::string>{"a", "\xE2\x80\x8B", "b"});
  CHECK(Words(" \n").empty());
  const std::vector<std::string> words = {"a", "b", "a", "b"};
  const std::vector<uint64_t> pairs = NgramHashes(words, 2);
  REQUIRE(pairs.size() == 3);
  CHECK(pairs[0] == pairs[2]);
  CHECK(pairs[0] != pairs[1]);
  CHECK(NgramHashes(words, 9).size() == 1);
  CHECK(NgramHashes({}, 2).empty());
}

}  // namespace
}  // namespace edgewise
