#include "base/json.h"

#include <doctest/doctest.h>

#include <limits>

namespace edgewise {
namespace {

std::string ErrorOf(std::string_view text, const JsonLimits& limits = {}) {
  auto result = ParseJson(text, limits);
  return result ? std::string() : result.error().message;
}

TEST_CASE("values read with their types") {
  auto json =
      ParseJson(R"({"a": [1, -2, 3.5, true, null, "x\u00e9\n"], "big": 18446744073709551615})");
  REQUIRE(json);
  const JsonArray& a = *json->Find("a")->AsArray();
  CHECK(a[0].AsInt() == 1);
  CHECK(a[1].AsInt() == -2);
  CHECK(!a[1].AsUint());
  CHECK(a[2].AsDouble() == 3.5);
  CHECK(!a[2].AsInt());
  CHECK(a[3].AsBool() == true);
  CHECK(a[4].is_null());
  CHECK(*a[5].AsString() == "x\xC3\xA9\n");
  CHECK(json->Find("big")->AsUint() == std::numeric_limits<uint64_t>::max());
  CHECK(!json->Find("big")->AsInt());
  CHECK(json->Find("absent") == nullptr);
}

TEST_CASE("bad texts are refused with a place and a reason") {
  CHECK(ErrorOf("{\"a\": }").find("invalid JSON at byte") == 0);
  CHECK(!ErrorOf("").empty());
  CHECK(!ErrorOf("{} x").empty());
  CHECK(!ErrorOf("\"\xFF\"").empty());
  CHECK(!ErrorOf("1e999").empty());
  CHECK(ErrorOf(R"({"a": 1, "a": 2})") == "the key \"a\" appears twice in one object");
  CHECK(ErrorOf(std::string(100000, '[')).find("deeper than 64") != std::string::npos);
  CHECK(ErrorOf("[[1]]", {.max_depth = 2}).empty());
  CHECK(!ErrorOf("[[[1]]]", {.max_depth = 2}).empty());
  CHECK(!ErrorOf("[1, 2, 3]", {.max_bytes = 5}).empty());
}

TEST_CASE("dumped text reads back equal") {
  Json json;
  json.Set("text", "quote \" slash \\ control \x01 line\n")
      .Set("number", 0.1)
      .Set("whole", 2.0)
      .Set("list", Json());
  json.Set("n", int64_t{-5}).Set("list", JsonArray{1, false, "two"});
  CHECK(
      json.Dump() ==
      R"({"text":"quote \" slash \\ control \u0001 line\n","number":0.1,"whole":2.0,"list":[1,false,"two"],"n":-5})");
  auto again = ParseJson(json.Dump(2));
  REQUIRE(again);
  CHECK(again->Dump() == json.Dump());
}

TEST_CASE("dumping never writes invalid JSON") {
  Json json;
  json.Set("bad utf-8", "a\xFFz").Set("nan", std::numeric_limits<double>::quiet_NaN());
  json.Set("inf", std::numeric_limits<double>::infinity());
  CHECK(json.Dump() == "{\"bad utf-8\":\"a\xEF\xBF\xBDz\",\"nan\":null,\"inf\":null}");
  CHECK(ParseJson(json.Dump()));
}

}  // namespace
}  // namespace edgewise
