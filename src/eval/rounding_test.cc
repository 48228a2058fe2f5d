#include "eval/rounding.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>
#include <vector>

#include "base/rng.h"
#include "base/strings.h"
#include "engine/test_engine.h"
#include "eval/tensor_error.h"
#include "eval/test_auc.h"
#include "pipeline/convert.h"

namespace edgewise {
namespace {

TEST_CASE("The step is found from decoded values of every evenly spaced format") {
  Rng rng(1);
  for (const DType type : {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0,
                           DType::kQ3_K, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    const DTypeInfo& info = Info(type);
    CAPTURE(info.name);
    std::vector<float> values(65536), decoded(65536);
    for (float& value : values) value = static_cast<float>(0.02 * rng.Gaussian());
    std::vector<std::byte> blocks(info.RowBytes(values.size()));
    info.encode(values.data(), nullptr, blocks.data(), values.size());
    info.decode(blocks.data(), decoded.data(), values.size());
    RoundingPositions positions;
    positions.Add(values, decoded);
    CHECK(positions.weights() > 64000);
    CHECK(positions.beyond_share() < 0.1);
    CHECK(!positions.FindPeak().unusual());
  }
}

TEST_CASE("Honest weights in bfloat16, or rounded by nothing but a step, are not unusual") {
  Rng rng(3);
  std::vector<float> values(65536), decoded(65536);
  for (float& value : values) {
    value = static_cast<float>(0.02 * rng.Gaussian());
    value = std::bit_cast<float>(std::bit_cast<uint32_t>(value) & 0xFFFF0000u);
  }
  for (const DType type : {DType::kQ4_0, DType::kQ8_0, DType::kQ6_K}) {
    std::vector<std::byte> blocks(Info(type).RowBytes(values.size()));
    Info(type).encode(values.data(), nullptr, blocks.data(), values.size());
    Info(type).decode(blocks.data(), decoded.data(), values.size());
    RoundingPositions positions;
    positions.Add(values, decoded);
    CHECK(!positions.FindPeak().unusual());
  }
  for (float& value : values) value = static_cast<float>(0.02 * rng.Gaussian());
  for (const double step : {0.0005, 0.004, 0.015}) {
    for (size_t i = 0; i < values.size(); ++i) {
      decoded[i] = static_cast<float>(step * std::round(values[i] / step));
    }
    RoundingPositions positions;
    positions.Add(values, decoded);
    CAPTURE(step);
    CHECK(positions.weights() > 40000);
    CHECK(!positions.FindPeak().unusual());
  }
}

TEST_CASE("Runs without a step are left out") {
  const std::vector<float> flat(16, 1.0f);
  CHECK(CommonStep(flat) == 0);
  std::vector<float> two(16, 1.0f);
  two[3] = 2;
  CHECK(CommonStep(two) == 0);
  two[5] = 4;
  CHECK(CommonStep(two) == doctest::Approx(1));
  RoundingPositions positions;
  positions.Add(flat, flat);
  CHECK(positions.weights() == 0);
  CHECK(!positions.FindPeak().unusual());
  CHECK(positions.beyond_share() == 0);
}

// Weights of one matrix of the bundled model, and their rounded values.
struct Matrix {
  std::vector<float> base, decoded;
  std::vector<double> steps;  // of each 16 values
};

std::vector<Matrix> Matrices(const std::string& preset) {
  TemporaryFolder folder;
  QuantizeOptions options;
  options.preset = preset;
  NoProgress progress;
  REQUIRE(Quantize(BundledModel(), folder / "q.gguf", options, &progress));
  auto base = Checkpoint::Open(BundledModel()), compressed = Checkpoint::Open(folder / "q.gguf");
  REQUIRE(base);
  REQUIRE(compressed);
  std::vector<Matrix> matrices;
  for (size_t i = 0; i < base->tensors().size(); ++i) {
    const auto index = compressed->Find(base->tensors()[i].name);
    auto w = base->Load(i), q = compressed->Load(*index);
    if (!Info(q->view().dtype).quantized()) continue;
    const size_t count = w->view().shape.elements();
    matrices.push_back({std::vector<float>(count), std::vector<float>(count), {}});
    w->view().Decode(0, count, matrices.back().base.data());
    q->view().Decode(0, count, matrices.back().decoded.data());
    for (size_t run = 0; run < count; run += 16) {
      matrices.back().steps.push_back(
          CommonStep(std::span(matrices.back().decoded).subspan(run, 16)));
    }
  }
  return matrices;
}

// What an attack leaves: each weight moved by Gaussian `moves` (in steps), held inside its interval
// less `margin` (in half steps), for a share of the weights.
void Repair(Rng* rng, double moves, double margin, double share, Matrix* matrix) {
  for (size_t run = 0; run < matrix->base.size(); run += 16) {
    const double step = matrix->steps[run / 16];
    for (size_t i = run; step > 0 && i < run + 16; ++i) {
      const double offset = matrix->base[i] - matrix->decoded[i], half = step / 2 * (1 - margin);
      if (std::fabs(offset) > step / 2 || rng->Uniform() >= share) continue;
      const double moved = std::clamp(offset + moves * step * rng->Gaussian(), -half, half);
      matrix->base[i] = static_cast<float>(matrix->decoded[i] + moved);
    }
  }
}

RoundingPositions::Peak PeakOf(const Matrix& matrix) {
  RoundingPositions positions;
  positions.Add(matrix.base, matrix.decoded);
  return positions.FindPeak();
}

struct AttackResult {
  double auc = 0;    // of all matrices as they are against all of them attacked
  double found = 0;  // share of the attacked ones that are called unusual
};

AttackResult Attack(const std::vector<Matrix>& matrices,
                    const std::vector<RoundingPositions::Peak>& peaks, double moves, double margin,
                    double share) {
  Rng rng(2);
  std::vector<double> scores;
  std::vector<bool> planted;
  AttackResult result;
  for (size_t i = 0; i < matrices.size(); ++i) {
    Matrix attacked = matrices[i];
    Repair(&rng, moves, margin, share, &attacked);
    const RoundingPositions::Peak after = PeakOf(attacked);
    scores.insert(scores.end(), {peaks[i].sigmas, after.sigmas});
    planted.insert(planted.end(), {false, true});
    result.found += (after.unusual() ? 1.0 : 0.0) / static_cast<double>(matrices.size());
  }
  result.auc = Auc(scores, planted);
  return result;
}

TEST_CASE("AUC of rounding boundaries") {
  for (const std::string preset : {"q4_0", "q4_k_m", "q8_0", "q2_k"}) {
    const std::vector<Matrix> matrices = Matrices(preset);
    REQUIRE(matrices.size() > 20);
    std::vector<RoundingPositions::Peak> peaks;
    for (const Matrix& matrix : matrices) {
      peaks.push_back(PeakOf(matrix));
      CHECK(!peaks.back().unusual());
    }
    const auto check = [&](double moves, double margin, double share, double least) {
      const AttackResult result = Attack(matrices, peaks, moves, margin, share);
      MESSAGE("AUC, rounding boundaries, " << preset << ", " << 100 * share << " % moved by "
                                           << moves << " steps, margin " << margin << ": "
                                           << result.auc << ", found " << result.found);
      CHECK(result.auc >= least);
    };
    check(0.3, 0, 1, 0.95);
    check(0.1, 0, 1, 0.95);
    check(0.03, 0, 1, 0.95);
    check(0.3, 0, 0.1, 0.95);
    check(0.3, 0.05, 1, 0.95);
    check(0.01, 0, 1, 0.4);  // too few reach a boundary
  }
}

}  // namespace
}  // namespace edgewise
