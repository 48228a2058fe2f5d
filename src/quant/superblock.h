// Least-squares fit of super-blocks: 256 values in groups whose scales are small integers times one
// half (and minima times another). Trials of the integers use the true error of the rounded values.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "base/half.h"
#include "quant/scale_search.h"

namespace edgewise::quant {

inline constexpr int kSuper = 256;

// The groups of one super-block, eight per tile.
template <int kGroup>
struct SuperTiles {
  static constexpr int kTiles = kSuper / kGroup / kLanes;
  Tile<kGroup> tile[kTiles];
  PowerOfTwo power;  // the scale applied to the values
};

template <int kGroup>
void FillSuper(const float* values, const float* weights, SuperTiles<kGroup>& out) {
  out.power = Normalizer(values, kSuper);
  weights = UsableWeights(weights, kSuper);
  const float weight_scale = weights == nullptr ? 1.0f : Normalizer(weights, kSuper).scale;
  for (int g = 0; g < kSuper / kGroup; ++g) {
    const size_t first = static_cast<size_t>(g) * kGroup;
    FillLane(out.tile[g / kLanes], g % kLanes, values + first, out.power.scale,
             weights == nullptr ? nullptr : weights + first, weight_scale);
  }
}

// Adds up the lanes in a fixed order.
inline float Total(Floats v) {
  float x[kLanes];
  Store(v, x);
  return ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7]));
}

// Type 0: x = d * scale * q.
template <int kGroup>
struct SuperFit0 {
  static constexpr int kTiles = SuperTiles<kGroup>::kTiles;
  uint16_t half = 0;
  float d = 0;           // of `half`, in the units of the tiles
  Floats scale[kTiles];  // integers
  float error = 3e38f;
};

// The number of largest magnitude among all lanes.
template <int kTiles>
float SignedLargest(const Floats (&v)[kTiles]) {
  Floats low = v[0], high = v[0];
  for (int t = 1; t < kTiles; ++t) {
    low = Min(low, v[t]);
    high = Max(high, v[t]);
  }
  float lows[kLanes], highs[kLanes];
  Store(low, lows);
  Store(high, highs);
  const float bottom = *std::min_element(lows, lows + kLanes);
  const float top = *std::max_element(highs, highs + kLanes);
  return top >= -bottom ? top : bottom;
}

// Rounds d to a half and the group scales to multiples of it.
template <int kLow, int kHigh, int kTiles, int kGroup>
void SetScale(const SuperTiles<kGroup>& super, const Floats (&scales)[kTiles], float d,
              SuperFit0<kGroup>& fit) {
  fit.half = FiniteHalf(d * super.power.inverse);
  fit.d = HalfToFloat(fit.half) * super.power.scale;
  const Floats inverse = Inverse(Splat(fit.d));
  for (int t = 0; t < kTiles; ++t) {
    fit.scale[t] = IntegerGrid<kLow, kHigh>::Nearest(scales[t] * inverse);
  }
}

// Picks the super-block scale for real group scales, by the parabolas of their errors: trials map
// the largest group scale near either end of the integers, each refitted once.
template <int kLow, int kHigh, int kTiles>
float ChooseSuperScale(const Scale0 (&groups)[kTiles]) {
  Floats scales[kTiles];
  for (int t = 0; t < kTiles; ++t) scales[t] = groups[t].d;
  const float largest = SignedLargest(scales);
  float best = largest / kLow, best_error = 3e38f;
  for (int trial = 0; trial < 12; ++trial) {
    const float end = trial < 6 ? kLow + 0.3f * static_cast<float>(trial)
                                : kHigh - 0.3f * static_cast<float>(trial - 6);
    const Floats d = Splat(largest / end), inverse = Inverse(d);
    Floats top = {}, bottom = {}, error = {};
    for (int t = 0; t < kTiles; ++t) {
      const Floats s = IntegerGrid<kLow, kHigh>::Nearest(scales[t] * inverse);
      const Floats r = scales[t] - d * s;
      top += groups[t].curvature * r * s;
      bottom += groups[t].curvature * s * s;
      error += groups[t].curvature * r * r;
    }
    const float sum = Total(bottom);
    const float step = sum > 0 ? Total(top) / sum : 0;
    const float refit_error = Total(error) - step * step * sum;
    if (refit_error < best_error) {
      best_error = refit_error;
      best = largest / end + step;
    }
  }
  return best;
}

template <class Grid, int kGroup>
float ErrorOf(const SuperTiles<kGroup>& super, const SuperFit0<kGroup>& fit) {
  Floats error = {};
  for (int t = 0; t < SuperTiles<kGroup>::kTiles; ++t) {
    error += FixedError<Grid>(super.tile[t], Splat(fit.d) * fit.scale[t], Splat(0.0f));
  }
  return Total(error);
}

// Moves each group's integer by one where that lowers its error, then refits d to the rounded
// values; repeats while the total falls.
template <class Grid, int kLow, int kHigh, int kGroup>
void RefineScales(const SuperTiles<kGroup>& super, int rounds, SuperFit0<kGroup>& best) {
  constexpr int kTiles = SuperTiles<kGroup>::kTiles;
  SuperFit0<kGroup> fit = best;
  for (int round = 0; round < rounds; ++round) {
    Floats top = {}, bottom = {}, total = {};
    for (int t = 0; t < kTiles; ++t) {
      const Floats centre = fit.scale[t];
      Floats error = FixedError<Grid>(super.tile[t], Splat(fit.d) * centre, Splat(0.0f));
      for (const float move : {-1.0f, 1.0f}) {
        const Floats s = Min(Max(centre + Splat(move), Splat(kLow)), Splat(kHigh));
        const Floats e = FixedError<Grid>(super.tile[t], Splat(fit.d) * s, Splat(0.0f));
        const Mask better = e < error;
        error = Select(better, e, error);
        fit.scale[t] = Select(better, s, fit.scale[t]);
      }
      total += error;
      Scale0 refit = {Splat(0.0f), Splat(3e38f), Splat(0.0f)};
      TryScale<Grid>(super.tile[t], Inverse(Splat(fit.d) * fit.scale[t]), refit);
      const Floats s = fit.scale[t];
      top += refit.curvature * refit.d * s;
      bottom += refit.curvature * s * s;
    }
    fit.error = Total(total);
    if (round > 0 && !(fit.error < best.error)) break;
    best = fit;
    const float sum = Total(bottom);
    if (!(sum > 0)) break;
    fit.half = FiniteHalf(Total(top) / sum * super.power.inverse);
    fit.d = HalfToFloat(fit.half) * super.power.scale;
  }
}

// Fits one super-block and writes its grid values: of group g to values[g]. starts[0] is plain
// rounding's scale, which is kept where the rounding of d to a half spoils the fitted one.
template <class Grid, int kLow, int kHigh, int kGroup, size_t kStarts>
SuperFit0<kGroup> FitSuper0(const SuperTiles<kGroup>& super, const float (&starts)[kStarts],
                            int ascents, int rounds, int8_t (*values)[kGroup]) {
  constexpr int kTiles = SuperTiles<kGroup>::kTiles;
  Scale0 groups[kTiles];
  Floats plain[kTiles], fitted[kTiles];
  for (int t = 0; t < kTiles; ++t) {
    groups[t] = SearchScale<Grid>(super.tile[t], starts, ascents);
    fitted[t] = groups[t].d;
    plain[t] = Extreme(super.tile[t]) * Splat(1.0f / starts[0]);
  }
  SuperFit0<kGroup> best, other;
  SetScale<kLow, kHigh>(super, fitted, ChooseSuperScale<kLow, kHigh>(groups), best);
  RefineScales<Grid, kLow, kHigh>(super, rounds, best);
  SetScale<kLow, kHigh>(super, plain, SignedLargest(plain) / kLow, other);
  if (ErrorOf<Grid>(super, other) < best.error) {
    RefineScales<Grid, kLow, kHigh>(super, rounds, other);
    best = other;
  }
  for (int t = 0; t < kTiles; ++t) {
    Quantize<Grid>(super.tile[t], Splat(best.d) * best.scale[t], Splat(0.0f), values + t * kLanes);
  }
  return best;
}

// Type 1: x = d * scale * q - dmin * min.
template <int kGroup>
struct SuperFit1 {
  static constexpr int kTiles = SuperTiles<kGroup>::kTiles;
  uint16_t half = 0, half_min = 0;
  float d = 0, dmin = 0;              // of the halves, in the units of the tiles
  Floats scale[kTiles], min[kTiles];  // integers
  float error = 3e38f;
};

// Rounds d and dmin to halves and the group scales and minima to multiples of them.
template <int kTop, int kTiles, int kGroup>
void SetScaleMin(const SuperTiles<kGroup>& super, const ScaleMin (&groups)[kTiles], float shrink,
                 SuperFit1<kGroup>& fit) {
  Floats largest_d[1] = {}, largest_m[1] = {};
  for (int t = 0; t < kTiles; ++t) {
    largest_d[0] = Max(largest_d[0], groups[t].d);
    largest_m[0] = Max(largest_m[0], -groups[t].m);
  }
  const float unit = super.power.inverse / (kTop - shrink);
  fit.half = CoveringHalf(SignedLargest(largest_d) * unit);
  fit.half_min = CoveringHalf(SignedLargest(largest_m) * unit);
  fit.d = HalfToFloat(fit.half) * super.power.scale;
  fit.dmin = HalfToFloat(fit.half_min) * super.power.scale;
  const Floats inverse = Inverse(Splat(fit.d)), inverse_min = Inverse(Splat(fit.dmin));
  for (int t = 0; t < kTiles; ++t) {
    fit.scale[t] = IntegerGrid<0, kTop>::Nearest(groups[t].d * inverse);
    fit.min[t] = IntegerGrid<0, kTop>::Nearest(-groups[t].m * inverse_min);
  }
}

template <class Grid, int kGroup>
float ErrorOf(const SuperTiles<kGroup>& super, const SuperFit1<kGroup>& fit) {
  Floats error = {};
  for (int t = 0; t < SuperTiles<kGroup>::kTiles; ++t) {
    error +=
        FixedError<Grid>(super.tile[t], Splat(fit.d) * fit.scale[t], Splat(-fit.dmin) * fit.min[t]);
  }
  return Total(error);
}

// Sums of the normal equations of d and dmin for given codes, over all groups.
struct Normal2 {
  Floats aa = {}, ab = {}, bb = {}, ax = {}, bx = {};  // a = scale * q, b = -min
};

template <class Grid, int kGroup>
void AddNormal(const Tile<kGroup>& tile, Floats d, Floats dmin, Floats scale, Floats min,
               Normal2& sums) {
  const Floats inverse = Inverse(d * scale), m = -(dmin * min);
  Floats qq = {}, q1 = {}, ww = {}, qx = {}, x1 = {};
  for (int j = 0; j < kGroup; ++j) {
    const Floats x = Load(tile.x[j]), w = Load(tile.w[j]);
    const Floats q = Grid::Nearest((x - m) * inverse), wq = w * q;
    qq += wq * q;
    q1 += wq;
    ww += w;
    qx += wq * x;
    x1 += w * x;
  }
  sums.aa += scale * scale * qq;
  sums.ab += -(scale * min * q1);
  sums.bb += min * min * ww;
  sums.ax += scale * qx;
  sums.bx += -(min * x1);
}

// Solves for d and dmin, both kept >= 0, and rounds them to halves; false when there is no answer.
template <int kGroup>
bool Solve(const SuperTiles<kGroup>& super, const Normal2& sums, SuperFit1<kGroup>& fit) {
  const double aa = Total(sums.aa), ab = Total(sums.ab), bb = Total(sums.bb);
  const double ax = Total(sums.ax), bx = Total(sums.bx);
  if (!(aa > 0)) return false;
  const double determinant = aa * bb - ab * ab;
  double d = ax / aa, dmin = 0;
  if (determinant > 1e-6 * aa * bb) {
    d = (bb * ax - ab * bx) / determinant;
    dmin = (aa * bx - ab * ax) / determinant;
  }
  if (!(d > 0) || dmin < 0) return false;
  fit.half = FiniteHalf(static_cast<float>(d * super.power.inverse));
  fit.half_min = FiniteHalf(static_cast<float>(dmin * super.power.inverse));
  fit.d = HalfToFloat(fit.half) * super.power.scale;
  fit.dmin = HalfToFloat(fit.half_min) * super.power.scale;
  return true;
}

// Moves each group's integers by one where that lowers its error, then refits d and dmin to the
// rounded values; repeats while the total falls.
template <class Grid, int kTop, int kGroup>
void RefinePairs(const SuperTiles<kGroup>& super, int rounds, SuperFit1<kGroup>& best) {
  constexpr int kTiles = SuperTiles<kGroup>::kTiles;
  SuperFit1<kGroup> fit = best;
  for (int round = 0; round < rounds; ++round) {
    Normal2 sums;
    Floats total = {};
    for (int t = 0; t < kTiles; ++t) {
      const Floats scale = fit.scale[t], min = fit.min[t];
      Floats error = Splat(3e38f);
      for (int move = 0; move < 9; ++move) {
        const int ds = move % 3 - 1, dm = move / 3 - 1;
        const Floats s = Min(Max(scale + Splat(static_cast<float>(ds)), Splat(0)), Splat(kTop));
        const Floats m = Min(Max(min + Splat(static_cast<float>(dm)), Splat(0)), Splat(kTop));
        const Floats e = FixedError<Grid>(super.tile[t], Splat(fit.d) * s, Splat(-fit.dmin) * m);
        const Mask better = e < error;
        error = Select(better, e, error);
        fit.scale[t] = Select(better, s, fit.scale[t]);
        fit.min[t] = Select(better, m, fit.min[t]);
      }
      total += error;
      AddNormal<Grid>(super.tile[t], Splat(fit.d), Splat(fit.dmin), fit.scale[t], fit.min[t], sums);
    }
    fit.error = Total(total);
    if (round > 0 && !(fit.error < best.error)) break;
    best = fit;
    if (!Solve(super, sums, fit)) break;
  }
}

// Fits one super-block of codes 0 to kHigh and writes the codes: of group g to values[g].
// Plain rounding over the range of each group is kept where halves spoil the fit.
template <int kHigh, int kTop, int kGroup, size_t kStarts, size_t kShrinks>
SuperFit1<kGroup> FitSuper1(const SuperTiles<kGroup>& super, const Reach (&starts)[kStarts],
                            int ascents, const float (&shrinks)[kShrinks], int rounds,
                            int8_t (*values)[kGroup]) {
  using Grid = IntegerGrid<0, kHigh>;
  constexpr int kTiles = SuperTiles<kGroup>::kTiles;
  ScaleMin groups[kTiles], plain[kTiles];
  for (int t = 0; t < kTiles; ++t) {
    groups[t] = SearchScaleMin<kHigh, true>(super.tile[t], starts, ascents);
    plain[t] = PlainScaleMin<kHigh>(super.tile[t]);
  }
  SuperFit1<kGroup> best;
  for (const float shrink : shrinks) {
    SuperFit1<kGroup> fit;
    SetScaleMin<kTop>(super, groups, shrink, fit);
    RefinePairs<Grid, kTop>(super, 1, fit);
    if (fit.error < best.error) best = fit;
  }
  RefinePairs<Grid, kTop>(super, rounds, best);
  SuperFit1<kGroup> other;
  SetScaleMin<kTop>(super, plain, 0.0f, other);
  if (ErrorOf<Grid>(super, other) < best.error) {
    RefinePairs<Grid, kTop>(super, rounds, other);
    best = other;
  }
  for (int t = 0; t < kTiles; ++t) {
    Quantize<Grid>(super.tile[t], Splat(best.d) * best.scale[t], Splat(-best.dmin) * best.min[t],
                   values + t * kLanes);
  }
  return best;
}

}  // namespace edgewise::quant
