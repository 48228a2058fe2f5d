#include "pipeline/fit_text.h"

#include <doctest/doctest.h>

namespace edgewise {
namespace {

TEST_CASE("documents go to calibration and evaluation in turn") {
  const auto parts = SplitText("a\n<|endoftext|>\n b<|endoftext|>c<|endoftext|><|endoftext|>d");
  REQUIRE(parts);
  CHECK(parts->calibration == "a\n<|endoftext|>\nc\n<|endoftext|>\n");
  CHECK(parts->evaluation == "b\n<|endoftext|>\nd\n<|endoftext|>\n");
  CHECK(parts->calibration_documents == 2);
  CHECK(parts->evaluation_documents == 2);
}

TEST_CASE("a document that stands there twice is in one part only") {
  const auto parts = SplitText("a<|endoftext|>b<|endoftext|>x<|endoftext|>a<|endoftext|> b\n");
  REQUIRE(parts);
  CHECK(parts->calibration == "a\n<|endoftext|>\nx\n<|endoftext|>\na\n<|endoftext|>\n");
  CHECK(parts->evaluation == "b\n<|endoftext|>\nb\n<|endoftext|>\n");
}

TEST_CASE("a text without documents is cut after a line") {
  const auto parts = SplitText("one\ntwo\nthree\nfour\n");
  REQUIRE(parts);
  CHECK(parts->calibration + parts->evaluation == "one\ntwo\nthree\nfour\n");
  CHECK(parts->calibration.ends_with("\n"));
  CHECK(parts->evaluation_documents == 0);
}

TEST_CASE("what cannot be split") {
  for (const char* text : {"", "\n\n", "one line only", "a<|endoftext|>a<|endoftext|>", "last\n"}) {
    CAPTURE(std::string(text));
    const auto parts = SplitText(text);
    REQUIRE_FALSE(parts);
    CHECK(parts.error().code == Code::kInvalidArgument);
  }
}

}  // namespace
}  // namespace edgewise
