#include "eval/spectral.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <utility>

#include "base/rng.h"
#include "eval/windows.h"

namespace edgewise {
namespace {

using Vector = std::vector<double>;

double Dot(const Vector& a, const Vector& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

class States {
 public:
  States(Engine* engine, KvCache cache)
      : engine_(engine), cache_(std::move(cache)), forward_(engine->model(), &engine->pool()) {}

  // The mean state over the tokens of the response; empty where there are none.
  Result<Vector> MeanOf(const TrainingExample& example) {
    EW_TRY(const std::vector<int32_t> prompt,
           EncodeFromStart(engine_->tokenizer(), example.prompt));
    const std::string whole =
        example.prompt.empty() ? example.response : example.prompt + "\n" + example.response;
    EW_TRY(std::vector<int32_t> tokens, EncodeFromStart(engine_->tokenizer(), whole));
    tokens.resize(std::min<size_t>(tokens.size(), cache_.capacity()));
    const size_t first = std::min(prompt.size(), tokens.size());
    if (first == tokens.size()) return Vector();
    const size_t dim = engine_->model().spec().dim, count = tokens.size() - first;
    std::vector<float> states(count * dim);
    cache_.Clear();
    EW_TRY(forward_.RunStates(tokens, &cache_, first, states));
    Vector mean(dim);
    for (size_t i = 0; i < states.size(); ++i) {
      mean[i % dim] += static_cast<double>(states[i]) / static_cast<double>(count);
    }
    for (const double value : mean) {
      if (std::isfinite(value)) continue;
      return Error{Code::kBadData,
                   "the model gave states that are not finite: the weights are damaged, or their "
                   "number format overflows"};
    }
    return mean;
  }

 private:
  Engine* engine_;
  KvCache cache_;
  ForwardPass forward_;
};

// Subtracts the mean of all rows that are not empty.
void Center(std::vector<Vector>* rows, size_t dim) {
  Vector mean(dim);
  double count = 0;
  for (const Vector& row : *rows) {
    for (size_t i = 0; i < row.size(); ++i) mean[i] += row[i];
    if (!row.empty()) ++count;
  }
  for (Vector& row : *rows) {
    for (size_t i = 0; i < row.size(); ++i) row[i] -= mean[i] / count;
  }
}

// The first principal direction by power iteration; zero where the rows are all the same.
Vector MainDirection(const std::vector<Vector>& rows, size_t dim) {
  constexpr int kIterations = 100;
  Rng rng(1);
  Vector direction(dim);
  for (double& value : direction) value = rng.Gaussian();
  for (int i = 0; i < kIterations; ++i) {
    Vector next(dim);
    for (const Vector& row : rows) {
      if (row.empty()) continue;
      const double along = Dot(row, direction);
      for (size_t j = 0; j < dim; ++j) next[j] += along * row[j];
    }
    const double length = std::sqrt(Dot(next, next));
    if (length == 0) return next;
    for (double& value : next) value /= length;
    direction = std::move(next);
  }
  return direction;
}

}  // namespace

Result<std::vector<double>> FindSpectral(Engine* engine,
                                         const std::vector<TrainingExample>& examples,
                                         Progress* progress) {
  const ModelSpec& spec = engine->model().spec();
  EW_TRY(KvCache cache, KvCache::Create(spec, std::min<uint32_t>(spec.context_length, 1024),
                                        kernels::KvFormat::kF16));
  States states(engine, std::move(cache));
  std::vector<Vector> rows;
  for (const TrainingExample& example : examples) {
    progress->Update("hidden states", rows.size(), examples.size());
    if (progress->Cancelled()) return Error{Code::kCancelled, "the search was cancelled"};
    EW_TRY(Vector row, states.MeanOf(example));
    rows.push_back(std::move(row));
  }
  progress->Update("hidden states", rows.size(), examples.size());
  Center(&rows, spec.dim);
  const Vector direction = MainDirection(rows, spec.dim);
  std::vector<double> scores;
  double squares = 0;
  for (const Vector& row : rows) {
    scores.push_back(row.empty() ? 0 : std::fabs(Dot(row, direction)));
    squares += scores.back() * scores.back();
  }
  const double deviation = std::sqrt(squares / static_cast<double>(scores.size()));
  for (double& score : scores) score = deviation > 0 ? score / deviation : 0;
  return scores;
}

}  // namespace edgewise
