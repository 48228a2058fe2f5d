#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numbers>
#include <string>
#include <vector>

#include "base/strings.h"

namespace edgewise::train {
namespace {

constexpr const char* kNames[] = {"cosine", "wsd", "constant"};  // to choose from

}  // namespace

Result<ScheduleKind> ParseSchedule(std::string_view name) {
  for (size_t i = 0; i < std::size(kNames); ++i) {
    if (name == kNames[i]) return static_cast<ScheduleKind>(i);
  }
  return MakeError(Code::kInvalidArgument, "%s: no such schedule; known are cosine, wsd, constant",
                   Quote(name).c_str());
}

const char* ScheduleName(ScheduleKind kind) {
  return kind == ScheduleKind::kRising ? "rising" : kNames[static_cast<size_t>(kind)];
}

double Schedule::LearningRate(uint64_t step) const {
  const auto at = static_cast<double>(step), all = static_cast<double>(steps);
  const auto rising = static_cast<double>(warmup);
  if (step <= warmup) return peak * at / rising;
  // From 0, after the warm-up, to 1 at the end of what falls.
  const double begin =
      kind == ScheduleKind::kWsd ? std::max(rising, all * (1 - decay_share)) : rising;
  const double progress = all > begin ? std::clamp((at - begin) / (all - begin), 0.0, 1.0) : 0;
  switch (kind) {
    case ScheduleKind::kRising:
      return peak * std::pow(last, 1 - progress);
    case ScheduleKind::kConstant:
      return peak;
    case ScheduleKind::kWsd:
      return peak * (1 - (1 - last) * progress);
    case ScheduleKind::kCosine:
      break;
  }
  return peak * (last + (1 - last) * 0.5 * (1 + std::cos(std::numbers::pi * progress)));
}

Status Schedule::Check() const {
  if (steps == 0) return MakeError(Code::kInvalidArgument, "the number of steps must be above 0");
  if (!(peak > 0 && peak <= 1)) {
    return MakeError(Code::kInvalidArgument,
                     "the learning rate must be above 0 and at most 1, not %g", peak);
  }
  if (warmup > steps) {
    return MakeError(Code::kInvalidArgument, "a warm-up of %llu steps does not fit %llu steps",
                     static_cast<unsigned long long>(warmup),
                     static_cast<unsigned long long>(steps));
  }
  if (kind == ScheduleKind::kRising && !(last > 0)) {
    return MakeError(Code::kInvalidArgument, "a learning rate cannot rise from 0 by a factor");
  }
  if (!(last >= 0 && last <= 1) || !(decay_share >= 0 && decay_share <= 1)) {
    return MakeError(Code::kInvalidArgument,
                     "the last learning rate and the share of steps in which it falls must be from "
                     "0 to 1 of the whole");
  }
  return Ok{};
}

}  // namespace edgewise::train
