// NF4 as bitsandbytes stores it (Dettmers et al. 2023, "QLoRA"): codes of 4 bits into a table of 16
// values, a block of 64 values scaled by its largest magnitude ("absmax"), and those magnitudes in
// 8 bits themselves ("double quantization"): 4.127 bits per weight.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace edgewise::quant {

inline constexpr size_t kNf4Block = 64;      // values that share an absmax
inline constexpr size_t kAbsmaxBlock = 256;  // magnitudes that share a scale

// The 16 values, ascending: quantiles of a normal distribution, with exact -1, 0 and 1.
inline constexpr std::array<float, 16> kNf4Values = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

// Returns the code of the value nearest to `x`, which is scaled to [-1, 1], by bitsandbytes' own
// boundaries: at one the lower code, for NaN code 0.
uint8_t Nf4Code(float x);

// Writes the codes of `values`, two in a byte with the first in its high nibble, to `packed`
// ((n + 1) / 2 bytes), and each block's largest magnitude to `absmax` (n / 64, rounded up). Values
// are finite. A block of zeros gets code 0 and absmax 0.
void EncodeNf4(std::span<const float> values, uint8_t* packed, float* absmax);

// Decodes `n` values in blocks of `block`: map[code] * absmax of the block. Also of FP4, by its
// map.
void DecodeNibbles(const uint8_t* packed, std::span<const float, 16> map, const float* absmax,
                   size_t block, size_t n, float* values);

// Returns the 256 ascending values of the signed dynamic map (Dettmers 2016, "8-bit approximations
// for parallelism in deep learning"): 7 decades with 1, 2, 4, ... 64 means of even intervals of
// [0.1, 1] each, both signs, 0 and 1.
std::array<float, 256> DynamicMap();

// Returns the code that bitsandbytes' search finds for `x` in an ascending map: the nearest value.
uint8_t DynamicCode(float x, std::span<const float, 256> map);

// Block magnitudes in 8 bits: absmax[i] = map[codes[i]] * scales[i / 256] + offset.
struct NestedAbsmax {
  std::vector<uint8_t> codes;
  std::vector<float> scales;
  float offset = 0;  // the mean
};

NestedAbsmax NestAbsmax(std::span<const float> absmax, std::span<const float, 256> map);

// Decodes codes in blocks of `block`, with one rounding after the product and one after the sum.
std::vector<float> DecodeAbsmax(std::span<const uint8_t> codes, std::span<const float, 256> map,
                                std::span<const float> scales, size_t block, float offset);

}  // namespace edgewise::quant
