// The element-wise operations, norms and sums of every table against double precision, at every
// remainder length.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/half.h"
#include "base/rng.h"
#include "kernels/kernels.h"

namespace edgewise::kernels {
namespace {

constexpr size_t kLongest = 130;
constexpr float kUntouched = -12345.0f;

std::vector<float> Random(size_t n, uint64_t seed, double scale = 1) {
  Rng rng(seed);
  std::vector<float> values(n);
  for (float& value : values) value = static_cast<float>(rng.Gaussian() * scale);
  return values;
}

double D(float value) { return static_cast<double>(value); }

// Each table, each n from 0 to 130 and two long ones.
template <class Function>
void ForEachTableAndLength(Function function) {
  const KernelList list = Available();
  for (size_t i = 0; i < list.size; ++i) {
    const Kernels& k = list.items[i];
    CAPTURE(std::string(k.name));
    for (size_t n = 0; n <= kLongest; ++n) function(k, n);
    function(k, 1000);
    function(k, 4096);
  }
}

// Counts elements of y that are further from `exact` than the relative or absolute bound, and
// writes beyond the end.
template <class Exact>
size_t Wrong(const std::vector<float>& y, size_t n, double relative, double absolute, Exact exact) {
  size_t wrong = 0;
  for (size_t i = 0; i < n; ++i) {
    const double want = exact(i);
    if (!(std::fabs(D(y[i]) - want) <= relative * std::fabs(want) + absolute)) ++wrong;
  }
  for (size_t i = n; i < y.size(); ++i) wrong += y[i] != kUntouched;
  return wrong;
}

std::vector<float> Output(size_t n) { return std::vector<float>(n + 3, kUntouched); }

std::vector<float> Padded(const std::vector<float>& x) {
  std::vector<float> y = x;
  y.insert(y.end(), 3, kUntouched);
  return y;
}

double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

TEST_CASE("dot_f32") {
  ForEachTableAndLength([](const Kernels& k, size_t n) {
    const std::vector<float> a = Random(n, n), b = Random(n, n + 1000);
    double exact = 0, size = 0;
    for (size_t i = 0; i < n; ++i) {
      exact += D(a[i]) * D(b[i]);
      size += std::fabs(D(a[i]) * D(b[i]));
    }
    CHECK(std::fabs(D(k.dot_f32(a.data(), b.data(), n)) - exact) <= 1e-6 * size);
  });
}

TEST_CASE("rms_norm") {
  ForEachTableAndLength([](const Kernels& k, size_t n) {
    if (n == 0) return;
    const std::vector<float> x = Random(n, n, 3), weight = Random(n, n + 1);
    double squares = 0;
    for (const float v : x) squares += D(v) * D(v);
    const double factor = 1 / std::sqrt(squares / static_cast<double>(n) + 1e-5);
    std::vector<float> y = Output(n);
    k.rms_norm(x.data(), weight.data(), y.data(), n, 1e-5f);
    CHECK(Wrong(y, n, 3e-7, 0, [&](size_t i) { return D(x[i]) * factor * D(weight[i]); }) == 0);
    std::vector<float> in_place = Padded(x);
    k.rms_norm(in_place.data(), nullptr, in_place.data(), n, 1e-5f);
    CHECK(Wrong(in_place, n, 3e-7, 0, [&](size_t i) { return D(x[i]) * factor; }) == 0);
  });
}

TEST_CASE("layer_norm") {
  ForEachTableAndLength([](const Kernels& k, size_t n) {
    if (n == 0) return;
    std::vector<float> x = Random(n, n);
    for (float& v : x) v += 10;
    const std::vector<float> weight = Random(n, n + 1), bias = Random(n, n + 2);
    double mean = 0, variance = 0;
    for (const float v : x) mean += D(v) / static_cast<double>(n);
    for (const float v : x) variance += (D(v) - mean) * (D(v) - mean) / static_cast<double>(n);
    const double factor = 1 / std::sqrt(variance + 1e-5);
    const double absolute =
        4e-6 * (n == 1 ? 100 : 1);  // one value: 1 / sqrt(eps) magnifies the rounding of the mean
    std::vector<float> y = Output(n), no_bias = Output(n), plain = Padded(x);
    k.layer_norm(x.data(), weight.data(), bias.data(), y.data(), n, 1e-5f);
    k.layer_norm(x.data(), weight.data(), nullptr, no_bias.data(), n, 1e-5f);
    k.layer_norm(plain.data(), nullptr, nullptr, plain.data(), n, 1e-5f);
    const auto norm = [&](size_t i) { return (D(x[i]) - mean) * factor; };
    CHECK(Wrong(y, n, 1e-6, absolute,
                [&](size_t i) { return norm(i) * D(weight[i]) + D(bias[i]); }) == 0);
    CHECK(Wrong(no_bias, n, 1e-6, absolute, [&](size_t i) { return norm(i) * D(weight[i]); }) == 0);
    CHECK(Wrong(plain, n, 1e-6, absolute, norm) == 0);
  });
}

TEST_CASE("rope turns the first values of each head") {
  const KernelList list = Available();
  for (size_t table = 0; table < list.size; ++table) {
    const Kernels& k = list.items[table];
    CAPTURE(std::string(k.name));
    for (size_t rotary = 2; rotary <= 96; rotary += 2) {
      for (const size_t beyond : {0, 5}) {
        constexpr size_t kHeads = 3;
        const size_t head_dim = rotary + beyond, half = rotary / 2;
        const std::vector<float> x = Random(kHeads * head_dim, rotary), angle = Random(half, 1, 3);
        std::vector<float> cos(half), sin(half);
        for (size_t i = 0; i < half; ++i) cos[i] = std::cos(angle[i]), sin[i] = std::sin(angle[i]);
        std::vector<float> pairs = Padded(x), halves = Padded(x);
        k.rope_interleaved(pairs.data(), cos.data(), sin.data(), kHeads, head_dim, rotary);
        k.rope_neox(halves.data(), cos.data(), sin.data(), kHeads, head_dim, rotary);
        const auto exact = [&](size_t i, bool neox) {
          const size_t base = i / head_dim * head_dim, c = i % head_dim;
          if (c >= rotary) return D(x[i]);
          const size_t pair = neox ? c % half : c / 2;
          const bool second = neox ? c >= half : c % 2 == 1;
          const double a = D(x[base + (neox ? pair : 2 * pair)]);
          const double b = D(x[base + (neox ? pair + half : 2 * pair + 1)]);
          return second ? a * D(sin[pair]) + b * D(cos[pair]) : a * D(cos[pair]) - b * D(sin[pair]);
        };
        CHECK(Wrong(pairs, x.size(), 0, 1e-6, [&](size_t i) { return exact(i, false); }) == 0);
        CHECK(Wrong(halves, x.size(), 0, 1e-6, [&](size_t i) { return exact(i, true); }) == 0);
      }
    }
  }
}

TEST_CASE("silu_mul and gelu_tanh_mul keep their relative precision") {
  ForEachTableAndLength([](const Kernels& k, size_t n) {
    const std::vector<float> gate = Random(n, n, 12), up = Random(n, n + 1);
    std::vector<float> silu = Output(n), gelu = Output(n);
    k.silu_mul(gate.data(), up.data(), silu.data(), n);
    k.gelu_tanh_mul(gate.data(), up.data(), gelu.data(), n);
    CHECK(Wrong(silu, n, 6e-7, 0,
                [&](size_t i) { return D(gate[i]) * Sigmoid(D(gate[i])) * D(up[i]); }) == 0);
    // Far to the left the exponent reaches 88, and its own rounding of 3e-7 is magnified as much.
    CHECK(Wrong(gelu, n, 3e-5, 1e-36, [&](size_t i) {
            const double g = D(gate[i]);
            return g * Sigmoid(2 * std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g)) * D(up[i]);
          }) == 0);
  });
}

TEST_CASE("silu at its ends") {
  const KernelList list = Available();
  const float infinity = std::numeric_limits<float>::infinity();
  for (size_t table = 0; table < list.size; ++table) {
    const float gate[] = {-1e30f,
                          -200,
                          -104,
                          -88.9f,
                          -87,
                          0,
                          1e-30f,
                          88,
                          89,
                          200,
                          1e30f,
                          infinity,
                          std::numeric_limits<float>::quiet_NaN()};
    constexpr size_t kCount = sizeof(gate) / sizeof(gate[0]);
    float up[kCount], y[kCount];
    for (float& u : up) u = 1;
    list.items[table].silu_mul(gate, up, y, kCount);
    CAPTURE(std::string(list.items[table].name));
    for (size_t i = 0; i < 11; ++i) {
      const double want = D(gate[i]) * Sigmoid(D(gate[i]));
      CHECK(std::fabs(D(y[i]) - want) <= 6e-7 * std::fabs(want) + 1e-35);
    }
    CHECK(y[11] == infinity);
    CHECK(std::isnan(y[12]));
  }
}

TEST_CASE("add and scale") {
  ForEachTableAndLength([](const Kernels& k, size_t n) {
    const std::vector<float> x = Random(n, n), before = Random(n, n + 1);
    std::vector<float> sum = Padded(before), scaled = Padded(before);
    k.add(x.data(), sum.data(), n);
    k.scale(0.37f, scaled.data(), n);
    CHECK(Wrong(sum, n, 0, 0, [&](size_t i) { return D(before[i] + x[i]); }) == 0);
    CHECK(Wrong(scaled, n, 0, 0, [&](size_t i) { return D(before[i] * 0.37f); }) == 0);
  });
}

TEST_CASE("softcap") {
  ForEachTableAndLength([](const Kernels& k, size_t n) {
    for (const float cap : {1.0f, 30.0f}) {
      const std::vector<float> x = Random(n, n, 2);
      std::vector<float> y = Padded(x);
      k.softcap(cap, y.data(), n);
      CHECK(Wrong(y, n, 5e-7, 0, [&](size_t i) { return D(cap) * std::tanh(D(x[i]) / D(cap)); }) ==
            0);
    }
  });
  const KernelList list = Available();
  for (size_t table = 0; table < list.size; ++table) {
    float y[] = {0, 1e-20f, 0.5999f, 0.6001f, -0.6f, 10, -100, 1e30f};
    list.items[table].softcap(1, y, 8);
    CHECK(y[0] == 0);
    CHECK(y[1] == 1e-20f);
    CHECK(D(y[2]) == doctest::Approx(std::tanh(0.5999)).epsilon(1e-6));
    CHECK(D(y[3]) == doctest::Approx(std::tanh(0.6001)).epsilon(1e-6));
    CHECK(D(y[4]) == doctest::Approx(-std::tanh(0.6)).epsilon(1e-6));
    CHECK(y[6] == -1);
    CHECK(y[7] == 1);
  }
}

TEST_CASE("f32_to_f16 rounds to nearest even") {
  ForEachTableAndLength([](const Kernels& k, size_t n) {
    Rng rng(n);
    std::vector<float> x(n);
    for (float& v : x)
      v = static_cast<float>(rng.Gaussian() * std::pow(10, rng.Uniform() * 16 - 10));
    std::vector<uint16_t> y(n + 3, 0xABCD);
    k.f32_to_f16(x.data(), y.data(), n);
    size_t wrong = 0;
    for (size_t i = 0; i < n; ++i) wrong += y[i] != FloatToHalf(x[i]);
    for (size_t i = n; i < y.size(); ++i) wrong += y[i] != 0xABCD;
    CHECK(wrong == 0);
  });
  const KernelList list = Available();
  const float ends[] = {65504, 65519.99f, 65520,    -70000,
                        6e-8f, 2.9e-8f,   2.98e-8f, 0,
                        -0.0f, 1e-40f,    6.1e-5f,  std::numeric_limits<float>::infinity()};
  constexpr size_t kCount = sizeof(ends) / sizeof(ends[0]);
  for (size_t table = 0; table < list.size; ++table) {
    uint16_t y[kCount];
    list.items[table].f32_to_f16(ends, y, kCount);
    for (size_t i = 0; i < kCount; ++i) CHECK(y[i] == FloatToHalf(ends[i]));
    const float nan = std::numeric_limits<float>::quiet_NaN();
    list.items[table].f32_to_f16(&nan, y, 1);
    CHECK(std::isnan(HalfToFloat(y[0])));
  }
}

TEST_CASE("hadamard: signs of i . j, orthonormal, block by block") {
  const KernelList list = Available();
  for (const size_t head_dim : {1, 2, 12, 64, 96, 128}) {
    const size_t size = head_dim & (~head_dim + 1);
    const std::vector<float> x = Random(3 * head_dim, head_dim);
    for (size_t table = 0; table < list.size; ++table) {
      std::vector<float> y = x;
      list.items[table].hadamard(y.data(), 3, head_dim);
      CHECK(Wrong(y, y.size(), 0, 2e-6, [&](size_t i) {
              double sum = 0;
              for (size_t j = 0; j < size; ++j) {
                const double value = D(x[i / size * size + j]);
                sum += std::popcount(i % size & j) % 2 == 0 ? value : -value;
              }
              return sum / std::sqrt(static_cast<double>(size));
            }) == 0);
      list.items[table].hadamard(y.data(), 3, head_dim);
      CHECK(Wrong(y, y.size(), 0, 2e-6, [&](size_t i) { return D(x[i]); }) == 0);
    }
  }
}

TEST_CASE("log_sum_exp") {
  ForEachTableAndLength([](const Kernels& k, size_t n) {
    if (n == 0) return;
    for (const double shift : {-1000.0, 0.0, 1000.0}) {
      std::vector<float> x = Random(n, n, 10);
      for (float& v : x) v = static_cast<float>(D(v) + shift);
      double largest = -1e300, sum = 0;
      for (const float v : x) largest = D(v) > largest ? D(v) : largest;
      for (const float v : x) sum += std::exp(D(v) - largest);
      CHECK(std::fabs(k.log_sum_exp(x.data(), n) - (largest + std::log(sum))) <= 2e-6);
      x[n / 2] = -std::numeric_limits<float>::infinity();
      if (n > 1) CHECK(std::isfinite(k.log_sum_exp(x.data(), n)));
    }
  });
  const KernelList list = Available();
  for (size_t table = 0; table < list.size; ++table) {
    const float none = -std::numeric_limits<float>::infinity();
    CHECK(list.items[table].log_sum_exp(&none, 1) == -std::numeric_limits<double>::infinity());
    CHECK(list.items[table].log_sum_exp(nullptr, 0) == -std::numeric_limits<double>::infinity());
  }
}

TEST_CASE("softmax in place, and the log of its sum") {
  ForEachTableAndLength([](const Kernels& k, size_t n) {
    if (n == 0) return;
    std::vector<float> x = Random(n, n, 20);
    if (n > 2) x[n / 2] = -std::numeric_limits<float>::infinity();
    double largest = D(x[0]), sum = 0;
    for (const float v : x) largest = std::max(largest, D(v));
    for (const float v : x) sum += std::exp(D(v) - largest);
    std::vector<float> y = Padded(x);
    const double log_sum = k.softmax(y.data(), n);
    CHECK(std::fabs(log_sum - largest - std::log(sum)) <= 1e-6);
    CHECK(log_sum == k.log_sum_exp(x.data(), n));
    // The exponent's own rounding, up to 150 here, is magnified as much.
    CHECK(Wrong(y, n, 2e-5, 1e-37, [&](size_t i) { return std::exp(D(x[i]) - largest) / sum; }) ==
          0);
  });
}

TEST_CASE("softmax shows what is not a number, and keeps large numbers apart") {
  const KernelList list = Available();
  for (size_t i = 0; i < list.size; ++i) {
    CAPTURE(std::string(list.items[i].name));
    std::vector<float> x(40, -3e38f);
    x[37] = 3e38f;
    CHECK(list.items[i].softmax(x.data(), x.size()) == doctest::Approx(3e38));
    CHECK(x[37] == 1);
    CHECK(x[0] == 0);
    x[3] = std::numeric_limits<float>::quiet_NaN();
    CHECK(std::isnan(list.items[i].softmax(x.data(), x.size())));
    CHECK(std::isnan(x[39]));
  }
}

TEST_CASE("a sum of squares in double precision") {
  ForEachTableAndLength([](const Kernels& k, size_t n) {
    const std::vector<float> x = Random(n, n, 3);
    double sum = 0;
    for (const float v : x) sum += D(v) * D(v);
    CHECK(k.sum_squares(x.data(), n) == doctest::Approx(sum).epsilon(1e-14));
  });
}

TEST_CASE("a step of AdamW") {
  const AdamWArgs args{.beta1 = 0.9f,
                       .beta2 = 0.95f,
                       .eps = 1e-8f,
                       .gradient_scale = 0.5f,
                       .correct1 = 2.5f,
                       .correct2 = 5.0f,
                       .learning_rate = 0.02f,
                       .keep = 0.99f};
  ForEachTableAndLength([&](const Kernels& k, size_t n) {
    const std::vector<float> g = Random(n, n, 3), m = Random(n, n + 1, 1), w = Random(n, n + 2, 1);
    std::vector<float> v = Random(n, n + 3, 2);
    for (float& value : v) value *= value;
    std::vector<double> mean(n), variance(n);
    for (size_t i = 0; i < n; ++i) {
      const double scaled = D(g[i]) * D(args.gradient_scale);
      mean[i] = D(args.beta1) * D(m[i]) + (1 - D(args.beta1)) * scaled;
      variance[i] = D(args.beta2) * D(v[i]) + (1 - D(args.beta2)) * scaled * scaled;
    }
    std::vector<float> new_m = Padded(m), new_v = Padded(v), new_w = Padded(w);
    k.adamw(args, g.data(), new_m.data(), new_v.data(), new_w.data(), n);
    CHECK(Wrong(new_m, n, 1e-6, 1e-6, [&](size_t i) { return mean[i]; }) == 0);
    CHECK(Wrong(new_v, n, 1e-6, 1e-7, [&](size_t i) { return variance[i]; }) == 0);
    CHECK(Wrong(new_w, n, 1e-6, 1e-6, [&](size_t i) {
            const double root = std::sqrt(variance[i] * D(args.correct2)) + D(args.eps);
            return D(args.keep) * D(w[i]) -
                   D(args.learning_rate) * D(args.correct1) * mean[i] / root;
          }) == 0);
  });
}

TEST_CASE("exp") {
  ForEachTableAndLength([](const Kernels& k, size_t n) {
    const std::vector<float> x = Random(n, n, 18);
    std::vector<float> y = Output(n), in_place = Padded(x);
    k.exp(x.data(), y.data(), n);
    k.exp(in_place.data(), in_place.data(), n);
    CHECK(Wrong(y, n, 3e-7, 2e-45, [&](size_t i) { return std::exp(D(x[i])); }) == 0);
    CHECK(y == in_place);
  });
}

}  // namespace edgewise::kernels
