#include "train/feature_match.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "base/rng.h"
#include "base/strings.h"

namespace edgewise::train {
namespace {

constexpr double kLargestWeight = 1e6;
constexpr double kDeviation = 0.02;

Status CheckWeight(double weight, const char* name) {
  if (weight >= 0 && weight <= kLargestWeight) return Ok{};
  return MakeError(Code::kInvalidArgument, "the weight of matching %s must be from 0 to %g, not %g",
                   name, kLargestWeight, weight);
}

// Makes room for so many values, without keeping those that are there or taking more.
void Reach(size_t size, std::vector<float>* values) {
  if (values->size() < size) *values = std::vector<float>(size);
}

size_t QkvColumns(const ModelSpec& spec) { return spec.q_dim() + 2 * size_t{spec.kv_dim()}; }

}  // namespace

Status CheckMatch(const MatchOptions& options) {
  EW_TRY(CheckWeight(options.hidden, "hidden states"));
  return CheckWeight(options.attention, "attention");
}

FeatureMatch::FeatureMatch(const MatchOptions& options, const ModelSpec& student,
                           const ModelSpec& teacher, Precision precision, ThreadPool* pool)
    : options_(options),
      student_(student),
      teacher_(teacher),
      ops_(MakeCpuOps(pool, precision)),
      ones_(student.dim, 1.0f),
      minus_ones_(teacher.dim, -1.0f),
      missed_(student.n_layers + 1) {}

uint64_t FeatureMatch::Bytes(size_t rows) const {
  size_t floats = 0;
  if (options_.hidden > 0) {
    floats += (student_.n_layers + 1) * size_t{teacher_.dim} + 2 * size_t{student_.dim} + 1;
  }
  if (options_.attention > 0) floats += QkvColumns(teacher_);
  return uint64_t{rows} * floats * sizeof(float);
}

size_t FeatureMatch::size() const {
  return options_.hidden > 0 ? size_t{teacher_.dim} * student_.dim : 0;
}

std::vector<float> FeatureMatch::First(uint64_t seed) const {
  std::vector<float> values(size());
  if (teacher_.dim == student_.dim) {
    for (size_t i = 0; i < values.size(); i += student_.dim + 1) values[i] = 1;
    return values;
  }
  Rng rng(~seed);  // not the numbers that new weights have
  for (float& value : values) value = static_cast<float>(kDeviation * rng.Gaussian());
  return values;
}

void FeatureMatch::Bind(const float* parameters, float* gradients) {
  projection_ = parameters;
  gradients_ = gradients;
}

uint32_t FeatureMatch::TeacherDepth(uint32_t depth) const {
  const uint64_t layers = student_.n_layers;
  return static_cast<uint32_t>((2 * uint64_t{depth} * teacher_.n_layers + layers) / (2 * layers));
}

NormShape FeatureMatch::Shape(size_t columns) const {
  return {.kind = NormKind::kRms,
          .rows = counted_.size(),
          .columns = columns,
          .eps = student_.norm_eps};
}

void FeatureMatch::Visit(const LayerView& view) {
  const size_t n = view.batch.size(), dim = teacher_.dim;
  if (view.depth == 0) {
    loss_ = 0;
    counted_.resize(n);
    for (size_t i = 0; i < n; ++i) counted_[i] = view.batch.targets[i] != kNoTarget;
  }
  for (uint32_t s = 0; s <= student_.n_layers && options_.hidden > 0; ++s) {
    if (TeacherDepth(s) != view.depth) continue;
    Reach(n * dim, &missed_[s]);
    Reach(n, &inverse_);
    ops_->Norm(Shape(dim), {minus_ones_.data()}, {view.stream, dim}, {missed_[s].data(), dim},
               {inverse_.data()});
  }
  if (options_.attention > 0 && view.depth == teacher_.n_layers) {
    const size_t columns = QkvColumns(teacher_);
    Reach(n * columns, &qkv_);
    for (size_t i = 0; i < n; ++i) {
      std::copy_n(view.qkv.row(i), columns, qkv_.data() + i * columns);
    }
  }
}

// With e = W n(h) - n(H): dW = c e^T n(h) and dn(h) = c e W.
void FeatureMatch::Stream(uint32_t depth, const float* x, float scale, float* dx) {
  if (options_.hidden == 0) return;
  EW_CHECK(projection_ != nullptr);
  const size_t n = counted_.size(), wide = teacher_.dim, dim = student_.dim;
  const double share = options_.hidden / (student_.n_layers + 1) / static_cast<double>(wide);
  Reach(n * dim, &normed_);
  Reach(n * dim, &dnormed_);
  ops_->Norm(Shape(dim), {ones_.data()}, {x, dim}, {normed_.data(), dim}, {inverse_.data()});
  float* missed = missed_[depth].data();
  ops_->Multiply({normed_.data(), dim}, {projection_, dim, true}, n, wide, dim, missed, wide, true);
  for (size_t i = 0; i < n; ++i) {
    if (counted_[i] == 0) std::fill_n(missed + i * wide, wide, 0.0f);
  }
  loss_ += share * ops_->SumOfSquares(missed, n * wide);
  ops_->Scale(static_cast<float>(2 * share) * scale, n * wide, missed);
  ops_->Multiply({missed, wide, true}, {normed_.data(), dim}, wide, dim, n, gradients_, dim, true);
  ops_->Multiply({missed, wide}, {projection_, dim}, n, dim, wide, dnormed_.data(), dim, false);
  ops_->NormBackward(Shape(dim), {ones_.data()}, {x, dim}, {inverse_.data()},
                     {dnormed_.data(), dim}, {dx, dim}, true, {nullptr});
}

void FeatureMatch::Attention(uint32_t depth, const AttentionShape& shape, ConstRows qkv,
                             float scale, Rows dqkv) {
  if (options_.attention == 0 || depth != student_.n_layers) return;
  const size_t stride = QkvColumns(teacher_);
  const size_t q_heads = std::gcd(student_.n_heads, teacher_.n_heads);
  const size_t kv_heads = std::gcd(student_.n_kv_heads, teacher_.n_kv_heads);
  const auto match = [&](size_t heads, size_t at, size_t columns, size_t teacher_at,
                         size_t teacher_columns) {
    const RelationShape relations = {shape.lengths, heads, columns / heads, teacher_columns / heads,
                                     counted_};
    const double weight = options_.attention / static_cast<double>(heads);
    loss_ += weight * ops_->MatchRelations(relations, {qkv_.data() + teacher_at, stride},
                                           {qkv.data + at, qkv.stride},
                                           static_cast<float>(weight) * scale,
                                           {dqkv.data + at, dqkv.stride});
  };
  const size_t q = teacher_.q_dim(), kv = teacher_.kv_dim();
  match(q_heads, 0, student_.q_dim(), 0, q);
  match(kv_heads, shape.keys_at(), student_.kv_dim(), q, kv);
  match(kv_heads, shape.values_at(), student_.kv_dim(), q + kv, kv);
}

}  // namespace edgewise::train
