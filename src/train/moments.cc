#include "train/moments.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/strings.h"

namespace edgewise::train {
namespace {

constexpr int kDecades = 7;

// The middles of as many equal steps from 0.1 to 1, times 10^decade.
void AppendDecade(int decade, int steps, float sign, std::vector<float>* values) {
  const double factor = std::pow(10.0, decade);
  for (int i = 0; i < steps; ++i) {
    const double middle = 0.1 + 0.9 * (i + 0.5) / steps;
    values->push_back(sign * static_cast<float>(factor * middle));
  }
}

}  // namespace

Result<MomentFormat> ParseMomentFormat(std::string_view name) {
  for (const MomentFormat known : {MomentFormat::kF32, MomentFormat::k8Bit}) {
    if (name == MomentFormatName(known)) return known;
  }
  return MakeError(Code::kInvalidArgument, "moments in %s: f32 and 8bit are known",
                   Quote(name).c_str());
}

const char* MomentFormatName(MomentFormat format) {
  return format == MomentFormat::kF32 ? "f32" : "8bit";
}

const MomentGrid& MomentGrid::Signed() {
  static const MomentGrid grid(true);
  return grid;
}

const MomentGrid& MomentGrid::Unsigned() {
  static const MomentGrid grid(false);
  return grid;
}

MomentGrid::MomentGrid(bool is_signed) : keeps_nonzero_(!is_signed) {
  std::vector<float> values = {0, 1};
  for (int i = 0; i < kDecades; ++i) {
    const int decade = i - kDecades + 1;
    if (is_signed) {
      AppendDecade(decade, 1 << i, 1, &values);
      AppendDecade(decade, 1 << i, -1, &values);
    } else {
      AppendDecade(decade, 2 << i, 1, &values);
    }
  }
  std::sort(values.begin(), values.end());
  std::copy(values.begin(), values.end(), values_.begin());
  zero_ = static_cast<int>(std::find(values_.begin(), values_.end(), 0.0f) - values_.begin());
  for (size_t i = 0; i < middles_.size(); ++i) middles_[i] = (values_[i] + values_[i + 1]) / 2;
  first_.resize(1u << 16);
  for (uint32_t upper = 0; upper < first_.size(); ++upper) {
    const bool negative = (upper & 0x8000) != 0;
    const auto least = std::bit_cast<float>((upper << 16) | (negative ? 0xFFFFu : 0u));
    const auto at = std::lower_bound(middles_.begin(), middles_.end(), least);
    first_[upper] = std::isnan(least) ? uint8_t{0} : static_cast<uint8_t>(at - middles_.begin());
  }
}

uint8_t MomentGrid::Encode(float x) const {
  size_t code = first_[std::bit_cast<uint32_t>(x) >> 16];
  while (code < middles_.size() && x > middles_[code]) ++code;
  if (keeps_nonzero_ && static_cast<int>(code) == zero_ && x != 0) ++code;
  return static_cast<uint8_t>(code);
}

void MomentGrid::DecodeBlock(const uint8_t* codes, float scale, size_t n, float* values) const {
  for (size_t i = 0; i < n; ++i) values[i] = scale * values_[codes[i]];
}

float MomentGrid::EncodeBlock(const float* values, size_t n, uint8_t* codes) const {
  float scale = 0;
  for (size_t i = 0; i < n; ++i) scale = std::max(scale, std::fabs(values[i]));
  if (!(scale > 0)) {
    std::fill_n(codes, n, static_cast<uint8_t>(zero_));
    return 0;
  }
  // A division, not a product with 1 / scale: that overflows where scale is subnormal.
  for (size_t i = 0; i < n; ++i) codes[i] = Encode(values[i] / scale);
  return scale;
}

}  // namespace edgewise::train
