#include "base/sha256.h"

#include <doctest/doctest.h>

#include <string>
#include <string_view>

namespace edgewise {
namespace {

std::string HexOf(std::string_view text) {
  return Sha256Hex(std::as_bytes(std::span(text.data(), text.size())));
}

TEST_CASE("the examples of FIPS 180-4") {
  CHECK(HexOf("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(HexOf("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(HexOf("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(HexOf(std::string(1000000, 'a')) ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("any split of the input gives the same digest") {
  const std::string text(300, 'x');
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    Sha256 hash;
    hash.Update(std::as_bytes(std::span(text.data(), cut)));
    hash.Update(std::as_bytes(std::span(text.data() + cut, text.size() - cut)));
    REQUIRE(ToHex(hash.Finish()) == HexOf(text));
  }
}

}  // namespace
}  // namespace edgewise
