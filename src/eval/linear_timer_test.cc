#include "eval/linear_timer.h"

#include <doctest/doctest.h>

namespace edgewise {
namespace {

TEST_CASE("a group's weights take the bytes that the kernels read") {
  CHECK(GroupBytes({{DType::kQ4_0, 32, 64}}) == 32 * 36);
  // Packed rows come in sixteens.
  CHECK(GroupBytes({{DType::kQ4_0, 17, 64}}) == 32 * 36);
  CHECK(GroupBytes({{DType::kF32, 16, 32}, {DType::kQ8_0, 16, 32}}) == 16 * 128 + 576);
}

TEST_CASE("every format with a kernel can be timed, alone and in groups, in and out of cache") {
  ThreadPool pool(2);
  auto timer = LinearTimer::Create(4u << 20, &pool);
  REQUIRE(timer);
  for (const DType type :
       {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_K, DType::kQ2_K,
        DType::kIQ4_XS, DType::kS24_Q4, DType::kS24_Q8, DType::kBM_Q4, DType::kS24_F16}) {
    CAPTURE(std::string(Info(type).name));
    for (const uint64_t model_bytes : {uint64_t{1}, uint64_t{4} << 20, uint64_t{1} << 40}) {
      const auto seconds = timer->Seconds({{type, 48, 256}, {DType::kQ8_0, 16, 256}}, model_bytes);
      REQUIRE(seconds);
      CHECK(*seconds > 0);
    }
  }
}

TEST_CASE("a group larger than the model that was announced is timed all the same") {
  ThreadPool pool(1);
  auto timer = LinearTimer::Create(1024, &pool);
  REQUIRE(timer);
  CHECK(timer->Seconds({{DType::kF32, 64, 256}}, 1024));
}

TEST_CASE("the same question has the same answer") {
  ThreadPool pool(1);
  auto timer = LinearTimer::Create(1u << 20, &pool);
  REQUIRE(timer);
  const LinearGroup group = {{DType::kQ4_0, 64, 256}};
  const auto first = timer->Seconds(group, 1u << 20), second = timer->Seconds(group, 1u << 20);
  REQUIRE((first && second));
  CHECK(*first == *second);
}

}  // namespace
}  // namespace edgewise
