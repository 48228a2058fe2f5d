// Moments of gradients in 8 bits (Dettmers et al. 2022, "8-bit Optimizers via Block-wise
// Quantization"): a code for each value, on a grid of dynamic exponents, and a scale for each
// block.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace edgewise::train {

enum class MomentFormat : uint8_t { kF32, k8Bit };
// Errors: kInvalidArgument, listing the names: "f32", "8bit".
Result<MomentFormat> ParseMomentFormat(std::string_view name);
const char* MomentFormatName(MomentFormat format);

inline constexpr size_t kMomentBlock = 256;  // values that share a scale, their largest magnitude
inline constexpr size_t MomentBlocks(size_t n) { return (n + kMomentBlock - 1) / kMomentBlock; }

// The decayed means of n gradients and of their squares: floats (n), or with codes (n) the scales
// of blocks (MomentBlocks(n)).
struct Moments {
  float* mean;
  float* variance;
  uint8_t* mean_codes = nullptr;
  uint8_t* variance_codes = nullptr;
};

// 256 numbers from -1 or 0 to 1, denser towards 0: seven decades, each with twice as many steps as
// the one below it. Immutable.
class MomentGrid {
 public:
  static const MomentGrid& Signed();
  // Values that are not 0 never become 0: AdamW divides by their roots.
  static const MomentGrid& Unsigned();

  float Decode(uint8_t code) const { return values_[code]; }
  // The nearest, of |x| <= 1.
  uint8_t Encode(float x) const;

  // A block of n <= kMomentBlock values and back; returns the scale.
  void DecodeBlock(const uint8_t* codes, float scale, size_t n, float* values) const;
  float EncodeBlock(const float* values, size_t n, uint8_t* codes) const;

 private:
  explicit MomentGrid(bool is_signed);
  std::array<float, 256> values_;  // rising
  std::array<float, 255> middles_;
  std::vector<uint8_t> first_;  // by the upper 16 bits of a float: the least code of such values
  int zero_ = 0;                // the code of 0
  bool keeps_nonzero_;
};

}  // namespace edgewise::train
