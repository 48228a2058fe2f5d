#include "quant/group_fit.h"

#include <algorithm>
#include <vector>

#include "base/half.h"
#include "quant/scale_search.h"

namespace edgewise::quant {
namespace {

// Where symmetric trials put the largest magnitude, in steps from the highest code.
constexpr float kSymmetricStarts[] = {0.0f, 0.5f, 1.0f, -0.5f, 1.5f, -1.0f, -1.5f};
constexpr int kAscents = 2;

// Eight groups of any size: element j of group l is x[j * kLanes + l]. As Tile, otherwise.
struct Lanes {
  explicit Lanes(size_t group_in) : group(group_in), x(group_in * kLanes), w(group_in * kLanes) {}
  Floats X(size_t j) const { return Load(x.data() + j * kLanes); }
  Floats W(size_t j) const { return Load(w.data() + j * kLanes); }

  size_t group;
  std::vector<float> x, w;
  PowerOfTwo power[kLanes];
};

struct Fit {
  Floats d = Splat(0.0f), zero = Splat(0.0f), error = Splat(3e38f);
};

void FillGroup(const float* values, const float* weights, int lane, Lanes* lanes) {
  const size_t n = lanes->group;
  lanes->power[lane] = Normalizer(values, n);
  const float* usable = UsableWeights(weights, n);
  const float weight_scale = usable ? Normalizer(usable, n).scale : 1.0f;
  for (size_t j = 0; j < n; ++j) {
    lanes->x[j * kLanes + static_cast<size_t>(lane)] = values[j] * lanes->power[lane].scale;
    // The floor keeps sums positive.
    lanes->w[j * kLanes + static_cast<size_t>(lane)] =
        usable ? usable[j] * weight_scale + 1e-6f : 1.0f;
  }
}

// Keeps the better of `best` and the refit of trial scale 1 / inverse with this zero: see TryScale.
void TryFit(const Lanes& lanes, Floats inverse, Floats zero, float highest, Fit* best) {
  const Floats low = -zero, high = Splat(highest) - zero;
  const Scale0 trial = Refit(
      static_cast<int>(lanes.group), inverse,
      [&](int j) { return lanes.X(static_cast<size_t>(j)); },
      [&](int j) { return lanes.W(static_cast<size_t>(j)); },
      [&](Floats v) { return Round(Min(Max(v, low), high)); });
  const Mask better = (trial.error < best->error) & (Splat(0.0f) < trial.d);
  best->d = Select(better, trial.d, best->d);
  best->zero = Select(better, zero, best->zero);
  best->error = Select(better, trial.error, best->error);
}

Floats ClampZero(Floats zero, const GroupGrid& grid, float highest) {
  return Round(Min(Max(zero, Splat(static_cast<float>(grid.lowest_zero))), Splat(highest)));
}

Fit FitSymmetric(const Lanes& lanes, const GroupGrid& grid, float highest) {
  const Floats zero = Splat(static_cast<float>(1u << (grid.bits - 1)));
  Floats largest = {};
  for (size_t j = 0; j < lanes.group; ++j) largest = Max(largest, Abs(lanes.X(j)));
  const Floats inverse = Inverse(largest);
  const float top = static_cast<float>((1u << (grid.bits - 1)) - 1);
  Fit best;
  best.zero = zero;
  for (const float start : kSymmetricStarts) {
    TryFit(lanes, Splat(std::max(top + start, 0.5f)) * inverse, zero, highest, &best);
  }
  for (int i = 0; i < kAscents; ++i) TryFit(lanes, Inverse(best.d), zero, highest, &best);
  return best;
}

// Zero lies on the grid, so the range of the data is widened to it.
Fit FitWithZero(const Lanes& lanes, const GroupGrid& grid, float highest) {
  Floats low = {}, high = {};
  for (size_t j = 0; j < lanes.group; ++j) {
    low = Min(low, lanes.X(j));
    high = Max(high, lanes.X(j));
  }
  const Floats inverse_range = Inverse(high - low);
  Fit best;
  best.zero = Splat(static_cast<float>(grid.lowest_zero));
  for (const Reach& reach : grid.bits == 2 ? kReach2 : kReach4) {
    const Floats inverse = Splat(highest - reach.below - reach.above) * inverse_range;
    const Floats zero = ClampZero(Splat(reach.below) - low * inverse, grid, highest);
    TryFit(lanes, inverse, zero, highest, &best);
  }
  for (int i = 0; i < kAscents; ++i) {
    TryFit(lanes, Inverse(best.d), best.zero, highest, &best);
    for (const float side : {-1.0f, 1.0f}) {
      const Floats zero = ClampZero(best.zero + Splat(side), grid, highest);
      TryFit(lanes, Inverse(best.d), zero, highest, &best);
    }
  }
  return best;
}

// Rounds the scales to halves and writes the codes nearest for these.
void StoreGroups(const Lanes& lanes, const Fit& fit, float highest, int count, uint16_t* scales,
                 uint8_t* zeros, uint8_t* codes) {
  float d[kLanes], zero[kLanes], rounded[kLanes];
  Store(fit.d, d);
  Store(fit.zero, zero);
  for (int lane = 0; lane < kLanes; ++lane) {
    const PowerOfTwo& power = lanes.power[lane];
    const uint16_t half = FiniteHalf(d[lane] * power.inverse);
    rounded[lane] = HalfToFloat(half) * power.scale;
    if (lane >= count) continue;
    scales[lane] = half;
    zeros[lane] = static_cast<uint8_t>(zero[lane]);
  }
  const Floats inverse = Inverse(Load(rounded)), offset = fit.zero;
  for (size_t j = 0; j < lanes.group; ++j) {
    const Floats v = lanes.X(j) * inverse;
    float q[kLanes];
    Store(Round(Min(Max(v, -offset), Splat(highest) - offset)) + offset, q);
    for (int lane = 0; lane < count; ++lane) {
      codes[static_cast<size_t>(lane) * lanes.group + j] = static_cast<uint8_t>(q[lane]);
    }
  }
}

}  // namespace

void FitGroups(std::span<const float> values, size_t columns, size_t group, const float* weights,
               const GroupGrid& grid, uint16_t* scales, uint8_t* zeros, uint8_t* codes) {
  const size_t groups = values.size() / group, per_row = columns / group;
  const float highest = static_cast<float>((1u << grid.bits) - 1);
  Lanes lanes(group);
  for (size_t first = 0; first < groups; first += kLanes) {
    const int count = static_cast<int>(std::min<size_t>(kLanes, groups - first));
    // Lanes beyond the last group compute on what an earlier one left, and are not stored.
    for (int lane = 0; lane < count; ++lane) {
      const size_t index = first + static_cast<size_t>(lane);
      FillGroup(values.data() + index * group,
                weights ? weights + index % per_row * group : nullptr, lane, &lanes);
    }
    const Fit fit =
        grid.symmetric ? FitSymmetric(lanes, grid, highest) : FitWithZero(lanes, grid, highest);
    StoreGroups(lanes, fit, highest, count, scales + first, zeros + first, codes + first * group);
  }
}

}  // namespace edgewise::quant
