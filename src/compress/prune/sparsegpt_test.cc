#include "compress/prune/sparsegpt.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/half.h"
#include "compress/prune/problem.h"
#include "compress/prune/score.h"
#include "compress/prune/select.h"

namespace edgewise {
namespace {

using Doubles = std::vector<double>;

// The inverse of a positive definite (n, n), by Gauss-Jordan.
Doubles Inverse(Doubles a, size_t n) {
  Doubles inverse(n * n);
  for (size_t i = 0; i < n; ++i) inverse[i * n + i] = 1;
  for (size_t k = 0; k < n; ++k) {
    const double pivot = a[k * n + k];
    for (size_t j = 0; j < n; ++j) {
      a[k * n + j] /= pivot;
      inverse[k * n + j] /= pivot;
    }
    for (size_t i = 0; i < n; ++i) {
      const double by = a[i * n + k];
      if (i == k) continue;
      for (size_t j = 0; j < n; ++j) {
        a[i * n + j] -= by * a[k * n + j];
        inverse[i * n + j] -= by * inverse[k * n + j];
      }
    }
  }
  return inverse;
}

// U upper triangular with U^T U = a.
Doubles UpperCholesky(const Doubles& a, size_t n) {
  Doubles u(n * n);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = i; j < n; ++j) {
      double sum = a[i * n + j];
      for (size_t k = 0; k < i; ++k) sum -= u[k * n + i] * u[k * n + j];
      u[i * n + j] = i == j ? std::sqrt(sum) : sum / u[i * n + i];
    }
  }
  return u;
}

// Algorithm 1 of the paper in double precision, H^-1 and all.
struct PaperSparseGpt {
  PaperSparseGpt(const Problem& problem, const Sparsity& sparsity_in)
      : p(problem), sparsity(sparsity_in), w(p.w.begin(), p.w.end()), kept(w.size(), true) {
    Doubles h(p.h.begin(), p.h.end());
    double mean = 0, live = 0;
    for (size_t j = 0; j < p.n; ++j) {
      mean += h[j * p.n + j];
      live += h[j * p.n + j] > 0 ? 1 : 0;
    }
    mean /= live;
    for (size_t j = 0; j < p.n; ++j) {
      if (h[j * p.n + j] == 0) {
        h[j * p.n + j] = mean;
        for (size_t r = 0; r < p.rows; ++r) w[r * p.n + j] = 0;
      }
      h[j * p.n + j] += 0.01 * mean;
    }
    u = UpperCholesky(Inverse(h, p.n), p.n);
    const size_t step = sparsity.structured() ? 128 / sparsity.group * sparsity.group : 128;
    for (size_t first = 0; first < p.n; first += step) {
      Block(first, std::min(first + step, p.n));
    }
  }

  void Prune(std::vector<std::pair<double, size_t>> scores, size_t count) {
    std::sort(scores.begin(), scores.end());
    for (size_t k = 0; k < count; ++k) kept[scores[k].second] = false;
    if (count > 0 && scores[count].first > 0) {
      margin = std::min(margin, scores[count].first / scores[count - 1].first - 1);
    }
  }
  std::pair<double, size_t> Score(size_t r, size_t c) const {
    const size_t i = r * p.n + c;
    return {w[i] * w[i] / (u[c * p.n + c] * u[c * p.n + c]), i};
  }

  void Block(size_t first, size_t end) {
    if (!sparsity.structured()) {
      std::vector<std::pair<double, size_t>> scores;
      for (size_t r = 0; r < p.rows; ++r) {
        for (size_t c = first; c < end; ++c) scores.push_back(Score(r, c));
      }
      Prune(scores, sparsity.PrunedOf(p.rows * end) - sparsity.PrunedOf(p.rows * first));
    }
    for (size_t c = first; c < end; ++c) {
      for (size_t r = 0; r < p.rows; ++r) {
        if (sparsity.structured() && c % sparsity.group == 0) {
          std::vector<std::pair<double, size_t>> scores;
          for (size_t k = c; k < c + sparsity.group; ++k) scores.push_back(Score(r, k));
          Prune(scores, sparsity.group - sparsity.keep);
        }
        if (kept[r * p.n + c]) continue;
        const double error = w[r * p.n + c] / u[c * p.n + c];
        for (size_t k = c; k < p.n; ++k) w[r * p.n + k] -= error * u[c * p.n + k];
        w[r * p.n + c] = 0;
      }
    }
  }

  const Problem& p;
  Sparsity sparsity;
  Doubles w, u;
  std::vector<bool> kept;
  double margin = 1;  // the least relative distance of a pruned score to the next one kept
};

Mask Wanda(const Problem& p, const Sparsity& sparsity) {
  ThreadPool pool(1);
  const auto scores = Scores(ScoreMethod::kWanda, p.w, p.n, ColumnNorms(p.moments), 0);
  return *SelectMask(*scores, p.n, sparsity, PruneScope::kRow, &pool);
}

TEST_CASE("masks and weights are those of the paper") {
  const Problem problems[] = {Problem(12, 336, 1), Problem(40, 144, 2, 21)};
  ThreadPool pool(2);
  for (const Problem& p : problems) {
    const InputMetric input = p.Metric();
    for (const char* text : {"0.5", "0.73", "0", "2:4", "4:8", "1:2", "1:16", "4:6"}) {
      CAPTURE(text);
      const auto sparsity = Sparsity::Parse(text);
      const PaperSparseGpt paper(p, *sparsity);
      REQUIRE(paper.margin > 2e-6);
      const auto pruned = PruneSparseGpt(p.w, input, *sparsity, nullptr, &pool);
      REQUIRE(pruned.has_value());
      CHECK(pruned->mask.Holds(*sparsity));
      CHECK(pruned->mask.CountKept() == p.w.size() - sparsity->PrunedOf(p.w.size()));
      size_t different = 0;
      double worst = 0;
      for (size_t i = 0; i < p.w.size(); ++i) {
        different += pruned->mask.kept(i / p.n, i % p.n) != paper.kept[i] ? 1 : 0;
        worst = std::max(worst, std::fabs(pruned->values[i] - paper.w[i]));
      }
      CHECK(different == 0);
      CHECK(worst < 2e-5);
    }
  }
}

TEST_CASE("the error reported is that of the damped second moments") {
  const Problem p(20, 200, 3);
  const InputMetric input = p.Metric();
  ThreadPool pool(1);
  const auto pruned = PruneSparseGpt(p.w, input, *Sparsity::Parse("0.5"), nullptr, &pool);
  const double expected =
      ReconstructionError(p.w, pruned->values, {input.metric.h(0), p.n * p.n}, p.n, &pool);
  CHECK(pruned->error == doctest::Approx(expected).epsilon(1e-3));
}

TEST_CASE("weight updates help any mask, and keep it") {
  const Problem p(20, 264, 4);
  ThreadPool pool(2);
  const InputMetric input = p.Metric();
  for (const char* text : {"0.6", "2:4"}) {
    const Mask mask = Wanda(p, *Sparsity::Parse(text));
    std::vector<float> plain = p.w;
    mask.Apply(plain);
    const auto updated = UpdateForMask(p.w, input, mask, nullptr, &pool);
    REQUIRE(updated.has_value());
    CHECK(updated->mask == mask);
    for (size_t i = 0; i < p.w.size(); ++i) {
      CHECK((updated->values[i] != 0) == mask.kept(i / p.n, i % p.n));
    }
    CHECK(p.Error(updated->values) < 0.8 * p.Error(plain));
    const auto own = PruneSparseGpt(p.w, input, *Sparsity::Parse(text), nullptr, &pool);
    const auto again = UpdateForMask(p.w, input, own->mask, nullptr, &pool);
    CHECK(again->error == doctest::Approx(own->error).epsilon(1e-4));
  }
}

TEST_CASE("kept weights are rounded in the same sweep, and what that costs is made up for") {
  const Problem p(36, 256, 5);
  ThreadPool pool(2);
  const InputMetric input = p.Metric();
  for (const uint32_t bits : {4u, 8u}) {
    for (const char* text : {"2:4", "0.5"}) {
      CAPTURE(text);
      CAPTURE(bits);
      const auto sparsity = Sparsity::Parse(text);
      const auto sparse = PruneSparseGpt(p.w, input, *sparsity, nullptr, &pool);
      auto after = IntegerRounder::Create(bits, 64, p.rows, p.n);
      auto joint = IntegerRounder::Create(bits, 64, p.rows, p.n);
      REQUIRE(joint.has_value());
      const auto pruned = PruneSparseGpt(p.w, input, *sparsity, &*joint, &pool);
      REQUIRE(pruned.has_value());
      CHECK(pruned->mask.Holds(*sparsity));
      std::vector<float> rounded = sparse->values;  // one after the other
      for (size_t c = 0; c < p.n; c += 64) {
        for (size_t r = 0; r < p.rows; ++r) {
          const std::span<float> group(rounded.data() + r * p.n + c, 64);
          after->Fit(r, c, group);
          for (size_t j = 0; j < 64; ++j) group[j] = after->Round(r, c + j, group[j]);
        }
      }
      const double error = p.Error(pruned->values);
      if (bits == 4) CHECK(error < p.Error(rounded));
      CHECK(error < (bits == 4 ? 2.0 : 1.05) * p.Error(sparse->values));
      for (size_t i = 0; i < p.w.size(); ++i) {
        const float scale = HalfToFloat(joint->scales()[i / 64]);
        const float q = std::nearbyintf(pruned->values[i] / scale);
        CHECK(pruned->values[i] == scale * q);
        CHECK(std::fabs(q + 0.5f) < static_cast<float>(1u << (bits - 1)));
        if (!pruned->mask.kept(i / p.n, i % p.n)) CHECK(q == 0);
      }
    }
  }
}

TEST_CASE("the number of threads changes no bit") {
  const Problem p(100, 260, 6);
  const InputMetric input = p.Metric();
  ThreadPool one(1);
  for (const char* text : {"0.55", "2:4"}) {
    const auto sparsity = Sparsity::Parse(text);
    auto rounder = IntegerRounder::Create(4, 4, p.rows, p.n);
    const auto plain = PruneSparseGpt(p.w, input, *sparsity, nullptr, &one);
    const auto rounded = PruneSparseGpt(p.w, input, *sparsity, &*rounder, &one);
    REQUIRE(rounded.has_value());
    for (const int threads : {2, 3}) {
      ThreadPool pool(threads);
      const auto same = PruneSparseGpt(p.w, input, *sparsity, nullptr, &pool);
      CHECK(same->values == plain->values);
      CHECK(same->mask == plain->mask);
      CHECK(same->error == plain->error);
      CHECK(PruneSparseGpt(p.w, input, *sparsity, &*rounder, &pool)->values == rounded->values);
    }
  }
}

TEST_CASE("bad input is named") {
  Problem p(4, 48, 7);
  ThreadPool pool(1);
  const InputMetric input = p.Metric();
  const auto half = *Sparsity::Parse("0.5"), two_four = *Sparsity::Parse("2:4");
  CHECK(Fails(PruneSparseGpt(p.w, input, *Sparsity::Parse("2:5"), nullptr, &pool),
              Code::kInvalidArgument, "rows of 48 weights"));
  CHECK(Fails(PruneSparseGpt(std::span(p.w).first(100), input, half, nullptr, &pool),
              Code::kInvalidArgument, "100 weights do not form rows of the 48 columns"));
  CHECK(Fails(UpdateForMask(p.w, input, Mask(4, 44, true), nullptr, &pool), Code::kInvalidArgument,
              "the mask is for 4 x 44 weights"));
  auto rounder = IntegerRounder::Create(4, 6, 4, 48);
  CHECK(Fails(PruneSparseGpt(p.w, input, two_four, &*rounder, &pool), Code::kInvalidArgument,
              "groups of 6 columns do not fit rows of 48"));
  CHECK(Fails(IntegerRounder::Create(4, 7, 4, 48), Code::kInvalidArgument, "each 7 of 48"));
  CHECK(Fails(InputMetric::Create(p.h, 47, &pool), Code::kInvalidArgument, "take 2209 values"));
  std::fill(p.w.begin(), p.w.end(), 3e38f);
  CHECK(
      Fails(PruneSparseGpt(p.w, input, half, nullptr, &pool), Code::kBadData, "range of float32"));
  p.w[50] = std::numeric_limits<float>::infinity();
  CHECK(Fails(PruneSparseGpt(p.w, input, half, nullptr, &pool), Code::kBadData, "row 1, column 2"));
}

TEST_CASE("inputs that are always zero still give a result") {
  const Problem p(4, 32, 8);
  ThreadPool pool(1);
  const auto input = InputMetric::Create(std::vector<float>(32 * 32), 32, &pool);
  REQUIRE(input.has_value());
  const auto pruned = PruneSparseGpt(p.w, *input, *Sparsity::Parse("2:4"), nullptr, &pool);
  REQUIRE(pruned.has_value());
  CHECK(pruned->error == 0);
  CHECK(pruned->mask.Holds(*Sparsity::Parse("2:4")));
}

}  // namespace
}  // namespace edgewise
