#include "tensor/tensor.h"

#include <doctest/doctest.h>

#include <cstring>
#include <vector>

using namespace edgewise;

TEST_CASE("a shape knows its rows, columns and text") {
  const Shape matrix = {3, 64};
  CHECK(matrix.rank() == 2);
  CHECK(matrix.elements() == 192);
  CHECK(matrix.rows() == 3);
  CHECK(matrix.columns() == 64);
  CHECK(matrix.ToString() == "[3, 64]");

  const Shape scalar;
  CHECK(scalar.rank() == 0);
  CHECK(scalar.elements() == 1);
  CHECK(scalar.rows() == 1);
  CHECK(scalar.ToString() == "[]");

  const Shape empty = {4, 0};
  CHECK(empty.elements() == 0);
  CHECK(empty.rows() == 0);
  CHECK_FALSE(matrix == scalar);
  CHECK(matrix == Shape{3, 64});
}

TEST_CASE("a shape from a file is checked") {
  const std::vector<uint64_t> good = {2, 3, 4, 5};
  auto shape = Shape::Make(good);
  REQUIRE(shape);
  CHECK(*shape == Shape{2, 3, 4, 5});

  const std::vector<std::vector<uint64_t>> bad = {{1, 1, 1, 1, 1},
                                                  {1ull << 32, 1ull << 32},
                                                  {1ull << 63, 2},
                                                  {1ull << 63, 1ull << 63, 0},
                                                  {0, ~0ull, ~0ull}};
  for (const auto& dims : bad) {
    const auto refused = Shape::Make(dims);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Code::kBadData);
  }
  CHECK(Shape::Make(std::vector<uint64_t>{1ull << 63}));
}

TEST_CASE("the bytes of a tensor follow its blocks") {
  CHECK(*TensorBytes(DType::kF32, {3, 5}) == 60);
  CHECK(*TensorBytes(DType::kF16, {}) == 2);
  CHECK(*TensorBytes(DType::kQ8_0, {2, 64}) == 2 * 2 * 34);
  CHECK(*TensorBytes(DType::kQ4_K, {1, 256}) == 144);
  CHECK(*TensorBytes(DType::kF32, {0, 7}) == 0);

  const auto torn = TensorBytes(DType::kQ8_0, {2, 33});
  REQUIRE_FALSE(torn);
  CHECK(torn.error().code == Code::kBadData);
  const auto huge = TensorBytes(DType::kF32, {1ull << 62});
  REQUIRE_FALSE(huge);
  CHECK(huge.error().code == Code::kBadData);
}

TEST_CASE("an allocated tensor is aligned, zeroed and owned") {
  auto tensor = Tensor::Allocate(DType::kF32, {3, 5});
  REQUIRE(tensor);
  CHECK(tensor->owned());
  CHECK(tensor->view().bytes == 60);
  CHECK(reinterpret_cast<uintptr_t>(tensor->view().data) % 64 == 0);
  for (const std::byte b : tensor->view().as_bytes()) CHECK(b == std::byte{0});

  const float row[5] = {1, 2, 3, 4, 5};
  std::memcpy(tensor->mutable_data() + 20, row, sizeof(row));
  const Tensor moved = *std::move(tensor);
  float decoded[5] = {};
  moved.view().DecodeRow(1, decoded);
  CHECK(std::memcmp(decoded, row, sizeof(row)) == 0);

  const Tensor borrowed = Tensor::Borrow(moved.view());
  CHECK_FALSE(borrowed.owned());
  CHECK(borrowed.view().data == moved.view().data);

  auto empty = Tensor::Allocate(DType::kF32, {0});
  REQUIRE(empty);
  CHECK(empty->view().bytes == 0);
  CHECK_FALSE(Tensor::Allocate(DType::kQ4_0, {31}));
}

TEST_CASE("an index finds tensors by name and keeps their order") {
  TensorIndex index;
  CHECK(index.Add("b", {DType::kF32, {1}, nullptr, 4}));
  CHECK(index.Add("a", {DType::kF16, {2}, nullptr, 4}));
  CHECK_FALSE(index.Add("b", {DType::kF16, {2}, nullptr, 4}));
  REQUIRE(index.all().size() == 2);
  CHECK(index.all()[0].name == "b");
  REQUIRE(index.Find("a") != nullptr);
  CHECK(index.Find("a")->dtype == DType::kF16);
  CHECK(index.Find("b")->dtype == DType::kF32);
  CHECK(index.Find("c") == nullptr);
}
