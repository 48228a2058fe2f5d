#include "compress/prune/mask.h"

#include <doctest/doctest.h>

#include <vector>

#include "base/rng.h"
#include "compress/prune/problem.h"

namespace edgewise {
namespace {

Mask RandomMask(size_t rows, size_t columns, uint64_t seed) {
  Rng rng(seed);
  Mask mask(rows, columns, false);
  for (size_t i = 0; i < rows * columns; ++i) {
    if (rng.Below(3) != 0) mask.Keep(i / columns, i % columns);
  }
  return mask;
}

TEST_CASE("sparsity is read from text") {
  const auto half = Sparsity::Parse("50%");
  REQUIRE(half.has_value());
  CHECK(half->ratio == 0.5);
  CHECK_FALSE(half->structured());
  CHECK(half->ToString() == "50%");
  CHECK(Sparsity::Parse(" 0.25 ")->ratio == 0.25);
  CHECK(Sparsity::Parse("0")->ratio == 0);
  const auto four = Sparsity::Parse("3:8");
  REQUIRE(four.has_value());
  CHECK(four->keep == 3);
  CHECK(four->group == 8);
  CHECK(four->ratio == 0.625);
  CHECK(four->ToString() == "3:8");
  for (const char* text : {"", "half", "1", "100%", "-0.1", "1.5", "nan", "0:4", "4:4", "5:4",
                           "2:65", "2:", ":4", "2:4:8", "50%%"}) {
    CAPTURE(text);
    CHECK(Fails(Sparsity::Parse(text), Code::kInvalidArgument, "0.5 or 50%"));
  }
  CHECK(Fails(Sparsity::Unstructured(1), Code::kInvalidArgument, "\"1\" is no sparsity"));
  CHECK(Fails(Sparsity::NOfM(4, 2), Code::kInvalidArgument, "\"4:2\" is no sparsity"));
}

TEST_CASE("the number pruned is the floor of the share, decimals taken as they read") {
  for (const size_t count : {1u, 7u, 100u, 1000u, 123456u}) {
    for (size_t percent = 0; percent < 100; ++percent) {
      CHECK(Sparsity::Unstructured(static_cast<double>(percent) / 100)->PrunedOf(count) ==
            count * percent / 100);
    }
  }
}

TEST_CASE("a group has to divide the row") {
  const auto sparsity = Sparsity::Parse("2:4");
  CHECK(sparsity->CheckColumns(96).has_value());
  CHECK(Fails(sparsity->CheckColumns(98), Code::kInvalidArgument,
              "rows of 98 weights do not split into the groups of 4"));
  CHECK(Sparsity::Parse("0.3")->CheckColumns(97).has_value());
}

TEST_CASE("a mask counts, applies, combines and goes through bytes") {
  for (const size_t columns : {1u, 8u, 63u, 64u, 65u, 130u}) {
    CAPTURE(columns);
    const size_t rows = 5;
    CHECK(Mask(rows, columns, true).CountKept() == rows * columns);
    CHECK(Mask(rows, columns, false).CountKept() == 0);
    const Mask a = RandomMask(rows, columns, columns), b = RandomMask(rows, columns, columns + 1);
    Mask both = a;
    both &= b;
    std::vector<float> values(rows * columns, 2.0f);
    a.Apply(values);
    size_t kept = 0, different = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      const bool in_a = a.kept(i / columns, i % columns), in_b = b.kept(i / columns, i % columns);
      kept += in_a ? 1 : 0;
      different += in_a != in_b ? 1 : 0;
      CHECK(values[i] == (in_a ? 2.0f : 0.0f));
      CHECK(both.kept(i / columns, i % columns) == (in_a && in_b));
    }
    CHECK(a.CountKept() == kept);
    CHECK(a.CountDifferent(b) == different);
    CHECK(a.Density() == static_cast<double>(kept) / static_cast<double>(values.size()));
    auto bytes = a.ToBytes();
    CHECK(bytes.size() == rows * ((columns + 7) / 8));
    const auto read = Mask::FromBytes(rows, columns, bytes);
    REQUIRE(read.has_value());
    CHECK(*read == a);
    if (columns % 8 != 0) {
      auto spare = bytes;
      spare.back() |= std::byte{0x80};
      CHECK(Fails(Mask::FromBytes(rows, columns, spare), Code::kBadData, "row 4 of the mask"));
    }
    bytes.pop_back();
    CHECK(Fails(Mask::FromBytes(rows, columns, bytes), Code::kBadData, "bytes, not"));
  }
}

TEST_CASE("a mask knows which sparsity it holds") {
  Mask mask(2, 8, false);
  for (const size_t c : {0u, 3u, 4u, 5u}) {
    mask.Keep(0, c);
    mask.Keep(1, c);
  }
  CHECK(mask.Holds(*Sparsity::Parse("2:4")));
  CHECK(mask.Holds(*Sparsity::Parse("4:8")));
  CHECK(mask.Holds(*Sparsity::Parse("50%")));
  CHECK_FALSE(mask.Holds(*Sparsity::Parse("1:4")));
  CHECK_FALSE(mask.Holds(*Sparsity::Parse("2:3")));
  CHECK_FALSE(mask.Holds(*Sparsity::Parse("63%")));
  mask.Prune(1, 0);
  mask.Keep(1, 7);
  CHECK_FALSE(mask.Holds(*Sparsity::Parse("2:4")));
  CHECK(mask.Holds(*Sparsity::Parse("4:8")));
  CHECK(Fails(mask.CheckShape(8, 2), Code::kInvalidArgument, "the mask is for 2 x 8 weights"));
}

}  // namespace
}  // namespace edgewise
