#include "compress/prune/alps.h"

#include <Eigen/Core>
#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <utility>

#include "base/strings.h"
#include "compress/matrix.h"
#include "compress/prune/refit.h"
#include "compress/prune/select.h"
#include "compress/prune/sparsegpt.h"

namespace edgewise {
namespace {

constexpr size_t kRows = 32;      // that one piece of work takes together
constexpr int kRhoEvery = 3;      // iterations
constexpr int kPatience = 30;     // iterations before a nearly stable mask is enough
constexpr double kStable = 3e-4;  // changes of the mask, as a share of what is kept
constexpr double kLowestRho = 1e-6, kHighestRho = 1e6;

void ForChunks(size_t rows, ThreadPool* pool, FunctionRef<void(size_t first, size_t count)> body) {
  pool->ParallelFor((rows + kRows - 1) / kRows, 1, [&](size_t begin, size_t end, int) {
    for (size_t chunk = begin; chunk < end; ++chunk) {
      body(chunk * kRows, std::min(kRows, rows - chunk * kRows));
    }
  });
}

// Minimizes |B - W|^2 in the metric under B = D with D sparse. Of ADMM's variables only Z = B + V /
// rho is kept: D is Z where the mask keeps, and V is rho Z where it prunes.
class Admm {
 public:
  Admm(std::vector<float> w, const SpectralMetric& metric, const Sparsity& sparsity,
       const AlpsOptions& options, ThreadPool* pool, const Mask* within)
      : w_(std::move(w)),
        n_(metric.n()),
        rows_(w_.size() / n_),
        metric_(metric),
        sparsity_(sparsity),
        options_(options),
        pool_(pool),
        within_(within),
        target_(w_.size()),
        inverse_(n_ * n_) {}

  // Writes values (rows, n), scaled as `w` is, and their mask.
  Status Run(std::vector<float>* values, Mask* mask);

 private:
  Result<Mask> Project() const;
  void Iterate();
  void SetRho(double rho);

  std::vector<float> w_;  // (rows, n), columns multiplied by the metric's scale
  size_t n_, rows_;
  const SpectralMetric& metric_;
  const Sparsity& sparsity_;
  const AlpsOptions& options_;
  ThreadPool* pool_;
  const Mask* within_;          // null: all
  std::vector<float> target_;   // (rows, n): W H
  std::vector<float> inverse_;  // (n, n)
  std::vector<float> z_;        // (rows, n)
  Mask mask_;
  double rho_ = 0;
  double dual_rho_ = 0;  // V = dual_rho Z where pruned: the rho of the iteration before
};

void Admm::SetRho(double rho) {
  rho_ = rho;
  metric_.Inverse(rho, pool_, inverse_);
}

Result<Mask> Admm::Project() const {
  std::vector<float> scores(z_.size());
  for (size_t i = 0; i < scores.size(); ++i) {
    const bool may = within_ == nullptr || within_->kept(i / n_, i % n_);
    scores[i] = may ? std::fabs(z_[i]) : 0;
  }
  EW_TRY(Mask mask, SelectMask(scores, n_, sparsity_, PruneScope::kMatrix, pool_));
  if (within_ != nullptr) mask &= *within_;
  return mask;
}

// B = (W H - V + rho D) (H + rho)^-1, Z = B + V / rho.
void Admm::Iterate() {
  const auto rho = static_cast<float>(rho_), dual = static_cast<float>(dual_rho_);
  const float carried = dual / rho;
  ForChunks(rows_, pool_, [&](size_t first, size_t count) {
    std::vector<float> right(count * n_), b(count * n_);
    float* z = z_.data() + first * n_;
    const float* target = target_.data() + first * n_;
    for (size_t row = 0, i = 0; row < count; ++row) {
      for (size_t c = 0; c < n_; ++c, ++i) {
        const bool kept = mask_.kept(first + row, c);
        right[i] = target[i] + (kept ? rho : -dual) * z[i];
        z[i] *= kept ? 0 : carried;
      }
    }
    MultiplyTransposed(inverse_.data(), n_, n_, right.data(), n_, count, n_, b.data(), n_);
    for (size_t i = 0; i < right.size(); ++i) z[i] += b[i];
  });
  dual_rho_ = rho_;
}

Status Admm::Run(std::vector<float>* values, Mask* mask) {
  ForChunks(rows_, pool_, [&](size_t first, size_t count) {
    MultiplyTransposed(metric_.h(), n_, n_, w_.data() + first * n_, n_, count, n_,
                       target_.data() + first * n_, n_);
  });
  z_ = w_;
  EW_TRY(const Mask start, Project());
  mask_ = start;
  Mask checked = start;
  SetRho(options_.rho);
  bool moved = false;  // the mask has changed: rho is not too high
  for (int i = 1; i <= options_.iterations; ++i) {
    Iterate();
    EW_TRY(mask_, Project());
    if (i % kRhoEvery != 0) continue;
    const double change = static_cast<double>(mask_.CountDifferent(checked)) /
                          static_cast<double>(std::max<size_t>(1, mask_.CountKept()));
    moved = moved || change > 0.005;
    if (!moved) {
      if (rho_ < kLowestRho) break;
      SetRho(rho_ / 5);
      z_ = w_;
      mask_ = checked = start;
      dual_rho_ = 0;
      continue;
    }
    if (change == 0 || (i > kPatience && change < kStable)) break;
    checked = mask_;
    SetRho(std::min(kHighestRho, rho_ * (change > 0.1 ? 1.3 : change > 0.005 ? 1.2 : 1.1)));
  }
  mask_.Apply(z_);
  *values = std::move(z_);
  *mask = std::move(mask_);
  return Ok{};
}

}  // namespace

Result<SpectralMetric> SpectralMetric::Create(const InputMetric& input) {
  SpectralMetric spectral;
  spectral.input_ = &input;
  const size_t n = input.n();
  spectral.scale_.resize(n);
  for (size_t j = 0; j < n; ++j) spectral.scale_[j] = std::sqrt(input.metric.h(j)[j]);
  spectral.h_.resize(n * n);
  Eigen::MatrixXd h(n, n);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) {
      const float value = input.metric.h(i)[j] / spectral.scale_[i] / spectral.scale_[j];
      spectral.h_[i * n + j] = value;
      h(static_cast<Eigen::Index>(i), static_cast<Eigen::Index>(j)) = value;
    }
  }
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(h);
  if (solver.info() != Eigen::Success) {
    return MakeError(Code::kBadData,
                     "the second moments of the activations have no eigenvalues: calibrate with "
                     "other text, or prune with sparsegpt");
  }
  spectral.values_.assign(solver.eigenvalues().begin(), solver.eigenvalues().end());
  spectral.vectors_.resize(n * n);
  for (size_t i = 0; i < n * n; ++i) {
    spectral.vectors_[i] = static_cast<float>(
        solver.eigenvectors()(static_cast<Eigen::Index>(i / n), static_cast<Eigen::Index>(i % n)));
  }
  return spectral;
}

void SpectralMetric::Inverse(double rho, ThreadPool* pool, std::span<float> inverse) const {
  const size_t size = n();
  std::vector<float> factors(size);
  for (size_t k = 0; k < size; ++k) {
    factors[k] = static_cast<float>(1 / (std::max(values_[k], 0.0) + rho));
  }
  ForChunks(size, pool, [&](size_t first, size_t count) {
    std::vector<float> scaled(count * size);
    for (size_t i = 0; i < scaled.size(); ++i) {
      scaled[i] = vectors_[first * size + i] * factors[i % size];
    }
    MultiplyTransposed(vectors_.data(), size, size, scaled.data(), size, count, size,
                       inverse.data() + first * size, size);
  });
}

Result<PrunedMatrix> PruneAlps(std::span<const float> w, const SpectralMetric& metric,
                               const Sparsity& sparsity, const AlpsOptions& options,
                               ThreadPool* pool, const Mask* within) {
  const InputMetric& input = metric.input();
  const size_t n = input.n();
  EW_TRY(PrunedMatrix best, PruneSparseGpt(w, input, sparsity, nullptr, pool, within));
  EW_TRY(const std::vector<float> live, input.LiveWeights(w));
  const std::span<const float> h(input.metric.h(0), n * n);
  best.error = ReconstructionError(live, best.values, h, n, pool);
  const auto offer = [&](PrunedMatrix candidate) {
    RefitKept(live, input.metric, candidate.mask, options.refit_steps, pool, candidate.values);
    candidate.error = ReconstructionError(live, candidate.values, h, n, pool);
    if (candidate.error < best.error) best = std::move(candidate);
  };
  offer(best);
  std::vector<float> scaled = live;
  for (size_t i = 0; i < scaled.size(); ++i) scaled[i] *= metric.scale()[i % n];
  PrunedMatrix found;
  EW_TRY(Admm(std::move(scaled), metric, sparsity, options, pool, within)
             .Run(&found.values, &found.mask));
  for (size_t i = 0; i < found.values.size(); ++i) found.values[i] /= metric.scale()[i % n];
  offer(std::move(found));
  return best;
}

}  // namespace edgewise
