// What no format may be given to encode is found, with its place.
#include "quant/encodable.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace edgewise {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST_CASE("every format refuses NaN and infinity where they stand, and holds zeros") {
  for (const DTypeInfo& info : AllDTypes()) {
    if (info.encode == nullptr) continue;
    CAPTURE(info.name);
    std::vector<float> values(512, 0.0f);
    CHECK(FindEncodeProblem(info.id, values.data(), values.size()).fault == EncodeFault::kNone);
    for (const float bad : {std::nanf(""), kInfinity, -kInfinity}) {
      values[301] = bad;
      const EncodeProblem problem = FindEncodeProblem(info.id, values.data(), values.size());
      CHECK(problem.fault == EncodeFault::kNotFinite);
      CHECK(problem.at == 301);
    }
  }
}

TEST_CASE("overflow begins where the rounded value would be infinite") {
  const auto fault = [](DType type, float value) {
    std::vector<float> values(256, 0.0f);
    values[7] = value;
    const EncodeProblem problem = FindEncodeProblem(type, values.data(), values.size());
    CHECK(problem.at == (problem.fault == EncodeFault::kNone ? 0 : 7));
    return problem.fault;
  };
  for (const DType type : {DType::kF16, DType::kQ8_0, DType::kQ3_K, DType::kS24_Q4}) {
    CAPTURE(Info(type).name);
    CHECK(fault(type, -65519.0f) == EncodeFault::kNone);
    CHECK(fault(type, -65520.0f) == EncodeFault::kOverflow);
  }
  CHECK(fault(DType::kBF16, 3.38e38f) == EncodeFault::kNone);
  CHECK(fault(DType::kBF16, 3.40e38f) == EncodeFault::kOverflow);
  CHECK(fault(DType::kF32, 3.40e38f) == EncodeFault::kNone);
}

TEST_CASE("what is not finite is told before what is too large") {
  std::vector<float> values(32, 1e5f);
  values[20] = kInfinity;
  const EncodeProblem problem = FindEncodeProblem(DType::kQ8_0, values.data(), values.size());
  CHECK(problem.fault == EncodeFault::kNotFinite);
  CHECK(problem.at == 20);
  CHECK(FindNotFinite(values.data(), values.size()).at == 20);
  CHECK(FindNotFinite(values.data(), 20).fault == EncodeFault::kNone);
}

TEST_CASE("sparse formats take half of each group and no more") {
  for (const DTypeInfo& info : AllDTypes()) {
    if (!info.sparse()) continue;
    CAPTURE(info.name);
    std::vector<float> values(128, 0.0f);
    const size_t group = info.sparse_group, first = 64;
    for (size_t i = 0; i < group / 2; ++i) values[first + i] = 1.0f;
    CHECK(FindEncodeProblem(info.id, values.data(), values.size()).fault == EncodeFault::kNone);
    values[first + group - 1] = -1.0f;
    const EncodeProblem problem = FindEncodeProblem(info.id, values.data(), values.size());
    CHECK(problem.fault == EncodeFault::kDense);
    CHECK(problem.at == first);
  }
}

}  // namespace
}  // namespace edgewise
