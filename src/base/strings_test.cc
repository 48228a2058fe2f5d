#include "base/strings.h"

#include <doctest/doctest.h>

#include "base/bytes.h"

namespace edgewise {
namespace {

TEST_CASE("splitting keeps empty pieces") {
  CHECK(Split("a--b----c", "--") == std::vector<std::string_view>{"a", "b", "", "c"});
  CHECK(Split("", ",") == std::vector<std::string_view>{""});
  CHECK(Trim(" \t a b \r\n") == "a b");
  CHECK(Trim("  ").empty());
  CHECK(Join({"a", "b", "c"}, ", ") == "a, b, c");
}

TEST_CASE("sizes and times read well") {
  CHECK(FormatBytes(0) == "0 B");
  CHECK(FormatBytes(1023) == "1023 B");
  CHECK(FormatBytes(1536) == "1.50 KiB");
  CHECK(FormatBytes(600ull << 20) == "600 MiB");
  CHECK(FormatBytes(1023ull << 20) == "1.00 GiB");
  CHECK(FormatSeconds(0.0123) == "12 ms");
  CHECK(FormatSeconds(12.34) == "12.3 s");
  CHECK(FormatSeconds(245) == "4 min 05 s");
  CHECK(FormatSeconds(7325) == "2 h 02 min");
}

TEST_CASE("numbers parse whole or not at all") {
  CHECK(*ParseInt("-12") == -12);
  CHECK(!ParseInt("12x"));
  CHECK(!ParseInt(""));
  CHECK(!ParseInt("99999999999999999999"));
  CHECK(*ParseDouble("1e-3") == doctest::Approx(0.001));
  CHECK(!ParseDouble("1.5.2"));
  CHECK(ParseInt("x").error().message == "\"x\" is not a whole number");
}

TEST_CASE("UTF-8 is checked strictly") {
  CHECK(IsUtf8("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"));
  CHECK(!IsUtf8("\xC0\x80"));          // overlong
  CHECK(!IsUtf8("\xED\xA0\x80"));      // surrogate
  CHECK(!IsUtf8("\xF4\x90\x80\x80"));  // above U+10FFFF
  CHECK(!IsUtf8("\xE2\x82"));          // cut
  CHECK(ReplaceInvalidUtf8("a\xE2\x82z\xFF") == "a\xEF\xBF\xBDz\xEF\xBF\xBD");
}

TEST_CASE("quoting makes outside text harmless and short") {
  CHECK(Quote("a\"b\n\x1B[31m\xFF") == "\"a\\\"b\\x0A\\x1B[31m\\xFF\"");
  CHECK(Quote(std::string(200, 'x'), 3) == "\"xxx\"... (200 bytes)");
}

TEST_CASE("the byte reader stays inside its bytes") {
  const unsigned char raw[] = {1, 0, 0, 0, 'h', 'i', 9};
  ByteReader reader(std::as_bytes(std::span(raw)));
  CHECK(*reader.Read<uint32_t>() == 1);
  CHECK(!reader.CheckCount(4, 1));
  CHECK(!reader.CheckCount(~0ull, 8));
  CHECK(reader.CheckCount(3, 1));
  CHECK(*reader.ReadText(2) == "hi");
  CHECK(reader.Read<uint16_t>().error().message == "truncated at byte 6: 2 bytes wanted, 1 left");
  CHECK(!reader.ReadBytes(~0ull));
  CHECK(*reader.Read<uint8_t>() == 9);
  CHECK(reader.remaining() == 0);
}

}  // namespace
}  // namespace edgewise
