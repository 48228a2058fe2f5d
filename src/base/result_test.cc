#include "base/result.h"

#include <doctest/doctest.h>

#include <memory>

namespace edgewise {
namespace {

Result<int> Half(int x) {
  if (x % 2 != 0) return Error{Code::kInvalidArgument, "odd"};
  return x / 2;
}

Result<int> Quarter(int x) {
  EW_TRY(const int half, Half(x));
  EW_TRY(const int quarter, Half(half).In("second step"));
  return quarter;
}

Status Check(int x) {
  EW_TRY(Half(x));
  return Ok{};
}

TEST_CASE("values and errors pass through EW_TRY") {
  CHECK(*Quarter(8) == 2);
  CHECK(Quarter(7).error().message == "odd");
  CHECK(Quarter(6).error().message == "second step: odd");
  CHECK(Quarter(6).error().code == Code::kInvalidArgument);
  CHECK(Check(4));
  CHECK(!Check(3));
  CHECK(Half(3).value_or(-1) == -1);
}

TEST_CASE("move-only values move out") {
  Result<std::unique_ptr<int>> result = std::make_unique<int>(5);
  std::unique_ptr<int> taken = *std::move(result);
  CHECK(*taken == 5);
}

}  // namespace
}  // namespace edgewise
