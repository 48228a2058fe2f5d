#include "train/schedule.h"

#include <doctest/doctest.h>

#include <cmath>
#include <string>

namespace edgewise::train {
namespace {

TEST_CASE("each schedule rises over the warm-up and ends where it should") {
  for (const char* name : {"cosine", "wsd", "constant"}) {
    CAPTURE(name);
    Schedule s{.kind = *ParseSchedule(name), .peak = 0.5, .steps = 100, .warmup = 10};
    CHECK(std::string(ScheduleName(s.kind)) == name);
    CHECK(s.LearningRate(1) == doctest::Approx(0.05));
    CHECK(s.LearningRate(10) == doctest::Approx(0.5));
    CHECK(s.LearningRate(100) == doctest::Approx(s.kind == ScheduleKind::kConstant ? 0.5 : 0.05));
    for (uint64_t step = 11; step <= 100; ++step) {
      CHECK(s.LearningRate(step) <= s.LearningRate(step - 1) + 1e-12);
    }
  }
}

TEST_CASE("cosine is half way down in the middle; wsd stays until its last part") {
  const Schedule cosine{
      .kind = ScheduleKind::kCosine, .peak = 1, .steps = 110, .warmup = 10, .last = 0};
  CHECK(cosine.LearningRate(60) == doctest::Approx(0.5));
  CHECK(cosine.LearningRate(35) == doctest::Approx(0.5 * (1 + std::sqrt(0.5))));
  const Schedule wsd{.kind = ScheduleKind::kWsd, .peak = 1, .steps = 100, .last = 0};
  CHECK(wsd.LearningRate(80) == 1);
  CHECK(wsd.LearningRate(90) == doctest::Approx(0.5));
}

TEST_CASE("a rising rate grows by the same factor in each step") {
  const Schedule s{.kind = ScheduleKind::kRising, .peak = 0.5, .steps = 40, .last = 1e-4};
  CHECK(s.Check().has_value());
  CHECK(s.LearningRate(40) == doctest::Approx(0.5));
  const double factor = s.LearningRate(2) / s.LearningRate(1);
  CHECK(std::pow(factor, 40) == doctest::Approx(1e4));
  for (uint64_t step = 2; step <= 40; ++step) {
    CHECK(s.LearningRate(step) / s.LearningRate(step - 1) == doctest::Approx(factor));
  }
  CHECK(!Schedule{.kind = ScheduleKind::kRising, .steps = 10, .last = 0}.Check().has_value());
  CHECK(!ParseSchedule("rising").has_value());
}

TEST_CASE("refused schedules") {
  CHECK(!ParseSchedule("linear").has_value());
  const Schedule good{.steps = 10};
  CHECK(good.Check().has_value());
  for (Schedule bad :
       {Schedule{.steps = 0}, Schedule{.peak = 0, .steps = 1},
        Schedule{.peak = std::nan(""), .steps = 1}, Schedule{.steps = 1, .warmup = 2},
        Schedule{.steps = 1, .last = 2}, Schedule{.steps = 1, .decay_share = -1}}) {
    CHECK(!bad.Check().has_value());
  }
}

}  // namespace
}  // namespace edgewise::train
