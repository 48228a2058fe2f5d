#include "compress/prune/alps.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>

#include "compress/prune/problem.h"
#include "compress/prune/refit.h"
#include "compress/prune/score.h"
#include "compress/prune/select.h"
#include "compress/prune/sparsegpt.h"

namespace edgewise {
namespace {

std::vector<float> Masked(const Problem& p, ScoreMethod method, const Sparsity& sparsity) {
  ThreadPool pool(1);
  const auto scores = Scores(method, p.w, p.n, ColumnNorms(p.moments), 0);
  const auto scope = method == ScoreMethod::kMagnitude ? PruneScope::kMatrix : PruneScope::kRow;
  std::vector<float> values = p.w;
  SelectMask(*scores, p.n, sparsity, scope, &pool)->Apply(values);
  return values;
}

TEST_CASE("errors fall from magnitude over Wanda and SparseGPT to ALPS") {
  ThreadPool pool(2);
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    const Problem p(24 + seed, 96, seed, seed == 3 ? 50 : SIZE_MAX);
    const InputMetric input = p.Metric();
    const auto spectral = SpectralMetric::Create(input);
    REQUIRE(spectral.has_value());
    for (const char* text : {"0.3", "0.5", "0.8", "2:4", "4:8", "1:4"}) {
      CAPTURE(seed);
      CAPTURE(text);
      const auto sparsity = Sparsity::Parse(text);
      const auto sparse = PruneSparseGpt(p.w, input, *sparsity, nullptr, &pool);
      const auto alps = PruneAlps(p.w, *spectral, *sparsity, {}, &pool);
      REQUIRE(alps.has_value());
      CHECK(alps->mask.Holds(*sparsity));
      CHECK(alps->mask.CountKept() == p.w.size() - sparsity->PrunedOf(p.w.size()));
      for (size_t i = 0; i < p.w.size(); ++i) {
        if (!alps->mask.kept(i / p.n, i % p.n)) CHECK(alps->values[i] == 0);
      }
      CHECK(alps->error < 0.9 * sparse->error);
      CHECK(p.Error(alps->values) < 0.9 * p.Error(sparse->values));
      const double wanda = p.Error(Masked(p, ScoreMethod::kWanda, *sparsity));
      CHECK(p.Error(sparse->values) < 0.9 * wanda);
      CHECK(wanda < 0.9 * p.Error(Masked(p, ScoreMethod::kMagnitude, *sparsity)));
    }
  }
}

TEST_CASE("the mask is near the best of all") {
  ThreadPool pool(1);
  constexpr size_t kN = 12, kKept = 6;
  double best_of_all = 0, by_alps = 0;
  for (uint64_t seed = 10; seed < 20; ++seed) {
    const Problem p(1, kN, seed);
    const InputMetric input = p.Metric();
    const auto spectral = SpectralMetric::Create(input);
    const auto half = Sparsity::Parse("0.5");
    const double alps = PruneAlps(p.w, *spectral, *half, {}, &pool)->error;
    double best = alps;
    for (uint32_t bits = 0; bits < 1u << kN; ++bits) {
      if (std::popcount(bits) != kKept) continue;
      Mask mask(1, kN, false);
      for (size_t c = 0; c < kN; ++c) {
        if ((bits >> c & 1) != 0) mask.Keep(0, c);
      }
      std::vector<float> values = p.w;
      mask.Apply(values);
      RefitKept(p.w, input.metric, mask, 50, &pool, values);
      best =
          std::min(best, ReconstructionError(p.w, values, {input.metric.h(0), kN * kN}, kN, &pool));
    }
    best_of_all += best;
    by_alps += alps;
  }
  CHECK(by_alps < 1.2 * best_of_all);  // SparseGPT: 2.4
}

TEST_CASE("what ALPS found, rounded on its mask, beats pruning and rounding in one sweep") {
  const Problem p(40, 128, 9);
  const InputMetric input = p.Metric();
  const auto spectral = SpectralMetric::Create(input);
  ThreadPool pool(2);
  for (const char* text : {"0.5", "2:4"}) {
    const auto sparsity = Sparsity::Parse(text);
    auto rounder = IntegerRounder::Create(4, 64, p.rows, p.n);
    const auto joint = PruneSparseGpt(p.w, input, *sparsity, &*rounder, &pool);
    const auto alps = PruneAlps(p.w, *spectral, *sparsity, {}, &pool);
    const auto rounded = UpdateForMask(alps->values, input, alps->mask, &*rounder, &pool);
    REQUIRE(rounded.has_value());
    CHECK(rounded->mask == alps->mask);
    CHECK(p.Error(rounded->values) < 0.8 * p.Error(joint->values));
    for (size_t i = 0; i < p.w.size(); ++i) {
      CHECK(rounder->Round(i / p.n, i % p.n, rounded->values[i]) == rounded->values[i]);
    }
  }
}

TEST_CASE("without ADMM the refitted mask of SparseGPT is left") {
  const Problem p(16, 64, 5);
  ThreadPool pool(1);
  const InputMetric input = p.Metric();
  const auto spectral = SpectralMetric::Create(input);
  const auto sparsity = Sparsity::Parse("0.5");
  const auto sparse = PruneSparseGpt(p.w, input, *sparsity, nullptr, &pool);
  // A penalty this high keeps what it starts with: the mask of scaled magnitudes.
  const auto alps = PruneAlps(p.w, *spectral, *sparsity, {.rho = 1e5, .iterations = 1}, &pool);
  REQUIRE(alps.has_value());
  CHECK(alps->error < sparse->error);
}

TEST_CASE("many steps of refitting solve the normal equations of the mask") {
  const Problem p(35, 64, 6);
  ThreadPool one(1), three(3);
  const InputMetric input = p.Metric();
  const auto scores = Scores(ScoreMethod::kWanda, p.w, p.n, ColumnNorms(p.moments), 0);
  const Mask mask = *SelectMask(*scores, p.n, *Sparsity::Parse("0.5"), PruneScope::kRow, &one);
  std::vector<float> values = p.w;
  mask.Apply(values);
  const std::vector<float> start = values;
  const std::span<const float> h(input.metric.h(0), p.n * p.n);
  double last = ReconstructionError(p.w, values, h, p.n, &one);
  for (const int steps : {1, 3, 10, 100}) {
    values = start;
    RefitKept(p.w, input.metric, mask, steps, &one, values);
    const double error = ReconstructionError(p.w, values, h, p.n, &one);
    CHECK(error <= last * (1 + 1e-5));
    last = error;
    std::vector<float> same = start;
    RefitKept(p.w, input.metric, mask, steps, &three, same);
    CHECK(same == values);
  }
  double largest = 0, worst = 0;
  for (size_t r = 0; r < p.rows; ++r) {
    for (size_t c = 0; c < p.n; ++c) {
      double slope = 0, size = 0;
      for (size_t k = 0; k < p.n; ++k) {
        const double off = static_cast<double>(p.w[r * p.n + k]) - values[r * p.n + k];
        slope += off * input.metric.h(c)[k];
        size += std::fabs(off * input.metric.h(c)[k]);
      }
      largest = std::max(largest, size);
      if (mask.kept(r, c)) worst = std::max(worst, std::fabs(slope));
    }
  }
  CHECK(worst < 1e-4 * largest);
}

TEST_CASE("the number of threads changes no bit of ALPS") {
  const Problem p(70, 72, 7);
  const InputMetric input = p.Metric();
  const auto spectral = SpectralMetric::Create(input);
  ThreadPool one(1);
  for (const char* text : {"0.6", "2:4"}) {
    const auto alone = PruneAlps(p.w, *spectral, *Sparsity::Parse(text), {}, &one);
    for (const int threads : {2, 3}) {
      ThreadPool pool(threads);
      const auto same = PruneAlps(p.w, *spectral, *Sparsity::Parse(text), {}, &pool);
      CHECK(same->values == alone->values);
      CHECK(same->mask == alone->mask);
    }
  }
}

TEST_CASE("the inverse is that of the shifted second moments") {
  const Problem p(1, 40, 8);
  const InputMetric input = p.Metric();
  const auto spectral = SpectralMetric::Create(input);
  ThreadPool pool(2);
  std::vector<float> inverse(p.n * p.n);
  spectral->Inverse(0.3, &pool, inverse);
  double worst = 0;
  for (size_t i = 0; i < p.n; ++i) {
    CHECK(spectral->h()[i * p.n + i] == doctest::Approx(1));
    for (size_t j = 0; j < p.n; ++j) {
      double product = 0.3 * inverse[i * p.n + j];
      for (size_t k = 0; k < p.n; ++k) product += spectral->h()[i * p.n + k] * inverse[k * p.n + j];
      worst = std::max(worst, std::fabs(product - (i == j ? 1 : 0)));
    }
  }
  CHECK(worst < 1e-4);
}

}  // namespace
}  // namespace edgewise
