#include "train/top_k.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/half.h"
#include "base/strings.h"
#include "kernels/kernels.h"

namespace edgewise::train {
namespace {

constexpr float kLeastHalf = -65504;  // whose exponential is 0 in any float
constexpr double kSumTolerance = 0.01;

// Ids of the k largest values, rising.
std::vector<int32_t> Largest(const float* x, const TopKShape& shape) {
  const auto better = [x](int32_t a, int32_t b) { return x[a] > x[b] || (x[a] == x[b] && a < b); };
  std::vector<int32_t> ids(shape.k);
  std::iota(ids.begin(), ids.end(), 0);
  std::make_heap(ids.begin(), ids.end(), better);  // the worst one in front
  for (uint32_t i = shape.k; i < shape.vocabulary; ++i) {
    if (!(x[i] > x[ids.front()])) continue;
    std::pop_heap(ids.begin(), ids.end(), better);
    ids.back() = static_cast<int32_t>(i);
    std::push_heap(ids.begin(), ids.end(), better);
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

void PutHalf(double value, std::byte* out) {
  const uint16_t half = FloatToHalf(std::max(static_cast<float>(std::min(value, 0.0)), kLeastHalf));
  std::memcpy(out, &half, sizeof(half));
}

}  // namespace

size_t CopyOthers(const float* x, size_t n, std::span<const int32_t> ids, float* others) {
  size_t first = 0;
  float* out = others;
  const auto copy_until = [&](size_t end) {
    std::memmove(out, x + first, (end - first) * sizeof(float));
    out += end - first;
  };
  for (const int32_t id : ids) {
    copy_until(static_cast<size_t>(id));
    first = static_cast<size_t>(id) + 1;
  }
  copy_until(n);
  return static_cast<size_t>(out - others);
}

Status EncodeTopK(const TopKShape& shape, double temperature, const float* logits,
                  std::byte* record) {
  const kernels::Kernels& kernel = kernels::Active();
  const size_t n = shape.vocabulary;
  if (!std::all_of(logits, logits + n, [](float x) { return std::isfinite(x); })) {
    return MakeError(Code::kBadData, "the teacher's logits are not finite");
  }
  std::vector<float> scaled(n);
  for (size_t i = 0; i < n; ++i) scaled[i] = logits[i] / static_cast<float>(temperature);
  const double sum = kernel.log_sum_exp(scaled.data(), n);
  const std::vector<int32_t> ids = Largest(scaled.data(), shape);

  std::memset(record, 0, shape.record_bytes());
  const unsigned bits = shape.id_bits();
  uint64_t at = 0;
  for (const int32_t id : ids) {
    for (unsigned bit = 0; bit < bits; ++bit, ++at) {
      record[at / 8] |= static_cast<std::byte>((static_cast<uint32_t>(id) >> bit & 1u) << (at % 8));
    }
  }
  std::byte* out = record + shape.ids_bytes();
  for (const int32_t id : ids) {
    PutHalf(static_cast<double>(scaled[static_cast<size_t>(id)]) - sum, out);
    out += 2;
  }
  if (shape.k == shape.vocabulary) return Ok{};
  // What is left of the values when the kept ones are taken out.
  const size_t others = CopyOthers(scaled.data(), n, ids, scaled.data());
  PutHalf(kernel.log_sum_exp(scaled.data(), others) - sum, out);
  return Ok{};
}

Status DecodeTopK(const TopKShape& shape, const std::byte* record, int32_t* ids, float* log_p) {
  const unsigned bits = shape.id_bits();
  uint64_t at = 0;
  int64_t before = -1;
  for (uint32_t i = 0; i < shape.k; ++i) {
    uint32_t id = 0;
    for (unsigned bit = 0; bit < bits; ++bit, ++at) {
      id |= (std::to_integer<uint32_t>(record[at / 8]) >> (at % 8) & 1u) << bit;
    }
    if (id <= before || id >= shape.vocabulary) {
      return MakeError(Code::kBadData, "token %u of %u has id %u: not a rising one below %u", i,
                       shape.k, id, shape.vocabulary);
    }
    before = id;
    ids[i] = static_cast<int32_t>(id);
  }
  const std::byte* in = record + shape.ids_bytes();
  double sum = 0;
  for (uint64_t i = 0; i < shape.values(); ++i) {
    uint16_t half;
    std::memcpy(&half, in + 2 * i, sizeof(half));
    log_p[i] = HalfToFloat(half);
    if (!(log_p[i] <= 0 && log_p[i] >= kLeastHalf)) {
      return MakeError(Code::kBadData, "%g is no logarithm of a probability",
                       static_cast<double>(log_p[i]));
    }
    sum += std::exp(static_cast<double>(log_p[i]));
  }
  if (!(std::abs(sum - 1) <= kSumTolerance)) {
    return MakeError(Code::kBadData, "its probabilities sum to %g, not 1", sum);
  }
  const auto shift = static_cast<float>(std::log(sum));
  for (uint64_t i = 0; i < shape.values(); ++i) log_p[i] -= shift;
  return Ok{};
}

}  // namespace edgewise::train
