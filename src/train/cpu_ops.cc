// Ops on the CPU. Work is cut by sizes alone and partial sums are added in order, so that results
// do not depend on threads.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/kernels.h"
#include "train/cpu_attention.h"
#include "train/cpu_relations.h"
#include "train/ops.h"

namespace edgewise::train {
namespace {

constexpr size_t kChunk = 256;            // values whose exponentials are computed together
constexpr size_t kRowGrain = 16;          // rows that a thread takes at once
constexpr size_t kValueGrain = 1 << 14;   // values of a run
constexpr size_t kColumnGrain = 64;       // columns of a sum over rows
constexpr size_t kStatisticsGrain = 128;  // vectors whose weight gradients are summed apart

// Rounded to the runs that values are cut into: sums do not depend on threads.
size_t Chunks(size_t n, size_t grain) { return (n + grain - 1) / grain; }

constexpr float kGeluScale = 0.7978845608028654f;  // sqrt(2 / pi)
constexpr float kGeluCubic = 0.044715f;

// splitmix64 of the position and the seed: uniform in [0, 2^32).
uint32_t Hash(uint64_t seed, uint64_t i) {
  uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return static_cast<uint32_t>((z ^ (z >> 31)) >> 32);
}

class CpuOps final : public Ops {
 public:
  CpuOps(ThreadPool* pool, Precision precision)
      : pool_(pool),
        kernel_(kernels::Active()),
        gemm_(pool, precision),
        attention_(pool, precision),
        relations_(pool, precision) {}

  void Multiply(const Matrix& a, const Matrix& b, size_t m, size_t n, size_t k, float* c,
                size_t c_stride, bool accumulate) override {
    gemm_.Multiply(a, b, m, n, k, c, c_stride, accumulate);
  }

  void AddBias(const float* bias, size_t rows, size_t n, Rows y) override {
    ForRows(rows, [&](size_t i) { kernel_.add(bias, y.row(i), n); });
  }

  void AddRowSums(ConstRows dy, size_t rows, size_t n, float* sum) override {
    pool_->ParallelFor(n, kColumnGrain, [&](size_t begin, size_t end, int) {
      for (size_t i = 0; i < rows; ++i) {
        kernel_.add(dy.row(i) + begin, sum + begin, end - begin);
      }
    });
  }

  void Embed(std::span<const int32_t> tokens, const float* table, size_t n, float scale,
             float* y) override {
    ForRows(tokens.size(), [&](size_t i) {
      std::memcpy(y + i * n, table + static_cast<size_t>(tokens[i]) * n, n * sizeof(float));
      if (scale != 1.0f) kernel_.scale(scale, y + i * n, n);
    });
  }

  void EmbedBackward(std::span<const int32_t> tokens, const float* dy, size_t n, float scale,
                     float* dtable) override {
    pool_->ParallelFor(n, kColumnGrain, [&](size_t begin, size_t end, int) {
      for (size_t i = 0; i < tokens.size(); ++i) {
        float* to = dtable + static_cast<size_t>(tokens[i]) * n;
        for (size_t c = begin; c < end; ++c) to[c] += scale * dy[i * n + c];
      }
    });
  }

  void Norm(const NormShape& shape, const NormWeights& weights, ConstRows x, Rows y,
            const NormStatistics& statistics) override;
  void NormBackward(const NormShape& shape, const NormWeights& weights, ConstRows x,
                    const NormStatistics& statistics, ConstRows dy, Rows dx, bool accumulate,
                    const NormGradients& gradients) override;

  void Rope(const RopeShape& shape, const float* cos, const float* sin, Rows x) override {
    Rotate(shape, cos, sin, x);
  }
  void RopeBackward(const RopeShape& shape, const float* cos, const float* sin, Rows dx) override {
    back_.resize(shape.rows * (shape.rotary_dim / 2));
    std::transform(sin, sin + back_.size(), back_.begin(), [](float s) { return -s; });
    Rotate(shape, cos, back_.data(), dx);
  }

  void Attend(const AttentionShape& shape, ConstRows qkv, Rows out, float* log_sums) override {
    attention_.Forward(shape, qkv, out, log_sums);
  }
  void AttendBackward(const AttentionShape& shape, ConstRows qkv, ConstRows out,
                      const float* log_sums, ConstRows dout, Rows dqkv) override {
    attention_.Backward(shape, qkv, out, log_sums, dout, dqkv);
  }
  void AttendLast(const AttentionShape& shape, std::span<const size_t> starts, ConstRows qkv,
                  Rows out, float* log_sums) override {
    attention_.ForwardLast(shape, starts, qkv, out, log_sums);
  }
  double MatchRelations(const RelationShape& shape, ConstRows target, ConstRows x, float scale,
                        Rows dx) override {
    return relations_.Match(shape, target, x, scale, dx);
  }

  void Glu(Activation activation, size_t rows, size_t n, const float* gate_up, float* y) override {
    const auto run = activation == Activation::kSilu ? kernel_.silu_mul : kernel_.gelu_tanh_mul;
    ForRows(rows, [&](size_t i) {
      const float* gate = gate_up + i * 2 * n;
      run(gate, gate + n, y + i * n, n);
    });
  }
  void GluBackward(Activation activation, size_t rows, size_t n, const float* gate_up,
                   const float* dy, float* dgate_up) override;

  void Add(const float* a, const float* b, size_t n, float* y) override {
    ForValues(n, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) y[i] = a[i] + b[i];
    });
  }

  void Dropout(float probability, uint64_t seed, size_t n, float* x) override {
    const auto bound = static_cast<uint32_t>(static_cast<double>(probability) * 4294967296.0);
    const float kept = 1.0f / (1.0f - probability);
    ForValues(n, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) x[i] = Hash(seed, i) < bound ? 0.0f : x[i] * kept;
    });
  }

  void Scale(float factor, size_t n, float* x) override {
    ForValues(n, [&](size_t begin, size_t end) { kernel_.scale(factor, x + begin, end - begin); });
  }

  void ScaleKept(const float* weights, float factor, size_t n, float* x) override {
    ForValues(n, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) x[i] = weights[i] == 0 ? 0.0f : factor * x[i];
    });
  }

  double SumOfSquares(const float* x, size_t n) override {
    const size_t chunks = Chunks(n, kValueGrain);
    sums_.assign(chunks, 0.0);
    pool_->ParallelFor(chunks, 1, [&](size_t begin, size_t end, int) {
      for (size_t c = begin; c < end; ++c) {
        const size_t first = c * kValueGrain;
        sums_[c] = kernel_.sum_squares(x + first, std::min(n - first, kValueGrain));
      }
    });
    double sum = 0;
    for (const double part : sums_) sum += part;
    return sum;
  }

  void Adam(const AdamStep& step, const float* gradients, size_t n, const Moments& moments,
            float* weights) override;

  void KeepZeros(const float* weights, const Moments& moments, size_t n,
                 float* gradients) override {
    const uint8_t* codes = moments.variance_codes;
    const uint8_t zero = MomentGrid::Unsigned().Encode(0);
    ForValues(n, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) {
        const bool unmoved = codes != nullptr ? codes[i] == zero : moments.variance[i] == 0;
        if (weights[i] == 0 && unmoved) gradients[i] = 0;
      }
    });
  }

  void Average(float decay, const float* weights, size_t n, float* average) override {
    ForValues(n, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) average[i] += (1 - decay) * (weights[i] - average[i]);
    });
  }

 private:
  template <class Body>
  void ForRows(size_t rows, Body&& body) {
    pool_->ParallelFor(rows, kRowGrain, [&](size_t begin, size_t end, int) {
      for (size_t i = begin; i < end; ++i) body(i);
    });
  }
  template <class Body>
  void ForValues(size_t n, Body&& body) {
    pool_->ParallelFor(n, kValueGrain, [&](size_t begin, size_t end, int) { body(begin, end); });
  }
  void Rotate(const RopeShape& shape, const float* cos, const float* sin, Rows x) {
    if (shape.kind == RopeKind::kNone) return;
    const auto rotate =
        shape.kind == RopeKind::kInterleaved ? kernel_.rope_interleaved : kernel_.rope_neox;
    const size_t pairs = shape.rotary_dim / 2;
    ForRows(shape.rows, [&](size_t i) {
      rotate(x.row(i), cos + i * pairs, sin + i * pairs, shape.heads, shape.head_dim,
             shape.rotary_dim);
    });
  }

  ThreadPool* pool_;
  const kernels::Kernels& kernel_;
  Gemm gemm_;
  CpuAttention attention_;
  CpuRelations relations_;
  std::vector<float> back_;     // sines of the rotation back
  std::vector<float> partial_;  // (chunks, 2, columns): weight gradients of runs of vectors
  std::vector<double> sums_;    // of runs of values
};

void CpuOps::Norm(const NormShape& shape, const NormWeights& weights, ConstRows x, Rows y,
                  const NormStatistics& statistics) {
  const size_t n = shape.columns;
  ForRows(shape.rows, [&](size_t row) {
    for (size_t g = 0; g < shape.groups; ++g) {
      const float* from = x.row(row) + g * n;
      float* to = y.row(row) + g * n;
      const size_t at = row * shape.groups + g;
      const double count = static_cast<double>(n);
      double mean = 0;
      if (shape.kind == NormKind::kLayer) {
        for (size_t i = 0; i < n; ++i) mean += static_cast<double>(from[i]);
        mean /= count;
      }
      const double squares = kernel_.sum_squares(from, n);
      const double variance = std::max(0.0, squares / count - mean * mean);
      const auto inverse =
          static_cast<float>(1 / std::sqrt(variance + static_cast<double>(shape.eps)));
      const auto center = static_cast<float>(mean);
      statistics.inverse_deviation[at] = inverse;
      if (statistics.mean != nullptr) statistics.mean[at] = center;
      for (size_t i = 0; i < n; ++i) to[i] = (from[i] - center) * inverse * weights.weight[i];
      if (weights.bias != nullptr) kernel_.add(weights.bias, to, n);
    }
  });
}

// With h = (x - mean) / deviation and g = dy * weight: dx = (g - mean(g) - h mean(g h)) /
// deviation, where RMSNorm has no mean(g).
void CpuOps::NormBackward(const NormShape& shape, const NormWeights& weights, ConstRows x,
                          const NormStatistics& statistics, ConstRows dy, Rows dx, bool accumulate,
                          const NormGradients& gradients) {
  const size_t n = shape.columns, chunks = Chunks(shape.count(), kStatisticsGrain);
  const bool layer = shape.kind == NormKind::kLayer;
  partial_.assign(chunks * 2 * n, 0.0f);
  pool_->ParallelFor(chunks, 1, [&](size_t begin, size_t end, int) {
    for (size_t at = begin * kStatisticsGrain; at < std::min(shape.count(), end * kStatisticsGrain);
         ++at) {
      const size_t row = at / shape.groups, first = at % shape.groups * n;
      const float *from = x.row(row) + first, *g = dy.row(row) + first;
      float *to = dx.row(row) + first, *dw = partial_.data() + at / kStatisticsGrain * 2 * n;
      float* db = dw + n;
      const float inverse = statistics.inverse_deviation[at];
      const float mean = layer ? statistics.mean[at] : 0;
      double sum = 0, product = 0;
      for (size_t i = 0; i < n; ++i) {
        const float h = (from[i] - mean) * inverse, weighted = g[i] * weights.weight[i];
        product += static_cast<double>(weighted) * static_cast<double>(h);
        dw[i] += g[i] * h;
      }
      for (size_t i = 0; layer && i < n; ++i) sum += static_cast<double>(g[i] * weights.weight[i]);
      if (gradients.bias != nullptr) kernel_.add(g, db, n);
      const auto count = static_cast<double>(n);
      const auto g_mean = layer ? static_cast<float>(sum / count) : 0.0f;
      const auto gh_mean = static_cast<float>(product / count);
      for (size_t i = 0; i < n; ++i) {
        const float h = (from[i] - mean) * inverse;
        const float d = inverse * (g[i] * weights.weight[i] - g_mean - h * gh_mean);
        to[i] = accumulate ? to[i] + d : d;
      }
    }
  });
  for (size_t c = 0; c < chunks; ++c) {
    const float* part = partial_.data() + c * 2 * n;
    if (gradients.weight != nullptr) kernel_.add(part, gradients.weight, n);
    if (gradients.bias != nullptr) kernel_.add(part + n, gradients.bias, n);
  }
}

// The derivatives of activations by their input g, and their values, for up to kChunk of them.
void Silu(const kernels::Kernels& kernel, size_t n, const float* g, float* value, float* slope) {
  float e[kChunk];
  for (size_t i = 0; i < n; ++i) e[i] = -g[i];
  kernel.exp(e, e, n);
  for (size_t i = 0; i < n; ++i) {
    const float s = 1 / (1 + e[i]);
    value[i] = g[i] * s;
    slope[i] = s * (1 + g[i] * (1 - s));
  }
}

void GeluTanh(const kernels::Kernels& kernel, size_t n, const float* g, float* value,
              float* slope) {
  float e[kChunk];  // tanh(x) = 1 - 2 / (exp(2 x) + 1)
  for (size_t i = 0; i < n; ++i) e[i] = 2 * kGeluScale * (g[i] + kGeluCubic * g[i] * g[i] * g[i]);
  kernel.exp(e, e, n);
  for (size_t i = 0; i < n; ++i) {
    const float t = 1 - 2 / (e[i] + 1), half = 0.5f * (1 + t);
    value[i] = g[i] * half;
    slope[i] = half + 0.5f * g[i] * (1 - t * t) * kGeluScale * (1 + 3 * kGeluCubic * g[i] * g[i]);
  }
}

void CpuOps::GluBackward(Activation activation, size_t rows, size_t n, const float* gate_up,
                         const float* dy, float* dgate_up) {
  const auto differentiate = activation == Activation::kSilu ? Silu : GeluTanh;
  ForRows(rows, [&](size_t row) {
    float value[kChunk], slope[kChunk];
    for (size_t first = 0; first < n; first += kChunk) {
      const size_t count = std::min(kChunk, n - first);
      const float *gate = gate_up + row * 2 * n + first, *up = gate + n, *d = dy + row * n + first;
      float *dgate = dgate_up + row * 2 * n + first, *dup = dgate + n;
      differentiate(kernel_, count, gate, value, slope);
      for (size_t i = 0; i < count; ++i) {
        dgate[i] = d[i] * up[i] * slope[i];
        dup[i] = d[i] * value[i];
      }
    }
  });
}

// One step of AdamW for values of floats.
class AdamRule {
 public:
  AdamRule(const AdamStep& s, const kernels::Kernels& kernel)
      : kernel_(kernel),
        decayed_(s.decayed),
        args_{.beta1 = s.beta1,
              .beta2 = s.beta2,
              .eps = s.eps,
              .gradient_scale = s.gradient_scale,
              .correct1 = static_cast<float>(1 / (1 - std::pow(double{s.beta1}, s.step))),
              .correct2 = static_cast<float>(1 / (1 - std::pow(double{s.beta2}, s.step))),
              .learning_rate = s.learning_rate,
              .keep = 1},
        decaying_(args_) {
    decaying_.keep = 1 - s.learning_rate * s.weight_decay;
  }

  // Of the values from `first` on in the run.
  void Run(size_t first, size_t n, const float* gradients, float* mean, float* variance,
           float* weights) const {
    const size_t decayed = std::clamp(decayed_, first, first + n) - first;
    kernel_.adamw(decaying_, gradients, mean, variance, weights, decayed);
    kernel_.adamw(args_, gradients + decayed, mean + decayed, variance + decayed, weights + decayed,
                  n - decayed);
  }

 private:
  const kernels::Kernels& kernel_;
  size_t decayed_;
  kernels::AdamWArgs args_, decaying_;
};

void CpuOps::Adam(const AdamStep& step, const float* gradients, size_t n, const Moments& moments,
                  float* weights) {
  const AdamRule rule(step, kernel_);
  if (moments.mean_codes == nullptr) {
    ForValues(n, [&](size_t begin, size_t end) {
      rule.Run(begin, end - begin, gradients + begin, moments.mean + begin,
               moments.variance + begin, weights + begin);
    });
    return;
  }
  const MomentGrid &means = MomentGrid::Signed(), &variances = MomentGrid::Unsigned();
  pool_->ParallelFor(MomentBlocks(n), kRowGrain, [&](size_t begin, size_t end, int) {
    float mean[kMomentBlock], variance[kMomentBlock];
    for (size_t b = begin; b < end; ++b) {
      const size_t first = b * kMomentBlock, count = std::min(kMomentBlock, n - first);
      uint8_t* mean_codes = moments.mean_codes + first;
      uint8_t* variance_codes = moments.variance_codes + first;
      means.DecodeBlock(mean_codes, moments.mean[b], count, mean);
      variances.DecodeBlock(variance_codes, moments.variance[b], count, variance);
      rule.Run(first, count, gradients + first, mean, variance, weights + first);
      moments.mean[b] = means.EncodeBlock(mean, count, mean_codes);
      moments.variance[b] = variances.EncodeBlock(variance, count, variance_codes);
    }
  });
}

}  // namespace

std::unique_ptr<Ops> MakeCpuOps(ThreadPool* pool, Precision precision) {
  return std::make_unique<CpuOps>(pool, precision);
}

}  // namespace edgewise::train
