#include "train/loss.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "base/strings.h"
#include "kernels/kernels.h"
#include "train/top_k.h"

namespace edgewise::train {
namespace {

struct Named {
  const char* name;
  Divergence divergence;
};
constexpr size_t kChunk = 256;  // values whose exponentials are computed together

constexpr Named kDivergences[] = {{"kl", Divergence::kForwardKl},
                                  {"reverse-kl", Divergence::kReverseKl},
                                  {"jsd", Divergence::kJsd},
                                  {"skew-kl", Divergence::kSkewKl},
                                  {"skew-reverse-kl", Divergence::kSkewReverse}};

// log_p = x / temperature - log(sum exp(x / temperature)).
void LogSoftmax(const float* x, size_t n, float temperature, float* log_p) {
  for (size_t i = 0; i < n; ++i) log_p[i] = x[i] / temperature;
  const auto sum = static_cast<float>(kernels::Active().log_sum_exp(log_p, n));
  for (size_t i = 0; i < n; ++i) log_p[i] -= sum;
}

// log(exp(a) + exp(b)), where both may underflow.
float LogMix(float a, float b) {
  const float most = std::max(a, b), least = std::min(a, b);
  return most + std::log1p(std::exp(least - most));
}

// Returns D(p | q), and overwrites both. log_q becomes T^2 times the gradient by the student's
// logits: where v is the derivative by q, that is T q (v - sum q v).
double Diverge(const DistillationLoss& loss, size_t n, float* log_p, float* log_q) {
  const auto b = static_cast<float>(loss.beta), temperature = static_cast<float>(loss.temperature);
  double sum = 0, mean = 0;
  if (loss.divergence == Divergence::kForwardKl) {
    const kernels::Kernels& kernel = kernels::Active();
    float p[kChunk], q[kChunk];
    for (size_t first = 0; first < n; first += kChunk) {
      const size_t count = std::min(kChunk, n - first);
      const float* lp = log_p + first;
      float* lq = log_q + first;
      kernel.exp(lp, p, count);
      kernel.exp(lq, q, count);
      for (size_t i = 0; i < count; ++i) {
        if (p[i] > 0) sum += static_cast<double>(p[i]) * static_cast<double>(lp[i] - lq[i]);
        lq[i] = temperature * (q[i] - p[i]);
      }
    }
    return sum;
  }
  const float log_b = std::log(b), log_rest = std::log1p(-b);
  // First pass: the sums; log_p becomes v and log_q becomes q. Second: the gradient.
  const auto slope = [&](float lp, float lq, double* value) {
    const float p = std::exp(lp), q = std::exp(lq);
    switch (loss.divergence) {
      case Divergence::kReverseKl:
        *value = q > 0 ? static_cast<double>(q) * static_cast<double>(lq - lp) : 0;
        return lq - lp;
      case Divergence::kJsd: {
        const float log_m = LogMix(log_b + lp, log_rest + lq);
        *value = (p > 0 ? static_cast<double>(b * p) * static_cast<double>(lp - log_m) : 0) +
                 (q > 0 ? static_cast<double>((1 - b) * q) * static_cast<double>(lq - log_m) : 0);
        return (1 - b) * (lq - log_m);
      }
      case Divergence::kSkewKl: {
        const float log_m = LogMix(log_b + lp, log_rest + lq);
        *value = p > 0 ? static_cast<double>(p) * static_cast<double>(lp - log_m) : 0;
        return -(1 - b) * std::exp(lp - log_m);
      }
      case Divergence::kSkewReverse: {
        const float log_m = LogMix(log_b + lp, log_rest + lq);
        *value = q > 0 ? static_cast<double>(q) * static_cast<double>(lq - log_m) : 0;
        return lq - log_m - (1 - b) * std::exp(lq - log_m);
      }
      case Divergence::kForwardKl:
        break;
    }
    return 0.0f;
  };
  double value = 0;
  for (size_t i = 0; i < n; ++i) {
    log_p[i] = slope(log_p[i], log_q[i], &value);
    log_q[i] = std::exp(log_q[i]);
    sum += value;
    if (log_q[i] > 0) mean += static_cast<double>(log_q[i]) * static_cast<double>(log_p[i]);
  }
  for (size_t i = 0; i < n; ++i) {
    const float v = log_p[i], q = log_q[i];
    log_q[i] = q > 0 ? temperature * q * (v - static_cast<float>(mean)) : 0.0f;
  }
  return sum;
}

// Adds the hard label's share to a divergence of `soft`, whose gradient by the logits is given.
double WithHardLabel(const DistillationLoss& loss, size_t n, int32_t target, double soft,
                     const float* gradient, float scale, float* logits) {
  const auto soft_scale = static_cast<float>(loss.alpha) * scale;
  soft *= loss.temperature * loss.temperature;
  if (loss.alpha == 1 || target == kNoTarget) {
    for (size_t i = 0; i < n; ++i) logits[i] = soft_scale * gradient[i];
    return loss.alpha * soft;
  }
  const double hard = CrossEntropy(n, target, static_cast<float>(1 - loss.alpha) * scale, logits);
  for (size_t i = 0; i < n; ++i) logits[i] += soft_scale * gradient[i];
  return loss.alpha * soft + (1 - loss.alpha) * hard;
}

}  // namespace

Result<Divergence> ParseDivergence(std::string_view name) {
  std::vector<std::string> names;
  for (const Named& known : kDivergences) {
    if (name == known.name) return known.divergence;
    names.emplace_back(known.name);
  }
  return MakeError(Code::kInvalidArgument, "%s: no such divergence; known are %s",
                   Quote(name).c_str(), Join(names, ", ").c_str());
}

const char* DivergenceName(Divergence divergence) {
  return kDivergences[static_cast<size_t>(divergence)].name;
}

Status CheckLoss(const DistillationLoss& loss) {
  if (!(loss.alpha >= 0 && loss.alpha <= 1)) {
    return MakeError(Code::kInvalidArgument, "alpha must be from 0 to 1, not %g", loss.alpha);
  }
  if (!(loss.temperature >= 0.1 && loss.temperature <= 100)) {
    return MakeError(Code::kInvalidArgument, "the temperature must be from 0.1 to 100, not %g",
                     loss.temperature);
  }
  if (!(loss.beta > 0 && loss.beta < 1)) {
    return MakeError(Code::kInvalidArgument, "beta must be between 0 and 1, not %g", loss.beta);
  }
  return Ok{};
}

double CrossEntropy(size_t n, int32_t target, float scale, float* logits) {
  const kernels::Kernels& kernel = kernels::Active();
  const auto at = static_cast<size_t>(target);
  const auto chosen = static_cast<double>(logits[at]);
  const double loss = kernel.softmax(logits, n) - chosen;
  kernel.scale(scale, logits, n);
  logits[at] -= scale;
  return loss;
}

double Distillation(const DistillationLoss& loss, size_t n, int32_t target, const float* teacher,
                    float scale, float* logits, float* work) {
  float *log_p = work, *log_q = work + n;
  const auto temperature = static_cast<float>(loss.temperature);
  LogSoftmax(teacher, n, temperature, log_p);
  LogSoftmax(logits, n, temperature, log_q);
  const double soft = Diverge(loss, n, log_p, log_q);
  return WithHardLabel(loss, n, target, soft, log_q, scale, logits);
}

double DistillationTopK(const DistillationLoss& loss, size_t n, int32_t target,
                        std::span<const int32_t> ids, const float* log_p, float scale,
                        float* logits, float* work) {
  const kernels::Kernels& kernel = kernels::Active();
  const size_t k = ids.size(), outcomes = k + (k < n);
  float *log_q = work, *rest = work + n, *known_p = work + 2 * n, *known_q = known_p + k + 1;
  LogSoftmax(logits, n, static_cast<float>(loss.temperature), log_q);
  std::copy_n(log_p, outcomes, known_p);
  for (size_t i = 0; i < k; ++i) known_q[i] = log_q[ids[i]];
  if (k < n) {
    const size_t others = CopyOthers(log_q, n, ids, rest);
    known_q[k] = static_cast<float>(kernel.log_sum_exp(rest, others));
    for (size_t i = 0; i < n; ++i) log_q[i] = std::min(log_q[i] - known_q[k], 0.0f);
  }
  const double soft = Diverge(loss, outcomes, known_p, known_q);
  // The gradient of the rest falls to its tokens in the student's own proportions.
  if (k < n) {
    kernel.exp(log_q, log_q, n);
    kernel.scale(known_q[k], log_q, n);
  }
  for (size_t i = 0; i < k; ++i) log_q[ids[i]] = known_q[i];
  return WithHardLabel(loss, n, target, soft, log_q, scale, logits);
}

Result<double> CrossEntropyLoss::Rows(const Batch& batch, std::span<const uint32_t> rows,
                                      size_t vocab, float scale, float* logits) {
  losses_.resize(rows.size());
  pool_->ParallelFor(rows.size(), 1, [&](size_t begin, size_t end, int) {
    for (size_t i = begin; i < end; ++i) {
      losses_[i] = CrossEntropy(vocab, batch.targets[rows[i]], scale, logits + i * vocab);
    }
  });
  return std::accumulate(losses_.begin(), losses_.end(), 0.0);
}

Result<double> TeacherLoss::Rows(const Batch& batch, std::span<const uint32_t> rows, size_t vocab,
                                 float scale, float* logits) {
  Scratch& scratch = *scratch_;
  scratch.targets.resize(rows.size() * vocab);
  EW_TRY(teacher_->Logits(rows, scratch.targets.data()));
  scratch.losses.resize(rows.size());
  scratch.work.resize(static_cast<size_t>(pool_->size()) * 2 * vocab);
  pool_->ParallelFor(rows.size(), 1, [&](size_t begin, size_t end, int thread) {
    float* work = scratch.work.data() + static_cast<size_t>(thread) * 2 * vocab;
    for (size_t i = begin; i < end; ++i) {
      const bool sampled = !batch.sampled.empty() && batch.sampled[rows[i]] != 0;
      scratch.losses[i] =
          Distillation(loss_, vocab, sampled ? kNoTarget : batch.targets[rows[i]],
                       scratch.targets.data() + i * vocab, scale, logits + i * vocab, work);
    }
  });
  return std::accumulate(scratch.losses.begin(), scratch.losses.end(), 0.0);
}

TeacherLoss TeacherLoss::With(const DistillationLoss& loss) const {
  TeacherLoss other = *this;
  other.loss_ = loss;
  other.layers_ = nullptr;
  return other;
}

Status EachTeacherRows(Teacher* teacher, const Batch& batch, size_t vocab,
                       FunctionRef<Status(std::span<const uint32_t> rows, float* logits)> use) {
  std::vector<uint32_t> rows;
  for (size_t i = 0; i < batch.size(); ++i) {
    if (batch.targets[i] != kNoTarget) rows.push_back(static_cast<uint32_t>(i));
  }
  if (rows.empty()) return Ok{};
  EW_TRY(teacher->Begin(batch));
  std::vector<float> logits(std::min(rows.size(), kTeacherRows) * vocab);
  for (size_t first = 0; first < rows.size(); first += kTeacherRows) {
    const auto part = std::span<const uint32_t>(rows).subspan(first).first(
        std::min(kTeacherRows, rows.size() - first));
    EW_TRY(teacher->Logits(part, logits.data()));
    EW_TRY(use(part, logits.data()));
  }
  return Ok{};
}

}  // namespace edgewise::train
