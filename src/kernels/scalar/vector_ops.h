// Norms, rotary position embedding, activations and conversions, plain C++.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "base/half.h"

namespace edgewise::kernels {
namespace {

// 8 running double sums, so that the additions overlap.
struct DoubleSums {
  double lane[8] = {};
  double Total() const {
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
  }
};

void RmsNorm(const float* x, const float* weight, float* y, size_t n, float eps) {
  DoubleSums sums;
  for (size_t i = 0; i < n; ++i)
    sums.lane[i % 8] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  const double mean = sums.Total() / static_cast<double>(n);
  const float factor = static_cast<float>(1.0 / sqrt(mean + static_cast<double>(eps)));
  if (weight) {
    for (size_t i = 0; i < n; ++i) y[i] = x[i] * factor * weight[i];
  } else {
    for (size_t i = 0; i < n; ++i) y[i] = x[i] * factor;
  }
}

void LayerNorm(const float* x, const float* weight, const float* bias, float* y, size_t n,
               float eps) {
  DoubleSums sums;
  for (size_t i = 0; i < n; ++i) sums.lane[i % 8] += static_cast<double>(x[i]);
  const double mean = sums.Total() / static_cast<double>(n);
  DoubleSums squares;
  for (size_t i = 0; i < n; ++i) {
    const double d = static_cast<double>(x[i]) - mean;
    squares.lane[i % 8] += d * d;
  }
  const double variance = squares.Total() / static_cast<double>(n);
  const float factor = static_cast<float>(1.0 / sqrt(variance + static_cast<double>(eps)));
  const float center = static_cast<float>(mean);
  for (size_t i = 0; i < n; ++i) {
    const float scaled = (x[i] - center) * factor * (weight ? weight[i] : 1.0f);
    y[i] = bias ? scaled + bias[i] : scaled;
  }
}

void RopeInterleaved(float* x, const float* cos, const float* sin, size_t heads, size_t head_dim,
                     size_t rotary_dim) {
  for (size_t h = 0; h < heads; ++h, x += head_dim) {
    for (size_t i = 0; i < rotary_dim / 2; ++i) {
      const float a = x[2 * i], b = x[2 * i + 1];
      x[2 * i] = a * cos[i] - b * sin[i];
      x[2 * i + 1] = a * sin[i] + b * cos[i];
    }
  }
}

void RopeNeox(float* x, const float* cos, const float* sin, size_t heads, size_t head_dim,
              size_t rotary_dim) {
  const size_t half = rotary_dim / 2;
  for (size_t h = 0; h < heads; ++h, x += head_dim) {
    for (size_t i = 0; i < half; ++i) {
      const float a = x[i], b = x[i + half];
      x[i] = a * cos[i] - b * sin[i];
      x[i + half] = a * sin[i] + b * cos[i];
    }
  }
}

void SiluMul(const float* gate, const float* up, float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

void GeluTanhMul(const float* gate, const float* up, float* y, size_t n) {
  constexpr float kSqrt2OverPi = 0.797884560802865356f;
  for (size_t i = 0; i < n; ++i) {
    const float g = gate[i];
    const float inner = kSqrt2OverPi * (g + 0.044715f * g * g * g);
    // 0.5 * (1 + tanh(u)) = 1 / (1 + exp(-2 u)) keeps its precision when tanh is near -1.
    y[i] = g / (1.0f + expf(-2.0f * inner)) * up[i];
  }
}

void Add(const float* x, float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] += x[i];
}

void Scale(float factor, float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] *= factor;
}

void Softcap(float cap, float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] = cap * tanhf(y[i] / cap);
}

void F32ToF16(const float* x, uint16_t* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] = FloatToHalf(x[i]);
}

float Largest(const float* x, size_t n) {
  float largest = -INFINITY;
  for (size_t i = 0; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

double LogSumExp(const float* x, size_t n) {
  const float largest = Largest(x, n);
  if (largest == -INFINITY) return static_cast<double>(largest);
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += static_cast<double>(expf(x[i] - largest));
  return static_cast<double>(largest) + log(sum);
}

double Softmax(float* x, size_t n) {
  const float largest = Largest(x, n);
  double sum = 0;
  for (size_t i = 0; i < n; ++i) {
    x[i] = expf(x[i] - largest);
    sum += static_cast<double>(x[i]);
  }
  const float factor = static_cast<float>(1.0 / sum);
  for (size_t i = 0; i < n; ++i) x[i] *= factor;
  return static_cast<double>(largest) + log(sum);
}

void ExpEach(const float* x, float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] = expf(x[i]);
}

double SumSquares(const float* x, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

void AdamW(const AdamWArgs& a, const float* gradients, float* mean, float* variance, float* weights,
           size_t n) {
  const float rate = a.learning_rate * a.correct1;
  for (size_t i = 0; i < n; ++i) {
    const float g = gradients[i] * a.gradient_scale;
    mean[i] = a.beta1 * mean[i] + (1 - a.beta1) * g;
    variance[i] = a.beta2 * variance[i] + (1 - a.beta2) * g * g;
    weights[i] = a.keep * weights[i] - rate * (mean[i] / (sqrtf(variance[i] * a.correct2) + a.eps));
  }
}

}  // namespace
}  // namespace edgewise::kernels
