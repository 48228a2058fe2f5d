#include "quant/nf4.h"

#include <algorithm>
#include <cmath>

namespace edgewise::quant {

namespace {

// Above boundary i begins code i + 1. As bitsandbytes has them (csrc/kernels.cu, dQuantizeNF4):
// some are one unit in the last place beside the middle of their neighbours.
constexpr std::array<float, 15> kNf4Boundaries = {
    -0.8480964004993439f,  -0.6106329262256622f,  -0.4599952697753906f,   -0.33967943489551544f,
    -0.23460740596055984f, -0.13791173323988914f, -0.045525018125772476f, 0.03979014977812767f,
    0.1202552504837513f,   0.2035212516784668f,   0.2920137718319893f,    0.3893125355243683f,
    0.5016634166240692f,   0.6427869200706482f,   0.8614784181118011f};

float LargestMagnitude(std::span<const float> values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

}  // namespace

uint8_t Nf4Code(float x) {
  int code = 0;
  for (const float boundary : kNf4Boundaries) code += x > boundary ? 1 : 0;
  return static_cast<uint8_t>(code);
}

void EncodeNf4(std::span<const float> values, uint8_t* packed, float* absmax) {
  std::fill(packed, packed + (values.size() + 1) / 2, uint8_t{0});
  for (size_t begin = 0; begin < values.size(); begin += kNf4Block) {
    const auto block = values.subspan(begin, std::min(kNf4Block, values.size() - begin));
    const float largest = LargestMagnitude(block);
    // Of a block of zeros this is infinite, its products are NaN, and the codes 0.
    const float inverse = 1.0f / largest;
    for (size_t i = 0; i < block.size(); ++i) {
      const size_t at = begin + i;
      packed[at / 2] |= static_cast<uint8_t>(Nf4Code(block[i] * inverse) << (at % 2 == 0 ? 4 : 0));
    }
    absmax[begin / kNf4Block] = largest;
  }
}

void DecodeNibbles(const uint8_t* packed, std::span<const float, 16> map, const float* absmax,
                   size_t block, size_t n, float* values) {
  for (size_t i = 0; i < n; ++i) {
    const unsigned code = i % 2 == 0 ? packed[i / 2] >> 4 : packed[i / 2] & 15;
    values[i] = map[code] * absmax[i / block];
  }
}

std::array<float, 256> DynamicMap() {
  std::array<float, 256> map{};
  size_t count = 0;
  for (int decade = 0; decade < 7; ++decade) {
    const int intervals = 1 << decade;
    const float step = 0.9f / static_cast<float>(intervals);
    const float scale = static_cast<float>(std::pow(10.0, decade - 6));
    // Counted from the nearer end, as torch.linspace does.
    const auto boundary = [&](int i) {
      return i < (intervals + 1) / 2 ? 0.1f + step * static_cast<float>(i)
                                     : 1.0f - step * static_cast<float>(intervals - i);
    };
    for (int i = 0; i < intervals; ++i) {
      const float value = scale * ((boundary(i) + boundary(i + 1)) / 2.0f);
      map[count++] = value;
      map[count++] = -value;
    }
  }
  map[count++] = 0.0f;
  map[count++] = 1.0f;
  std::sort(map.begin(), map.end());
  return map;
}

// A bisection from the middle that keeps the bracket of the last two turns. Ties go to the value
// that it stands on, which may be the one above or below.
uint8_t DynamicCode(float x, std::span<const float, 256> map) {
  int at = 127, low = 0, high = 255;
  for (int step = 64; step > 0; step /= 2) {
    const bool above = x > map[static_cast<size_t>(at)];
    (above ? low : high) = at;
    at += above ? step : -step;
  }
  const float value = map[static_cast<size_t>(at)];
  if (x > value) {
    const float middle = (map[static_cast<size_t>(high)] + value) * 0.5f;
    return static_cast<uint8_t>(x > middle ? high : at);
  }
  const float middle = (map[static_cast<size_t>(low)] + value) * 0.5f;
  return static_cast<uint8_t>(x < middle ? low : at);
}

NestedAbsmax NestAbsmax(std::span<const float> absmax, std::span<const float, 256> map) {
  NestedAbsmax nested;
  double sum = 0;
  for (const float value : absmax) sum += static_cast<double>(value);
  nested.offset = static_cast<float>(sum / static_cast<double>(absmax.size()));
  std::vector<float> centred(absmax.begin(), absmax.end());
  for (float& value : centred) value -= nested.offset;
  for (size_t begin = 0; begin < centred.size(); begin += kAbsmaxBlock) {
    const auto block =
        std::span(centred).subspan(begin, std::min(kAbsmaxBlock, centred.size() - begin));
    const float largest = LargestMagnitude(block);
    const float inverse = 1.0f / largest;
    for (const float value : block) nested.codes.push_back(DynamicCode(value * inverse, map));
    nested.scales.push_back(largest);
  }
  return nested;
}

std::vector<float> DecodeAbsmax(std::span<const uint8_t> codes, std::span<const float, 256> map,
                                std::span<const float> scales, size_t block, float offset) {
  std::vector<float> values(codes.size());
  for (size_t i = 0; i < codes.size(); ++i) values[i] = map[codes[i]] * scales[i / block] + offset;
  return values;
}

}  // namespace edgewise::quant
