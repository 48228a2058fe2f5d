// Norms, rotary position embedding, activations and sums, written once over the float vectors S of
// an instruction set (Avx2Floats, Avx512Floats, NeonFloats): V holds kWidth floats, D as many
// doubles.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/kernels.h"

namespace edgewise::kernels {
namespace {

// ---- remainders: vectors shorter than kWidth, padded with zeros ----

template <class S>
inline typename S::V LoadPart(const float* p, size_t count) {
  float buffer[S::kWidth] = {};
  memcpy(buffer, p, count * sizeof(float));
  return S::Load(buffer);
}

template <class S>
inline void StorePart(float* p, typename S::V v, size_t count) {
  float buffer[S::kWidth];
  S::Store(buffer, v);
  memcpy(p, buffer, count * sizeof(float));
}

// y[i] = op(x[i]).
template <class S, class Op>
inline void Map(const float* x, float* y, size_t n, Op op) {
  size_t i = 0;
  for (; i + S::kWidth <= n; i += S::kWidth) S::Store(y + i, op(S::Load(x + i)));
  if (i < n) StorePart<S>(y + i, op(LoadPart<S>(x + i, n - i)), n - i);
}

// y[i] = op(a[i], b[i]).
template <class S, class Op>
inline void Map2(const float* a, const float* b, float* y, size_t n, Op op) {
  size_t i = 0;
  for (; i + S::kWidth <= n; i += S::kWidth) S::Store(y + i, op(S::Load(a + i), S::Load(b + i)));
  if (i < n) {
    StorePart<S>(y + i, op(LoadPart<S>(a + i, n - i), LoadPart<S>(b + i, n - i)), n - i);
  }
}

// ---- elementary functions ----

// e^x = 2^k e^r, |r| <= ln 2 / 2, with a polynomial of degree 6: within 2 ulp. Infinite
// above 88.73, rounds to subnormals and zero below; NaN stays NaN.
template <class S>
inline typename S::V Exp(typename S::V x) {
  x = S::Min(S::Set(89.0f), S::Max(S::Set(-104.0f), x));
  const typename S::V k = S::Round(S::Mul(x, S::Set(1.44269504088896341f)));
  typename S::V r = S::Fnma(k, S::Set(0.693359375f), x);
  r = S::Fnma(k, S::Set(-2.12194440054690583e-4f), r);
  typename S::V p = S::Set(1.3926213141530752e-3f);
  p = S::Fma(p, r, S::Set(8.363203145563602e-3f));
  p = S::Fma(p, r, S::Set(4.1666556149721146e-2f));
  p = S::Fma(p, r, S::Set(1.6666576266288757e-1f));
  p = S::Fma(p, r, S::Set(0.5f));
  const typename S::V tail = S::Fma(S::Mul(r, r), p, r);
  return S::TimesPow2(S::Add(tail, S::Set(1.0f)), k);
}

// Within 3 ulp: an odd polynomial below 0.6, where 1 - 2 / (e^2x + 1) would cancel.
template <class S>
inline typename S::V Tanh(typename S::V x) {
  const typename S::V z = S::Mul(x, x);
  typename S::V p = S::Set(-6.269119679927826e-3f);
  p = S::Fma(p, z, S::Set(2.1110959351062775e-2f));
  p = S::Fma(p, z, S::Set(-5.3873948752880096e-2f));
  p = S::Fma(p, z, S::Set(1.3332915306091309e-1f));
  p = S::Fma(p, z, S::Set(-3.333333134651184e-1f));
  const typename S::V small = S::Fma(S::Mul(p, z), x, x);
  const typename S::V magnitude = S::Abs(x);
  const typename S::V e = Exp<S>(S::Add(magnitude, magnitude));
  const typename S::V large = S::Sub(S::Set(1.0f), S::Div(S::Set(2.0f), S::Add(e, S::Set(1.0f))));
  return S::SelectLess(magnitude, S::Set(0.6f), small, S::CopySign(large, x));
}

// x / (1 + e^-t).
template <class S>
inline typename S::V TimesSigmoid(typename S::V x, typename S::V t) {
  const typename S::V e = Exp<S>(S::Sub(S::Zero(), t));
  return S::Div(x, S::Add(S::Set(1.0f), e));
}

// ---- the operations ----

template <class S>
struct VectorOps {
  using V = typename S::V;
  static constexpr size_t W = S::kWidth;

  static float DotF32(const float* a, const float* b, size_t n) {
    V sum[4] = {S::Zero(), S::Zero(), S::Zero(), S::Zero()};
    size_t i = 0;
    for (; i + 4 * W <= n; i += 4 * W) {
      for (size_t u = 0; u < 4; ++u) {
        sum[u] = S::Fma(S::Load(a + i + u * W), S::Load(b + i + u * W), sum[u]);
      }
    }
    for (; i + W <= n; i += W) sum[0] = S::Fma(S::Load(a + i), S::Load(b + i), sum[0]);
    if (i < n) sum[1] = S::Fma(LoadPart<S>(a + i, n - i), LoadPart<S>(b + i, n - i), sum[1]);
    return S::Sum(S::Add(S::Add(sum[0], sum[1]), S::Add(sum[2], sum[3])));
  }

  static void RmsNorm(const float* x, const float* weight, float* y, size_t n, float eps) {
    const double mean = SumSquares(x, n) / static_cast<double>(n);
    const V factor = S::Set(static_cast<float>(1.0 / sqrt(mean + static_cast<double>(eps))));
    if (weight) {
      Map2<S>(x, weight, y, n, [factor](V v, V w) { return S::Mul(S::Mul(v, factor), w); });
    } else {
      Map<S>(x, y, n, [factor](V v) { return S::Mul(v, factor); });
    }
  }

  static void LayerNorm(const float* x, const float* weight, const float* bias, float* y, size_t n,
                        float eps) {
    typename S::D sum = S::ZeroD();
    size_t i = 0;
    for (; i + W <= n; i += W) sum = S::AddD(sum, S::Load(x + i));
    if (i < n) sum = S::AddD(sum, LoadPart<S>(x + i, n - i));
    const V mean = S::Set(static_cast<float>(S::SumD(sum) / static_cast<double>(n)));
    typename S::D squares = S::ZeroD();
    for (i = 0; i + W <= n; i += W) squares = S::AddSquareD(squares, S::Sub(S::Load(x + i), mean));
    double rest = 0;
    const float center = Lane0(mean);
    for (; i < n; ++i) {
      const double d = static_cast<double>(x[i] - center);
      rest += d * d;
    }
    const double variance = (S::SumD(squares) + rest) / static_cast<double>(n);
    const V factor = S::Set(static_cast<float>(1.0 / sqrt(variance + static_cast<double>(eps))));
    const auto normalize = [mean, factor](V v) { return S::Mul(S::Sub(v, mean), factor); };
    if (weight) {
      Map2<S>(x, weight, y, n, [normalize](V v, V w) { return S::Mul(normalize(v), w); });
    } else {
      Map<S>(x, y, n, normalize);
    }
    if (bias) Map2<S>(y, bias, y, n, [](V v, V b) { return S::Add(v, b); });
  }

  static float Lane0(V v) {
    float buffer[W];
    S::Store(buffer, v);
    return buffer[0];
  }

  static void RopeInterleaved(float* x, const float* cos, const float* sin, size_t heads,
                              size_t head_dim, size_t rotary_dim) {
    const size_t pairs = rotary_dim / 2;
    for (size_t h = 0; h < heads; ++h, x += head_dim) {
      size_t i = 0;
      for (; i + W / 2 <= pairs; i += W / 2) {
        const V v = S::Load(x + 2 * i);
        const V s = S::AlternateSign(S::DuplicatePairs(sin + i));
        S::Store(x + 2 * i, S::Fma(v, S::DuplicatePairs(cos + i), S::Mul(S::SwapPairs(v), s)));
      }
      for (; i < pairs; ++i) {
        const float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * cos[i] - b * sin[i];
        x[2 * i + 1] = a * sin[i] + b * cos[i];
      }
    }
  }

  static void RopeNeox(float* x, const float* cos, const float* sin, size_t heads, size_t head_dim,
                       size_t rotary_dim) {
    const size_t half = rotary_dim / 2;
    for (size_t h = 0; h < heads; ++h, x += head_dim) {
      size_t i = 0;
      for (; i + W <= half; i += W) {
        const V a = S::Load(x + i), b = S::Load(x + half + i);
        const V c = S::Load(cos + i), s = S::Load(sin + i);
        S::Store(x + i, S::Fnma(b, s, S::Mul(a, c)));
        S::Store(x + half + i, S::Fma(a, s, S::Mul(b, c)));
      }
      for (; i < half; ++i) {
        const float a = x[i], b = x[half + i];
        x[i] = a * cos[i] - b * sin[i];
        x[half + i] = a * sin[i] + b * cos[i];
      }
    }
  }

  static void SiluMul(const float* gate, const float* up, float* y, size_t n) {
    Map2<S>(gate, up, y, n, [](V g, V u) { return S::Mul(TimesSigmoid<S>(g, g), u); });
  }

  // 0.5 * (1 + tanh(t)) = sigmoid(2 t).
  static void GeluTanhMul(const float* gate, const float* up, float* y, size_t n) {
    Map2<S>(gate, up, y, n, [](V g, V u) {
      const V cubic = S::Mul(S::Mul(S::Mul(S::Set(0.044715f), g), g), g);
      const V t = S::Mul(S::Set(2.0f * 0.797884560802865356f), S::Add(g, cubic));
      return S::Mul(TimesSigmoid<S>(g, t), u);
    });
  }

  static void Add(const float* x, float* y, size_t n) {
    Map2<S>(x, y, y, n, [](V a, V b) { return S::Add(b, a); });
  }

  static void Scale(float factor, float* y, size_t n) {
    const V f = S::Set(factor);
    Map<S>(y, y, n, [f](V v) { return S::Mul(v, f); });
  }

  static void Softcap(float cap, float* y, size_t n) {
    const V c = S::Set(cap);
    Map<S>(y, y, n, [c](V v) { return S::Mul(c, Tanh<S>(S::Div(v, c))); });
  }

  static void F32ToF16(const float* x, uint16_t* y, size_t n) {
    size_t i = 0;
    for (; i + W <= n; i += W) S::StoreF16(y + i, S::Load(x + i));
    if (i < n) {
      uint16_t buffer[W];
      S::StoreF16(buffer, LoadPart<S>(x + i, n - i));
      memcpy(y + i, buffer, (n - i) * sizeof(uint16_t));
    }
  }

  static float Largest(const float* x, size_t n) {
    V lanes = S::Set(-INFINITY);
    size_t i = 0;
    for (; i + W <= n; i += W) lanes = S::Max(S::Load(x + i), lanes);
    float largest = S::Largest(lanes);
    for (; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
    return largest;
  }

  // The sum of exp(x - shift), each also given to keep(i, values, count).
  template <class Keep>
  static double SumExp(const float* x, size_t n, float shift, Keep keep) {
    const V s = S::Set(shift);
    typename S::D sum = S::ZeroD();
    size_t i = 0;
    for (; i + W <= n; i += W) {
      const V e = Exp<S>(S::Sub(S::Load(x + i), s));
      sum = S::AddD(sum, e);
      keep(i, e, W);
    }
    double rest = 0;
    if (i < n) {
      float buffer[W];
      const V e = Exp<S>(S::Sub(LoadPart<S>(x + i, n - i), s));
      S::Store(buffer, e);
      for (size_t r = 0; r < n - i; ++r) rest += static_cast<double>(buffer[r]);
      keep(i, e, n - i);
    }
    return S::SumD(sum) + rest;
  }

  static double LogSumExp(const float* x, size_t n) {
    const float largest = Largest(x, n);
    if (largest == -INFINITY) return static_cast<double>(largest);
    return static_cast<double>(largest) + log(SumExp(x, n, largest, [](size_t, V, size_t) {}));
  }

  static double Softmax(float* x, size_t n) {
    const float largest = Largest(x, n);
    const double sum = SumExp(x, n, largest, [x](size_t i, V e, size_t count) {
      if (count == W) return S::Store(x + i, e);
      StorePart<S>(x + i, e, count);
    });
    Scale(static_cast<float>(1.0 / sum), x, n);
    return static_cast<double>(largest) + log(sum);
  }

  static void ExpEach(const float* x, float* y, size_t n) {
    Map<S>(x, y, n, [](V v) { return Exp<S>(v); });
  }

  static double SumSquares(const float* x, size_t n) {
    typename S::D squares = S::ZeroD();
    size_t i = 0;
    for (; i + W <= n; i += W) squares = S::AddSquareD(squares, S::Load(x + i));
    if (i < n) squares = S::AddSquareD(squares, LoadPart<S>(x + i, n - i));
    return S::SumD(squares);
  }

  static void AdamW(const AdamWArgs& args, const float* gradients, float* mean, float* variance,
                    float* weights, size_t n) {
    const V beta1 = S::Set(args.beta1), rest1 = S::Set(1 - args.beta1);
    const V beta2 = S::Set(args.beta2), rest2 = S::Set(1 - args.beta2);
    const V scale = S::Set(args.gradient_scale), eps = S::Set(args.eps);
    const V correct2 = S::Set(args.correct2), keep = S::Set(args.keep);
    const V rate = S::Set(args.learning_rate * args.correct1);
    const auto step = [&](V gradient, V& m, V& v, V& w) {
      const V g = S::Mul(gradient, scale);
      m = S::Fma(beta1, m, S::Mul(rest1, g));
      v = S::Fma(beta2, v, S::Mul(S::Mul(rest2, g), g));
      const V root = S::Add(S::Sqrt(S::Mul(v, correct2)), eps);
      w = S::Fnma(rate, S::Div(m, root), S::Mul(keep, w));
    };
    size_t i = 0;
    for (; i + W <= n; i += W) {
      V m = S::Load(mean + i), v = S::Load(variance + i), w = S::Load(weights + i);
      step(S::Load(gradients + i), m, v, w);
      S::Store(mean + i, m);
      S::Store(variance + i, v);
      S::Store(weights + i, w);
    }
    if (i == n) return;
    V m = LoadPart<S>(mean + i, n - i), v = LoadPart<S>(variance + i, n - i);
    V w = LoadPart<S>(weights + i, n - i);
    step(LoadPart<S>(gradients + i, n - i), m, v, w);
    StorePart<S>(mean + i, m, n - i);
    StorePart<S>(variance + i, v, n - i);
    StorePart<S>(weights + i, w, n - i);
  }
};

template <class S>
constexpr void SetVectorKernels(Kernels* t) {
  using Ops = VectorOps<S>;
  t->dot_f32 = Ops::DotF32;
  t->rms_norm = Ops::RmsNorm;
  t->layer_norm = Ops::LayerNorm;
  t->rope_interleaved = Ops::RopeInterleaved;
  t->rope_neox = Ops::RopeNeox;
  t->silu_mul = Ops::SiluMul;
  t->gelu_tanh_mul = Ops::GeluTanhMul;
  t->add = Ops::Add;
  t->scale = Ops::Scale;
  t->softcap = Ops::Softcap;
  t->f32_to_f16 = Ops::F32ToF16;
  t->log_sum_exp = Ops::LogSumExp;
  t->softmax = Ops::Softmax;
  t->exp = Ops::ExpEach;
  t->sum_squares = Ops::SumSquares;
  t->adamw = Ops::AdamW;
}

}  // namespace
}  // namespace edgewise::kernels
