// Test only: training jobs that are run in this process.
#pragma once

#include <doctest/doctest.h>

#include <string>
#include <string_view>

#include "base/progress.h"
#include "pipeline/train_model.h"

namespace edgewise {

struct Quiet final : Progress {
  void Update(std::string_view, uint64_t, uint64_t) override {}
  bool Cancelled() const override { return false; }
};

inline TrainSummary MustTrain(const TrainJob& job) {
  Quiet none;
  const auto summary = TrainModel(job, &none);
  REQUIRE_MESSAGE(summary, (summary ? "" : summary.error().message));
  return *summary;
}

inline std::string ErrorOf(const TrainJob& job) {
  Quiet none;
  const auto summary = TrainModel(job, &none);
  return summary ? "" : summary.error().message;
}

}  // namespace edgewise
