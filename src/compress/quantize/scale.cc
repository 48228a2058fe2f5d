#include "compress/quantize/scale.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "compress/quantize/layerwise.h"
#include "compress/quantize/output_error.h"
#include "compress/quantize/tensor_changes.h"

namespace edgewise {
namespace {

constexpr float kSmallest = 1e-4f;  // of the mean: for columns that are never used

// One input of linear layers, and the rows that give its columns.
struct ScaledInput {
  std::vector<std::string> consumers;  // weights
  std::string producer;                // stem of a norm or a matrix
  size_t rows;                         // of the producer's weight; a norm has one value in each
  size_t first, count;                 // its rows that give columns
  size_t head = 1, sharers = 1;        // rows that go together, and how often each is read
};

// The input's column c comes from this of its rows.
size_t RowOf(const ScaledInput& input, size_t c) {
  return c / input.head / input.sharers * input.head + c % input.head;
}

std::vector<ScaledInput> InputsOf(const ModelSpec& spec, uint32_t layer) {
  const std::string at = Format("blk.%u.", layer);
  const size_t dim = spec.dim, ffn = spec.ffn_dim, q = spec.q_dim(), kv = spec.kv_dim();
  std::vector<std::string> attention, feed_forward;
  if (spec.fused_qkv) {
    attention = {at + "attn_qkv.weight"};
  } else {
    attention = {at + "attn_q.weight", at + "attn_k.weight", at + "attn_v.weight"};
  }
  if (!spec.fused_gate_up) feed_forward = {at + "ffn_gate.weight"};
  feed_forward.push_back(at + "ffn_up.weight");
  const std::string values = at + (spec.fused_qkv ? "attn_qkv" : "attn_v");
  return {
      {attention, at + "attn_norm", dim, 0, dim},
      {{at + "attn_output.weight"},
       values,
       spec.fused_qkv ? q + 2 * kv : kv,
       spec.fused_qkv ? q + kv : 0,
       kv,
       spec.head_dim,
       spec.n_heads / spec.n_kv_heads},
      {feed_forward, at + "ffn_norm", dim, 0, dim},
      {{at + "ffn_down.weight"},
       at + "ffn_up",
       spec.fused_gate_up ? 2 * ffn : ffn,
       spec.fused_gate_up ? ffn : 0,
       ffn},
  };
}

// A matrix that reads the input, as the search sees it.
struct Consumer {
  std::vector<float> values;  // (rows, columns)
  DType to;
};

class Scaler {
 public:
  Scaler(const Checkpoint& model, std::span<const TensorPlan> plan,
         const CalibrationFile& calibration, ScaleMethod method, ThreadPool* pool)
      : model_(model), calibration_(calibration), method_(method), pool_(pool), changes_(model) {
    for (const TensorPlan& entry : plan) {
      if (IsLayerwise(entry)) entries_.emplace(entry.name, &entry);
    }
  }
  Result<Scaling> Run(Progress* progress);

 private:
  Status Scale(const ScaledInput& input);
  Result<std::vector<Consumer>> Load(const ScaledInput& input) const;
  Result<ColumnMoments> Moments(const std::string& weight, size_t columns) const;
  double ErrorOf(const ScaledInput& input, const std::vector<Consumer>& consumers,
                 const ColumnMoments& moments, std::span<const float> h,
                 const std::vector<float>& scales) const;
  std::vector<float> Search(const ScaledInput& input, const std::vector<Consumer>& consumers,
                            const ColumnMoments& moments, std::span<const float> h) const;
  void Fold(const ScaledInput& input, const std::vector<float>& scales);

  const Checkpoint& model_;
  const CalibrationFile& calibration_;
  ScaleMethod method_;
  ThreadPool* pool_;
  std::unordered_map<std::string, const TensorPlan*> entries_;
  TensorChanges changes_;
  std::unordered_map<std::string, std::vector<float>> divisors_;  // of weights' inputs
  size_t inputs_ = 0, scaled_ = 0;
};

Result<ColumnMoments> Scaler::Moments(const std::string& weight, size_t columns) const {
  EW_TRY(ColumnMoments moments, calibration_.Moments(weight, columns));
  if (!calibration_.HasMagnitudes(weight)) {
    return MakeError(Code::kInvalidArgument,
                     "%s: holds no magnitudes of the inputs, as llama.cpp's importance matrices "
                     "do not; make a calibration with `edgewise calibrate`",
                     calibration_.path().c_str());
  }
  return moments;
}

Result<std::vector<Consumer>> Scaler::Load(const ScaledInput& input) const {
  std::vector<Consumer> consumers;
  // The maxima of SmoothQuant are over all rows.
  const size_t limit = method_ == ScaleMethod::kAwq ? kScaleSearchRows : SIZE_MAX;
  for (const std::string& name : input.consumers) {
    const auto entry = entries_.find(name);
    if (entry == entries_.end()) continue;
    EW_TRY(std::vector<float> rows, LoadRows(model_, entry->second->source, limit));
    consumers.push_back({std::move(rows), entry->second->to});
  }
  return consumers;
}

// What the columns of one row of the producer have in common, one number each.
template <class Combine>
std::vector<float> PerRow(const ScaledInput& input, size_t columns, Combine combine) {
  std::vector<float> rows(input.count);
  for (size_t c = 0; c < columns; ++c) {
    float& row = rows[RowOf(input, c)];
    row = combine(row, c);
  }
  return rows;
}

// Divides by the mean and sets a floor, so that any power of it is usable.
std::vector<float> Relative(std::vector<float> values) {
  double mean = 0;
  for (const float value : values) mean += value / static_cast<double>(values.size());
  for (float& value : values) {
    value = mean > 0 ? std::max(static_cast<float>(value / mean), kSmallest) : 1.0f;
  }
  return values;
}

std::vector<float> PerColumn(const ScaledInput& input, const std::vector<float>& rows) {
  std::vector<float> columns(input.count * input.sharers);
  for (size_t c = 0; c < columns.size(); ++c) columns[c] = rows[RowOf(input, c)];
  return columns;
}

// s = sqrt(max|x| / max|w|), 1 for columns without inputs or weights.
std::vector<float> Smooth(const ScaledInput& input, const std::vector<Consumer>& consumers,
                          const ColumnMoments& moments) {
  const size_t n = moments.columns();
  const auto x =
      PerRow(input, n, [&](float most, size_t c) { return std::max(most, moments.max_abs[c]); });
  const auto w = PerRow(input, n, [&](float most, size_t c) {
    for (const Consumer& consumer : consumers) {
      for (size_t i = c; i < consumer.values.size(); i += n) {
        most = std::max(most, std::fabs(consumer.values[i]));
      }
    }
    return most;
  });
  std::vector<float> scales(input.count);
  for (size_t r = 0; r < scales.size(); ++r) {
    scales[r] = x[r] > 0 && w[r] > 0 ? std::sqrt(x[r] / w[r]) : 1.0f;
  }
  return scales;
}

double Scaler::ErrorOf(const ScaledInput& input, const std::vector<Consumer>& consumers,
                       const ColumnMoments& moments, std::span<const float> h,
                       const std::vector<float>& scales) const {
  const std::vector<float> columns = PerColumn(input, scales);
  std::vector<float> importance(columns.size());
  for (size_t c = 0; c < columns.size(); ++c) {
    importance[c] =
        static_cast<float>(moments.sum_squares[c] / static_cast<double>(moments.tokens)) /
        (columns[c] * columns[c]);
  }
  double error = 0;
  for (const Consumer& consumer : consumers) {
    error +=
        OutputError(consumer.values, columns.size(), {consumer.to, importance, columns}, h, pool_);
  }
  return error;
}

std::vector<float> Scaler::Search(const ScaledInput& input, const std::vector<Consumer>& consumers,
                                  const ColumnMoments& moments, std::span<const float> h) const {
  const size_t n = moments.columns();
  const auto x = Relative(PerRow(input, n, [&](float sum, size_t c) {
    return sum + static_cast<float>(moments.sum_abs[c] / static_cast<double>(moments.tokens));
  }));
  const auto w = Relative(PerRow(input, n, [&](float sum, size_t c) {
    for (const Consumer& consumer : consumers) {
      for (size_t i = c; i < consumer.values.size(); i += n) sum += std::fabs(consumer.values[i]);
    }
    return sum;
  }));
  std::vector<float> best(input.count, 1.0f);
  double least = ErrorOf(input, consumers, moments, h, best);
  for (int step = 0; step < kScalePowers; ++step) {
    const float power = static_cast<float>(step) / kScalePowers;
    std::vector<float> scales(input.count);
    for (size_t r = 0; r < scales.size(); ++r) {
      scales[r] = std::pow(x[r], power) / std::pow(w[r], 1 - power);
    }
    const auto [low, high] = std::minmax_element(scales.begin(), scales.end());
    const float middle = std::sqrt(*low) * std::sqrt(*high);
    for (float& scale : scales) scale /= middle;
    const double error = ErrorOf(input, consumers, moments, h, scales);
    if (!(error < least)) continue;
    least = error;
    best = std::move(scales);
  }
  return best;
}

void Scaler::Fold(const ScaledInput& input, const std::vector<float>& scales) {
  const std::vector<float> columns = PerColumn(input, scales);
  for (const std::string& name : input.consumers) {
    changes_.Add(name, [columns](std::span<float> values) { ScaleColumns(values, columns); });
    divisors_.emplace(name, columns);
  }
  std::vector<float> inverse(input.rows, 1.0f);
  for (size_t r = 0; r < scales.size(); ++r) inverse[input.first + r] = 1 / scales[r];
  for (const char* part : {".weight", ".bias"}) {
    changes_.Add(input.producer + part,
                 [inverse](std::span<float> values) { ScaleRows(values, inverse); });
  }
}

Status Scaler::Scale(const ScaledInput& input) {
  EW_TRY(const std::vector<Consumer> consumers, Load(input));
  if (consumers.empty()) return Ok{};
  ++inputs_;
  const std::string& weight = input.consumers.front();
  EW_TRY(const ColumnMoments moments, Moments(weight, input.count * input.sharers));
  std::vector<float> scales;
  if (method_ == ScaleMethod::kAwq) {
    EW_TRY(const std::vector<float> h, calibration_.Hessian(weight, moments.columns()));
    scales = Search(input, consumers, moments, h);
  } else {
    scales = Smooth(input, consumers, moments);
  }
  if (std::all_of(scales.begin(), scales.end(), [](float s) { return s == 1.0f; })) return Ok{};
  ++scaled_;
  Fold(input, scales);
  return Ok{};
}

Result<Scaling> Scaler::Run(Progress* progress) {
  const ModelSpec& spec = model_.spec();
  for (uint32_t layer = 0; layer < spec.n_layers; ++layer) {
    for (const ScaledInput& input : InputsOf(spec, layer)) EW_TRY(Scale(input));
    progress->Update("scaling", layer + 1, spec.n_layers);
    if (progress->Cancelled()) return MakeError(Code::kCancelled, "stopped; nothing was written");
  }
  if (scaled_ == 0) return Scaling{model_, calibration_, inputs_, 0};
  return Scaling{std::move(changes_).Apply(), calibration_.Divided(std::move(divisors_)), inputs_,
                 scaled_};
}

}  // namespace

Result<Scaling> ScaleInputs(const Checkpoint& model, std::span<const TensorPlan> plan,
                            const CalibrationFile& calibration, ScaleMethod method,
                            ThreadPool* pool, Progress* progress) {
  return Scaler(model, plan, calibration, method, pool).Run(progress);
}

}  // namespace edgewise
