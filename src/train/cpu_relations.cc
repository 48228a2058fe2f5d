#include "train/cpu_relations.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/kernels.h"
#include "train/gemm.h"

namespace edgewise::train {
namespace {

constexpr size_t kQueries = 64;  // of a block

// Turns the products (n) of a token with itself and those before it to logarithms of probabilities.
void LogSoftmax(float scale, size_t n, float* scores) {
  const kernels::Kernels& kernel = kernels::Active();
  kernel.scale(scale, scores, n);
  const auto sum = static_cast<float>(kernel.log_sum_exp(scores, n));
  for (size_t j = 0; j < n; ++j) scores[j] -= sum;
}

float ScaleOf(size_t columns) { return 1.0f / std::sqrt(static_cast<float>(columns)); }

}  // namespace

struct CpuRelations::Worker {
  explicit Worker(Precision precision) : gemm(&alone, precision) {}

  ThreadPool alone{1};
  Gemm gemm;
  std::vector<float> scores, targets;  // (queries, keys)
  std::vector<float> p, q;             // (keys)

  void Reserve(size_t keys) {
    for (std::vector<float>* buffer : {&scores, &targets}) {
      buffer->resize(std::max(buffer->size(), std::min(kQueries, keys) * keys));
    }
    for (std::vector<float>* buffer : {&p, &q}) buffer->resize(std::max(buffer->size(), keys));
  }
  double Match(const RelationShape& shape, const Item& item, ConstRows target, ConstRows x,
               float scale, Rows dx);

 private:
  // The divergence of one token's relations to `seen` tokens; its scores become the gradient by the
  // products, times `scale`.
  double Diverge(const RelationShape& shape, size_t seen, float scale, float* log_p, float* log_q);
};

CpuRelations::CpuRelations(ThreadPool* pool, Precision precision) : pool_(pool) {
  for (int i = 0; i < pool->size(); ++i) workers_.push_back(std::make_unique<Worker>(precision));
}
CpuRelations::~CpuRelations() = default;

double CpuRelations::Match(const RelationShape& shape, ConstRows target, ConstRows x, float scale,
                           Rows dx) {
  items_.clear();
  size_t row = 0;
  for (const uint32_t length : shape.lengths) {
    for (size_t h = 0; h < shape.heads; ++h) items_.push_back({row, length, h});
    row += length;
  }
  const size_t longest = *std::max_element(shape.lengths.begin(), shape.lengths.end());
  for (const auto& worker : workers_) worker->Reserve(longest);
  sums_.assign(items_.size(), 0.0);
  pool_->ParallelFor(items_.size(), 1, [&](size_t begin, size_t end, int thread) {
    for (size_t i = begin; i < end; ++i) {
      sums_[i] =
          workers_[static_cast<size_t>(thread)]->Match(shape, items_[i], target, x, scale, dx);
    }
  });
  return std::accumulate(sums_.begin(), sums_.end(), 0.0);
}

double CpuRelations::Worker::Diverge(const RelationShape& shape, size_t seen, float scale,
                                     float* log_p, float* log_q) {
  const kernels::Kernels& kernel = kernels::Active();
  LogSoftmax(ScaleOf(shape.target_columns), seen, log_p);
  LogSoftmax(ScaleOf(shape.columns), seen, log_q);
  kernel.exp(log_p, p.data(), seen);
  kernel.exp(log_q, q.data(), seen);
  const float factor = scale * ScaleOf(shape.columns);
  double sum = 0;
  for (size_t j = 0; j < seen; ++j) {
    if (p[j] > 0) sum += static_cast<double>(p[j]) * static_cast<double>(log_p[j] - log_q[j]);
    log_q[j] = factor * (q[j] - p[j]);
  }
  return sum;
}

// A product x_i . x_j with gradient g gives g x_j to token i and g x_i to token j.
double CpuRelations::Worker::Match(const RelationShape& shape, const Item& item, ConstRows target,
                                   ConstRows x, float scale, Rows dx) {
  const size_t c = shape.columns, t = shape.target_columns;
  const float *xs = x.row(item.row) + item.head * c, *ts = target.row(item.row) + item.head * t;
  float* dxs = dx.row(item.row) + item.head * c;
  double sum = 0;
  for (size_t first = 0; first < item.length; first += kQueries) {
    const size_t queries = std::min(kQueries, item.length - first), keys = first + queries;
    const Matrix own = {xs + first * x.stride, x.stride};
    gemm.Multiply(own, {xs, x.stride, true}, queries, keys, c, scores.data(), keys, false);
    gemm.Multiply({ts + first * target.stride, target.stride}, {ts, target.stride, true}, queries,
                  keys, t, targets.data(), keys, false);
    for (size_t i = 0; i < queries; ++i) {
      float* row = scores.data() + i * keys;
      const bool counts = shape.counted[item.row + first + i] != 0;
      const size_t seen = counts ? first + i + 1 : 0;
      if (counts) sum += Diverge(shape, seen, scale, targets.data() + i * keys, row);
      std::fill(row + seen, row + keys, 0.0f);
    }
    gemm.Multiply({scores.data(), keys}, {xs, x.stride}, queries, c, keys, dxs + first * dx.stride,
                  dx.stride, true);
    gemm.Multiply({scores.data(), keys, true}, own, keys, c, queries, dxs, dx.stride, true);
  }
  return sum;
}

}  // namespace edgewise::train
