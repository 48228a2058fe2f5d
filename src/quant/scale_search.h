// Least-squares search of block scales, eight groups at a time: lane l of every vector belongs to
// group l, so no sum crosses lanes and results do not depend on the vector width of the machine.
//
// Type 0, x = d * q: for a trial d, r = x / d - q. The best d for these q is d (1 + Swqr / Swqq),
// its error d^2 (Swrr - Swqr^2 / Swqq). Type 1, x = d * q + m: the same with two unknowns.
// Working on residuals keeps single precision exact enough for 8-bit formats.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "quant/blocks.h"

namespace edgewise::quant {

inline constexpr int kLanes = 8;
using FloatQuad [[gnu::vector_size(16)]] = float;
using IntQuad [[gnu::vector_size(16)]] = int32_t;

// Eight floats as two vectors of four, which every target has: gcc 12 splits wider ones badly.
struct Floats {
  FloatQuad a, b;
};
// All ones in the lanes where a comparison holds.
struct Mask {
  IntQuad a, b;
};

inline Floats Splat(float v) { return {FloatQuad{v, v, v, v}, FloatQuad{v, v, v, v}}; }
inline Floats operator+(Floats x, Floats y) { return {x.a + y.a, x.b + y.b}; }
inline Floats operator-(Floats x, Floats y) { return {x.a - y.a, x.b - y.b}; }
inline Floats operator*(Floats x, Floats y) { return {x.a * y.a, x.b * y.b}; }
inline Floats operator/(Floats x, Floats y) { return {x.a / y.a, x.b / y.b}; }
inline Floats operator-(Floats x) { return {-x.a, -x.b}; }
inline Floats& operator+=(Floats& x, Floats y) { return x = x + y; }
inline Mask operator<(Floats x, Floats y) { return {x.a < y.a, x.b < y.b}; }
inline Mask operator&(Mask x, Mask y) { return {x.a & y.a, x.b & y.b}; }
inline Floats Select(Mask m, Floats yes, Floats no) {
  return {m.a ? yes.a : no.a, m.b ? yes.b : no.b};
}
inline Floats Min(Floats x, Floats y) { return {x.a < y.a ? x.a : y.a, x.b < y.b ? x.b : y.b}; }
inline Floats Max(Floats x, Floats y) { return {x.a > y.a ? x.a : y.a, x.b > y.b ? x.b : y.b}; }
inline Floats Abs(Floats x) { return Max(x, -x); }
// Reciprocal, with 0 for magnitudes too small to matter in a tile.
inline Floats Inverse(Floats x) {
  const Mask usable = Splat(1e-20f) < Abs(x);
  return Select(usable, Splat(1.0f) / Select(usable, x, Splat(1.0f)), Splat(0.0f));
}

inline Floats Load(const float* x) {
  Floats v;
  std::memcpy(&v, x, sizeof(v));
  return v;
}
inline void Store(Floats v, float* x) { std::memcpy(x, &v, sizeof(v)); }

// Values and weights of eight groups: element j of group l is x[j][l]. Scaled by powers of two so
// that the largest magnitudes are about 1, which keeps squares of any float within range.
template <int kGroup>
struct Tile {
  alignas(32) float x[kGroup][kLanes];
  alignas(32) float w[kGroup][kLanes];
};

// A power of two and its reciprocal.
struct PowerOfTwo {
  float scale = 1.0f;
  float inverse = 1.0f;
};

// Returns the scale that brings the largest of `n` magnitudes to [0.5, 1), as far as floats go.
PowerOfTwo Normalizer(const float* x, size_t n);
// Returns `weights`, or null when they are all zero and so say nothing.
const float* UsableWeights(const float* weights, size_t n);
// Rounds to a half; values beyond its range become its largest, so that decoded values are finite.
uint16_t FiniteHalf(float value);
// As FiniteHalf for value >= 0, but one step up when subnormal spacing would lose over 2 %.
uint16_t CoveringHalf(float value);

// Puts one group into a lane. `weights` null means 1 each. A small floor keeps sums positive.
template <int kGroup>
inline void FillLane(Tile<kGroup>& tile, int lane, const float* x, float scale,
                     const float* weights, float weight_scale) {
  for (int j = 0; j < kGroup; ++j) tile.x[j][lane] = x[j] * scale;
  if (weights == nullptr) {
    for (int j = 0; j < kGroup; ++j) tile.w[j][lane] = 1.0f;
  } else {
    for (int j = 0; j < kGroup; ++j) tile.w[j][lane] = weights[j] * weight_scale + 1e-6f;
  }
}

// Rounds to the nearest integer, ties to even; |x| < 2^22.
inline Floats Round(Floats x) { return (x + Splat(12582912.0f)) - Splat(12582912.0f); }

// The integers -128 to 127, read at run time: gcc 12 turns min and max with a constant into
// four instructions instead of one.
extern const std::array<float, 256> kIntegers;
inline Floats Limit(int value) { return Splat(kIntegers[static_cast<size_t>(value) + 128]); }

// The integers kLow to kHigh.
template <int kLow, int kHigh>
struct IntegerGrid {
  static Floats Nearest(Floats v) { return Round(Min(Max(v, Limit(kLow)), Limit(kHigh))); }
};

// The 16 values of IQ4_NL.
struct Iq4NlGrid {
  static Floats Nearest(Floats v) {
    Floats q = Splat(kIq4NlValues[0]);
    for (int k = 1; k < 16; ++k) {
      const float middle = 0.5f * static_cast<float>(kIq4NlValues[k] + kIq4NlValues[k - 1]);
      q = Select(Splat(middle) < v, Splat(kIq4NlValues[k]), q);
    }
    return q;
  }
};

struct Scale0 {
  Floats d, error;
  Floats curvature = {};  // error grows by curvature (d' - d)^2
};

// Rounds x(j) * inverse, weighted by w(j), for 0 <= j < group, and fits the scale to what that
// gives.
template <class X, class W, class Nearest>
inline Scale0 Refit(int group, Floats inverse, X x, W w, Nearest nearest) {
  Floats rr = {}, qr = {}, qq = {};
  for (int j = 0; j < group; ++j) {
    const Floats weight = w(j);
    const Floats v = x(j) * inverse;
    const Floats q = nearest(v);
    const Floats r = v - q;
    const Floats wr = weight * r;
    rr += wr * r;
    qr += wr * q;
    qq += weight * q * q;
  }
  const Floats d = Inverse(inverse);
  const Floats step = qr * Inverse(qq);
  return {d + d * step, d * d * (rr - qr * step), qq};
}

// Keeps the better of `best` and the refit of trial scale 1 / inverse.
template <class Grid, int kGroup>
inline void TryScale(const Tile<kGroup>& tile, Floats inverse, Scale0& best) {
  const Scale0 trial = Refit(
      kGroup, inverse, [&](int j) { return Load(tile.x[j]); },
      [&](int j) { return Load(tile.w[j]); }, [](Floats v) { return Grid::Nearest(v); });
  const Mask better = trial.error < best.error;
  best.d = Select(better, trial.d, best.d);
  best.error = Select(better, trial.error, best.error);
  best.curvature = Select(better, trial.curvature, best.curvature);
}

// Signed value of largest magnitude in each lane.
template <int kGroup>
inline Floats Extreme(const Tile<kGroup>& tile) {
  Floats low = Load(tile.x[0]), high = low;
  for (int j = 1; j < kGroup; ++j) {
    low = Min(low, Load(tile.x[j]));
    high = Max(high, Load(tile.x[j]));
  }
  return Select(-low < high, high, low);
}

// Fits each lane's scale: trials map the extreme value to each of `starts`, then `ascents` rounds
// of rounding with the refitted scale.
template <class Grid, int kGroup, size_t kStarts>
inline Scale0 SearchScale(const Tile<kGroup>& tile, const float (&starts)[kStarts], int ascents) {
  const Floats inverse = Inverse(Extreme(tile));
  Scale0 best = {Splat(0.0f), Splat(3e38f), Splat(0.0f)};
  for (const float start : starts) TryScale<Grid>(tile, Splat(start) * inverse, best);
  for (int i = 0; i < ascents; ++i) TryScale<Grid>(tile, Inverse(best.d), best);
  return best;
}

struct ScaleMin {
  Floats d, m, error;  // x = d * q + m, d >= 0
};

// Keeps the better of `best` and the refit of a trial. kNegativeMin allows only m <= 0: where the
// free solution breaks that, the trial's own m stays and d alone is refitted.
template <class Grid, bool kNegativeMin, int kGroup>
inline void TryScaleMin(const Tile<kGroup>& tile, Floats inverse, Floats m, Floats inverse_weight,
                        ScaleMin& best) {
  Floats rr = {}, r1 = {}, qr = {}, q1 = {}, qq = {};
  for (int j = 0; j < kGroup; ++j) {
    const Floats w = Load(tile.w[j]);
    const Floats v = (Load(tile.x[j]) - m) * inverse;
    const Floats q = Grid::Nearest(v);
    const Floats r = v - q;
    const Floats wr = w * r, wq = w * q;
    rr += wr * r;
    r1 += wr;
    qr += wr * q;
    q1 += wq;
    qq += wq * q;
  }
  const Floats d = Inverse(inverse);
  const Floats mean_r = r1 * inverse_weight, mean_q = q1 * inverse_weight;
  const Floats covariance = qr - q1 * mean_r;
  Floats step = covariance * Inverse(Max(qq - q1 * mean_q, Splat(0.0f)));
  Floats new_m = m + d * (mean_r - step * mean_q);
  Floats gain = r1 * mean_r + covariance * step;
  if constexpr (kNegativeMin) {
    const Mask bad = Splat(0.0f) < new_m;
    const Floats alone = qr * Inverse(qq);
    step = Select(bad, alone, step);
    gain = Select(bad, qr * alone, gain);
    new_m = Select(bad, m, new_m);
  }
  const Floats error = d * d * (rr - gain);
  const Mask better = error < best.error;
  best.d = Select(better, d + d * step, best.d);
  best.m = Select(better, new_m, best.m);
  best.error = Select(better, error, best.error);
}

// How far a trial grid reaches beyond the data, in steps below the lowest and above the highest.
struct Reach {
  float below, above;
};

// Trials for 2, 4 and 5 bits, chosen greedily for the least error on normal, Student-t and uniform
// groups: within 1 % of an exhaustive search.
inline constexpr Reach kReach2[] = {{0, 0},           {-0.26f, -0.38f}, {-0.51f, -0.02f},
                                    {-0.14f, -0.63f}, {-0.51f, -0.38f}, {-0.26f, 0.6f},
                                    {0.11f, -0.63f},  {-0.63f, 0.11f}};
inline constexpr Reach kReach4[] = {{0, 0},           {0.46f, -0.36f}, {-0.36f, 0.05f},
                                    {-0.08f, -0.49f}, {-0.22f, 0.6f},  {-0.36f, -0.36f},
                                    {0.6f, -0.08f},   {-0.49f, 0.19f}};
inline constexpr Reach kReach5[] = {{0, 0},          {-0.37f, 0.6f},  {0.12f, -0.37f},
                                    {-0.37f, 0.12f}, {0.6f, 0.6f},    {0.12f, 0.6f},
                                    {0.6f, -0.13f},  {-0.37f, -0.37f}};

// Fits each lane's scale and minimum: trials lay codes 0 to kHigh over the range of the data
// widened by each of `starts`, then `ascents` rounds of rounding with the refitted pair.
template <int kHigh, bool kNegativeMin, int kGroup, size_t kStarts>
inline ScaleMin SearchScaleMin(const Tile<kGroup>& tile, const Reach (&starts)[kStarts],
                               int ascents) {
  using Grid = IntegerGrid<0, kHigh>;
  Floats low = Load(tile.x[0]), high = low, weight = {};
  for (int j = 0; j < kGroup; ++j) {
    low = Min(low, Load(tile.x[j]));
    high = Max(high, Load(tile.x[j]));
    weight += Load(tile.w[j]);
  }
  if constexpr (kNegativeMin) low = Min(low, Splat(0.0f));
  const Floats inverse_weight = Inverse(weight);
  const Floats inverse_range = Inverse(high - low);
  ScaleMin best = {Splat(0.0f), low, Splat(3e38f)};
  for (const Reach& start : starts) {
    const float steps = static_cast<float>(kHigh) - start.below - start.above;
    const Floats m = low - Splat(start.below / steps) * (high - low);
    TryScaleMin<Grid, kNegativeMin>(tile, Splat(steps) * inverse_range,
                                    kNegativeMin ? Min(m, Splat(0.0f)) : m, inverse_weight, best);
  }
  for (int i = 0; i < ascents; ++i) {
    TryScaleMin<Grid, kNegativeMin>(tile, Inverse(best.d), best.m, inverse_weight, best);
  }
  return best;
}

// The codes 0 to kHigh laid over the range of the data, stretched to hold 0 as k-quants need.
template <int kHigh, int kGroup>
inline ScaleMin PlainScaleMin(const Tile<kGroup>& tile) {
  Floats low = Splat(0.0f), high = Load(tile.x[0]);
  for (int j = 0; j < kGroup; ++j) {
    low = Min(low, Load(tile.x[j]));
    high = Max(high, Load(tile.x[j]));
  }
  return {Max(high - low, Splat(0.0f)) * Splat(1.0f / kHigh), low, Splat(0.0f)};
}

// Weighted squared error of the codes nearest to given d and m; m is 0 for type 0.
template <class Grid, int kGroup>
inline Floats FixedError(const Tile<kGroup>& tile, Floats d, Floats m) {
  const Floats inverse = Inverse(d);
  Floats error = {};
  for (int j = 0; j < kGroup; ++j) {
    const Floats x = Load(tile.x[j]) - m;
    const Floats r = x - d * Grid::Nearest(x * inverse);
    error += Load(tile.w[j]) * r * r;
  }
  return error;
}

// Writes the grid values nearest to the tile for given d and m: of group l to values[l].
template <class Grid, int kGroup>
inline void Quantize(const Tile<kGroup>& tile, Floats d, Floats m, int8_t (*values)[kGroup]) {
  const Floats inverse = Inverse(d);
  for (int j = 0; j < kGroup; ++j) {
    alignas(32) float q[kLanes];
    Store(Grid::Nearest((Load(tile.x[j]) - m) * inverse), q);
    for (int lane = 0; lane < kLanes; ++lane) values[lane][j] = static_cast<int8_t>(q[lane]);
  }
}

}  // namespace edgewise::quant
