#include "compress/prune/zeros.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

namespace edgewise {
namespace {

// Rows of 128, in each of which `keep` of each `group` weights are not 0.
Tensor Matrix(size_t rows, size_t keep, size_t group) {
  const uint64_t dims[] = {rows, 128};
  const auto shape = Shape::Make(dims);
  REQUIRE(shape);
  auto tensor = Tensor::Allocate(DType::kF32, *shape);
  REQUIRE(tensor);
  std::vector<float> values(rows * 128);
  for (size_t i = 0; i < values.size(); ++i) values[i] = i % group < keep ? 0.5f : 0.0f;
  std::memcpy(tensor->mutable_data(), values.data(), values.size() * sizeof(float));
  return *std::move(tensor);
}

using Formats = std::vector<DType>;
const Formats kPairs = {DType::kS24_Q4, DType::kS24_Q8,  DType::kBM_Q4,
                        DType::kBM_Q8,  DType::kS24_F16, DType::kS24_BF16};

TEST_CASE("the zeros of all matrices decide which sparse formats hold a model") {
  ZeroScan pairs;
  CHECK(pairs.Add(Matrix(8, 2, 4).view()));
  CHECK(pairs.share() == 0.5);
  CHECK(pairs.Formats() == kPairs);
  CHECK(pairs.Add(Matrix(8, 4, 8).view()));  // no longer 2:4
  CHECK(pairs.Formats() == Formats{DType::kBM_Q4, DType::kBM_Q8});
  CHECK(pairs.Add(Matrix(8, 64, 128).view()));  // half of each row, not of each 64
  CHECK(pairs.share() == 0.5);
  CHECK(pairs.Formats().empty());

  ZeroScan sparser;
  CHECK(sparser.Add(Matrix(4, 1, 4).view()));
  CHECK(sparser.share() == 0.75);
  CHECK(sparser.Formats() == kPairs);
  CHECK(sparser.Add(Matrix(40, 3, 4).view()));
  CHECK(sparser.share() < 0.5);
  CHECK(sparser.Formats().empty());
}

TEST_CASE("a row without zeros makes no model dense") {
  Tensor matrix = Matrix(8, 2, 4);
  auto* values = reinterpret_cast<float*>(matrix.mutable_data());
  std::fill(values, values + 128, 0.5f);
  ZeroScan scan;
  CHECK(scan.Add(matrix.view()));
  CHECK(scan.share() == 0.4375);
  CHECK(scan.Formats().empty());
}

TEST_CASE("a dense matrix ends the search") {
  ZeroScan scan;
  CHECK(scan.Add(Matrix(4, 2, 4).view()));
  CHECK_FALSE(scan.Add(Matrix(4, 31, 32).view()));
  CHECK(scan.dense());
  CHECK(scan.share() == 0);
  CHECK(scan.Formats().empty());
  CHECK(ZeroScan().share() == 0);
}

}  // namespace
}  // namespace edgewise
