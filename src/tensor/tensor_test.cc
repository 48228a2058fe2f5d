#include "tensor/tensor.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/rng.h"
#include "quant/packed.h"

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

TEST_CASE("only matrices in block formats can be packed, and their rows are padded to 16") {
  CHECK(FormatName(DType::kQ4_0, TensorLayout::kRows) == "q4_0");
  CHECK(FormatName(DType::kQ4_0, TensorLayout::kPacked) == "q4_0 packed");
  const auto packed = TensorLayout::kPacked;
  CHECK(*TensorBytes(DType::kQ8_0, {16, 64}, packed) == 16 * 2 * 34);
  CHECK(*TensorBytes(DType::kQ8_0, {17, 64}, packed) == 32 * 2 * 34);
  CHECK(*TensorBytes(DType::kQ4_K, {1, 256}, packed) == 16 * 144);
  const auto refused = [&](DType type, const Shape& shape, const char* part) {
    const auto bytes = TensorBytes(type, shape, packed);
    REQUIRE_FALSE(bytes);
    CHECK(bytes.error().code == Code::kBadData);
    CHECK(bytes.error().message.find(part) != std::string::npos);
  };
  refused(DType::kF16, {16, 64}, "cannot be packed");
  refused(DType::kI8, {16, 64}, "cannot be packed");
  refused(DType::kQ8_0, {64}, "cannot be packed");
  refused(DType::kQ8_0, {1, 16, 64}, "cannot be packed");
  refused(DType::kQ8_0, {16, 33}, "blocks");
  refused(DType::kQ8_0, {1, 1ull << 62}, "overflows");
}

TEST_CASE("a packed view gives the blocks and the values of its rows") {
  Rng rng(3);
  for (const DTypeInfo& info : AllDTypes()) {
    if (!IsPacked(info.id)) continue;
    CAPTURE(info.name);
    const Shape shape = {21, 20 * uint64_t{info.block}};
    const size_t columns = shape.columns();
    std::vector<float> values(shape.elements());
    for (float& value : values) value = static_cast<float>(rng.Gaussian());
    std::vector<std::byte> blocks(*TensorBytes(info.id, shape));
    info.encode(values.data(), nullptr, blocks.data(), values.size());
    const TensorView rows = {info.id, shape, blocks.data(), blocks.size()};
    std::vector<std::byte> groups(*TensorBytes(info.id, shape, TensorLayout::kPacked));
    for (size_t r = 0; r < 21; r += 16) {
      PackGroup(info.id, rows.row(r), rows.row_bytes(), std::min<size_t>(16, 21 - r), columns,
                groups.data() + r * rows.row_bytes());
    }
    const TensorView packed = {info.id, shape, groups.data(), groups.size(), TensorLayout::kPacked};
    CHECK(packed.row_bytes() == rows.row_bytes());
    std::vector<float> expected(columns), found(columns);
    for (size_t r = 0; r < 21; ++r) {
      rows.DecodeRow(r, expected.data());
      packed.DecodeRow(r, found.data());
      CHECK(found == expected);
    }
    // From inside one row to inside another.
    const size_t first = 14 * columns + 3 * info.block, count = 3 * columns + 9 * info.block;
    std::vector<std::byte> part(info.RowBytes(count));
    packed.CopyBlocks(first, count, part.data());
    CHECK(std::memcmp(part.data(), blocks.data() + info.RowBytes(first), part.size()) == 0);
  }
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
