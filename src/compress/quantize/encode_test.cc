#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/half.h"
#include "base/rng.h"
#include "base/strings.h"
#include "compress/quantize/quantize.h"

namespace edgewise {
namespace {

Tensor Gaussian(const Shape& shape, uint64_t seed) {
  auto tensor = Tensor::Allocate(DType::kF32, shape);
  REQUIRE(tensor);
  Rng rng(seed);
  auto* values = reinterpret_cast<float*>(tensor->mutable_data());
  for (uint64_t i = 0; i < shape.elements(); ++i)
    values[i] = static_cast<float>(0.05 * rng.Gaussian());
  return *std::move(tensor);
}

struct Encoded {
  std::vector<std::byte> bytes;
  EncodeError error;
  size_t largest_piece = 0;
};

Result<Encoded> Run(const TensorView& view, DType to, int threads,
                    std::span<const float> importance = {}) {
  ThreadPool pool(threads);
  Encoded encoded;
  auto error = EncodeTensor("t.weight", view, to, importance, &pool,
                            [&](std::span<const std::byte> part) -> Status {
                              encoded.bytes.insert(encoded.bytes.end(), part.begin(), part.end());
                              encoded.largest_piece = std::max(encoded.largest_piece, part.size());
                              return Ok{};
                            });
  if (!error) return std::move(error).error();
  encoded.error = *error;
  return encoded;
}

TEST_CASE("the bytes are those of the format's encoder, whatever the threads and the cut") {
  // Rows shorter than a segment, and a row longer than one.
  for (const Shape& shape : {Shape{300, 512}, Shape{2, 70000 / 256 * 256}}) {
    const Tensor tensor = Gaussian(shape, 7);
    const auto* values = reinterpret_cast<const float*>(tensor.view().data);
    for (DType to : {DType::kF16, DType::kQ8_0, DType::kQ4_0}) {
      std::vector<std::byte> expected(Info(to).RowBytes(shape.elements()));
      Info(to).encode(values, nullptr, expected.data(), shape.elements());
      std::vector<float> decoded(shape.elements());
      Info(to).decode(expected.data(), decoded.data(), decoded.size());
      double squared = 0;
      for (size_t i = 0; i < decoded.size(); ++i)
        squared += std::pow(double{values[i]} - decoded[i], 2);
      for (int threads : {1, 2, 3}) {
        auto encoded = Run(tensor.view(), to, threads);
        REQUIRE(encoded);
        CHECK(encoded->bytes == expected);
        CHECK(encoded->error.values == shape.elements());
        CHECK(encoded->error.rmse() ==
              doctest::Approx(std::sqrt(squared / static_cast<double>(decoded.size())))
                  .epsilon(1e-9));
        CHECK(encoded->error.relative_rmse() ==
              doctest::Approx(encoded->error.rmse() / 0.05).epsilon(0.02));
      }
    }
  }
}

TEST_CASE("the error is the same number for any number of threads") {
  const Tensor tensor = Gaussian({513, 768}, 3);
  auto one = Run(tensor.view(), DType::kQ4_1, 1);
  auto three = Run(tensor.view(), DType::kQ4_1, 3);
  REQUIRE(one);
  REQUIRE(three);
  CHECK(one->error.squared_error == three->error.squared_error);
  CHECK(one->error.squared_value == three->error.squared_value);
  CHECK(one->bytes == three->bytes);
}

TEST_CASE("large tensors are handed over in bounded pieces") {
  const Tensor tensor = Gaussian({9000, 1024}, 5);
  auto encoded = Run(tensor.view(), DType::kF32, 2);
  REQUIRE(encoded);
  CHECK(encoded->largest_piece <= (16u << 20));
  CHECK(std::memcmp(encoded->bytes.data(), tensor.view().data, encoded->bytes.size()) == 0);
  CHECK(encoded->error.rmse() == 0);
}

TEST_CASE("importance weights belong to columns, also in the parts of a long row") {
  const Shape shape{3, 70144};
  const Tensor tensor = Gaussian(shape, 11);
  std::vector<float> importance(shape.columns());
  Rng rng(1);
  for (float& weight : importance) weight = static_cast<float>(rng.Uniform());
  auto encoded = Run(tensor.view(), DType::kQ4_K, 2, importance);
  REQUIRE(encoded);
  std::vector<std::byte> row(Info(DType::kQ4_K).RowBytes(shape.columns()));
  for (uint64_t r = 0; r < 3; ++r) {
    Info(DType::kQ4_K)
        .encode(reinterpret_cast<const float*>(tensor.view().row(r)), importance.data(), row.data(),
                shape.columns());
    CHECK(std::memcmp(row.data(), encoded->bytes.data() + r * row.size(), row.size()) == 0);
  }
}

TEST_CASE("NaN, infinity and overflow name the tensor and the place") {
  const Shape shape{200, 512};
  for (float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Tensor tensor = Gaussian(shape, 2);
    reinterpret_cast<float*>(tensor.mutable_data())[150 * 512 + 77] = bad;
    for (DType to : {DType::kF32, DType::kF16, DType::kQ8_0}) {
      auto encoded = Run(tensor.view(), to, 2);
      REQUIRE_FALSE(encoded);
      CHECK(encoded.error().code == Code::kBadData);
      CHECK(encoded.error().message.find("t.weight") != std::string::npos);
      CHECK(encoded.error().message.find("row 150, column 77") != std::string::npos);
    }
  }
  Tensor tensor = Gaussian(shape, 2);
  reinterpret_cast<float*>(tensor.mutable_data())[3 * 512 + 5] = 70000.0f;
  auto encoded = Run(tensor.view(), DType::kF16, 2);
  REQUIRE_FALSE(encoded);
  CHECK(encoded.error().code == Code::kBadData);
  CHECK(encoded.error().message.find("row 3, column 5") != std::string::npos);
  CHECK(encoded.error().message.find("--to bf16") != std::string::npos);
  CHECK_FALSE(Run(tensor.view(), DType::kQ8_0, 2).has_value());
  CHECK(Run(tensor.view(), DType::kBF16, 2).has_value());
  reinterpret_cast<float*>(tensor.mutable_data())[3 * 512 + 5] = 3.4e38f;
  CHECK_FALSE(Run(tensor.view(), DType::kBF16, 2).has_value());
  CHECK(Run(tensor.view(), DType::kF32, 2).has_value());
  reinterpret_cast<float*>(tensor.mutable_data())[3 * 512 + 5] = 65519.0f;  // rounds to 65504
  CHECK(Run(tensor.view(), DType::kF16, 2).has_value());
}

TEST_CASE("a group too full for a sparse format is named by its place in the whole tensor") {
  auto tensor = Tensor::Allocate(DType::kF32, Shape{300, 512});  // more than one segment
  REQUIRE(tensor);
  auto* values = reinterpret_cast<float*>(tensor->mutable_data());
  std::fill_n(values, 300 * 512, 0.0f);
  std::fill_n(values + 290 * 512 + 64, 3, 1.0f);
  for (const int threads : {1, 3}) {
    const auto result = Run(tensor->view(), DType::kS24_Q4, threads);
    REQUIRE(!result);
    CHECK(result.error().code == Code::kInvalidArgument);
    CAPTURE(result.error().message);
    CHECK(result.error().message.find("row 290, columns 64 to 67") != std::string::npos);
  }
}

TEST_CASE("an error of the sink stops the work and comes back") {
  const Tensor tensor = Gaussian({64, 256}, 2);
  ThreadPool pool(2);
  auto result = EncodeTensor(
      "t", tensor.view(), DType::kF16, {}, &pool,
      [](std::span<const std::byte>) -> Status { return MakeError(Code::kIo, "disk full"); });
  REQUIRE_FALSE(result);
  CHECK(result.error().code == Code::kIo);
}

}  // namespace
}  // namespace edgewise
