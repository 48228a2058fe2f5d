#include "formats/metadata.h"

#include <doctest/doctest.h>

#include <limits>

using namespace edgewise;

TEST_CASE("metadata keeps order, replaces and erases") {
  Metadata metadata;
  metadata.Set("a", uint32_t{1});
  metadata.Set("b", std::string("two"));
  metadata.Set("c", 3.5f);
  metadata.Set("b", true);
  REQUIRE(metadata.all().size() == 3);
  CHECK(metadata.all()[1].first == "b");
  CHECK(*metadata.GetBool("b"));

  metadata.Erase("a");
  metadata.Erase("absent");
  REQUIRE(metadata.all().size() == 2);
  CHECK(metadata.Find("a") == nullptr);
  CHECK(*metadata.GetDouble("c") == 3.5);
  metadata.Set("d", uint8_t{4});
  CHECK(*metadata.GetUint("d") == 4);
  CHECK(metadata.all()[2].first == "d");
}

TEST_CASE("typed reads accept what holds the value and name the key otherwise") {
  Metadata metadata;
  metadata.Set("i8", int8_t{7});
  metadata.Set("negative", int64_t{-1});
  metadata.Set("u64", std::numeric_limits<uint64_t>::max());
  metadata.Set("f32", 0.5f);
  metadata.Set("text", std::string("x"));
  metadata.Set("flag", false);

  CHECK(*metadata.GetUint("i8") == 7);
  CHECK(*metadata.GetUint("u64") == std::numeric_limits<uint64_t>::max());
  CHECK(*metadata.GetDouble("i8") == 7.0);
  CHECK(*metadata.GetDouble("f32") == 0.5);
  CHECK(*metadata.GetString("text") == "x");
  CHECK_FALSE(*metadata.GetBool("flag"));

  for (const char* key : {"negative", "f32", "text", "flag"}) {
    const auto wrong = metadata.GetUint(key);
    REQUIRE_FALSE(wrong);
    CHECK(wrong.error().code == Code::kBadData);
    CHECK(wrong.error().message.find(key) != std::string::npos);
  }
  CHECK(metadata.GetString("i8").error().code == Code::kBadData);
  CHECK(metadata.GetBool("i8").error().code == Code::kBadData);
  CHECK(metadata.GetDouble("flag").error().code == Code::kBadData);
  CHECK(metadata.GetUint("absent").error().code == Code::kNotFound);

  CHECK(*metadata.GetUint("absent", 9) == 9);
  CHECK(*metadata.GetUint("i8", 9) == 7);
  CHECK(*metadata.GetString("absent", "none") == "none");
  CHECK(*metadata.GetDouble("absent", 2.5) == 2.5);
  CHECK(*metadata.GetBool("absent", true));
  CHECK(metadata.GetUint("text", 9).error().code == Code::kBadData);
}

TEST_CASE("arrays are found by element type") {
  Metadata metadata;
  metadata.Set("words", MetaArray(std::vector<std::string>{"a", "b"}));
  metadata.Set("scores", MetaArray(std::vector<float>{1, 2}));
  metadata.Set("types", MetaArray(std::vector<int32_t>{1, -6}));
  MetaArray flags(std::vector<uint8_t>{1, 0});
  flags.element = MetaType::kBool;
  metadata.Set("flags", flags);
  MetaArray large;
  large.element = MetaType::kU64;
  large.values = std::vector<uint64_t>{std::numeric_limits<uint64_t>::max()};
  metadata.Set("large", large);

  REQUIRE(metadata.FindStrings("words") != nullptr);
  CHECK(metadata.FindStrings("words")->at(1) == "b");
  CHECK(metadata.FindStrings("scores") == nullptr);
  CHECK(metadata.FindStrings("absent") == nullptr);
  REQUIRE(metadata.FindFloats("scores") != nullptr);
  CHECK(metadata.FindFloats("scores")->size() == 2);
  CHECK(*metadata.GetInts("types") == std::vector<int64_t>{1, -6});
  CHECK(*metadata.GetInts("flags") == std::vector<int64_t>{1, 0});
  CHECK(metadata.GetInts("large").error().code == Code::kBadData);
  CHECK(metadata.GetInts("scores").error().code == Code::kBadData);
  CHECK(metadata.GetInts("absent").error().code == Code::kNotFound);
}

TEST_CASE("values are described for people") {
  CHECK(Describe(uint8_t{200}) == "200");
  CHECK(Describe(int8_t{-5}) == "-5");
  CHECK(Describe(true) == "true");
  CHECK(Describe(0.1f) == "0.1");
  CHECK(Describe(1e-5) == "1e-05");
  CHECK(Describe(std::string("a\nb")) == "\"a\\x0Ab\"");
  const std::string cut = Describe(std::string(1000, 'x'));
  CHECK(cut.size() < 120);
  CHECK(cut.find("1000 bytes") != std::string::npos);
  CHECK(Describe(MetaArray(std::vector<int32_t>{1, 2, 3})) == "[1, 2, 3]");
  CHECK(Describe(MetaArray(std::vector<int32_t>{1, 2, 3}), 2) == "[1, 2, ...] (3 values)");
  CHECK(Describe(MetaArray(std::vector<int32_t>{1, 2}), 0) == "[...] (2 values)");
  CHECK(Describe(MetaArray(std::vector<int32_t>{})) == "[]");
  MetaArray flags(std::vector<uint8_t>{1, 0});
  flags.element = MetaType::kBool;
  CHECK(Describe(flags) == "[true, false]");

  CHECK(std::string(MetaTypeName(TypeOf(MetaValue(uint64_t{1})))) == "u64");
  CHECK(std::string(MetaTypeName(TypeOf(MetaValue(std::string())))) == "string");
  CHECK(std::string(MetaTypeName(static_cast<MetaType>(99))) == "unknown");
}
