#include "eval/rounding.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace edgewise {
namespace {

constexpr size_t kRun = 16;        // no format has a step for fewer values
constexpr double kMaxSteps = 300;  // between the values of a run; 8 bits have 255

// Euclid's algorithm on numbers known up to `tolerance`.
double CommonDivisor(double a, double b, double tolerance) {
  while (b > tolerance) {
    double rest = a - std::floor(a / b) * b;
    if (b - rest < tolerance) rest = 0;
    a = b;
    b = rest;
  }
  return a;
}

}  // namespace

double CommonStep(std::span<const float> values) {
  EW_CHECK(values.size() == kRun);
  std::array<double, kRun> sorted;
  std::copy(values.begin(), values.end(), sorted.begin());
  std::sort(sorted.begin(), sorted.end());
  const double largest = std::max(std::fabs(sorted.front()), std::fabs(sorted.back()));
  // A decoded value is a product and a sum of floats, exact to some units of the last place.
  const double tolerance = largest * 2e-6;
  double step = 0;
  int differences = 0;
  for (size_t i = 1; i < sorted.size(); ++i) {
    const double difference = sorted[i] - sorted[i - 1];
    if (difference <= tolerance) continue;
    ++differences;
    step = step == 0 ? difference
                     : CommonDivisor(std::max(step, difference), std::min(step, difference),
                                     8 * tolerance);
  }
  const double range = sorted.back() - sorted.front();
  if (differences < 2 || range > kMaxSteps * step) return 0;
  return range / std::round(range / step);
}

void RoundingPositions::Add(std::span<const float> base, std::span<const float> decoded) {
  EW_CHECK(base.size() == decoded.size() && base.size() % kRun == 0);
  for (size_t run = 0; run < base.size(); run += kRun) {
    const double step = CommonStep(decoded.subspan(run, kRun));
    if (step == 0) continue;
    weights_ += kRun;
    for (size_t i = run; i < run + kRun; ++i) {
      const double u =
          std::fabs(static_cast<double>(base[i]) - static_cast<double>(decoded[i])) / (step / 2);
      const double bin = std::floor(u * kPerInterval + 0.5);
      if (bin < kBins) ++bins_[static_cast<size_t>(bin)];
    }
  }
}

void RoundingPositions::Merge(const RoundingPositions& other) {
  for (size_t i = 0; i < kBins; ++i) bins_[i] += other.bins_[i];
  weights_ += other.weights_;
}

RoundingPositions::Peak RoundingPositions::FindPeak() const {
  // A base in half precision blurs a peak into the bins beside it, so those are not compared with.
  constexpr size_t kNear = 2, kFar = 5;
  Peak peak;
  for (size_t i = kPerInterval / 2; i <= kPerInterval + 2; ++i) {
    double before = 0;
    for (size_t j = i - kFar; j <= i - kNear; ++j) before += static_cast<double>(bins_[j]);
    const double expected = before / (kFar - kNear + 1);
    if (expected < 1) continue;
    const auto count = static_cast<double>(bins_[i]);
    const double deviation = std::sqrt(expected * (1 + 1.0 / (kFar - kNear + 1)));
    const double sigmas = (count - expected) / deviation;
    if (sigmas <= peak.sigmas) continue;
    peak = {static_cast<double>(i) / kPerInterval, count / expected, sigmas};
  }
  return peak;
}

double RoundingPositions::beyond_share() const {
  uint64_t within = 0;
  for (size_t i = 0; i <= kPerInterval; ++i) within += bins_[i];
  return weights_ == 0 ? 0 : static_cast<double>(weights_ - within) / static_cast<double>(weights_);
}

}  // namespace edgewise
