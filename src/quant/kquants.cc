// Q2_K to Q6_K: super-blocks of 256 values whose groups have integer scales (and minima).
#include <cstddef>
#include <cstring>

#include "quant/codecs.h"
#include "quant/forms.h"
#include "quant/superblock.h"

namespace edgewise::quant {
namespace {

// Group scale and minimum of Q4_K and Q5_K, 6 bits each.
struct ScaleMinCodes {
  int scale, min;
};

ScaleMinCodes UnpackScaleMin(const uint8_t* scales, int g) {
  if (g < 4) return {scales[g] & 63, scales[g + 4] & 63};
  return {(scales[g + 4] & 15) | (scales[g - 4] >> 6) << 4, (scales[g + 4] >> 4) | (scales[g] >> 6)
                                                                                       << 4};
}

void PackScaleMin(const int16_t* scale, const int16_t* min, uint8_t* scales) {
  for (int g = 0; g < 4; ++g) {
    scales[g] = static_cast<uint8_t>(scale[g] | (scale[g + 4] >> 4) << 6);
    scales[g + 4] = static_cast<uint8_t>(min[g] | (min[g + 4] >> 4) << 6);
    scales[g + 8] = static_cast<uint8_t>((scale[g + 4] & 15) | (min[g + 4] & 15) << 4);
  }
}

// Scale of group g of Q3_K, -32 to 31.
int UnpackScaleQ3(const uint8_t* scales, int g) {
  const int low = (scales[g % 8] >> (g < 8 ? 0 : 4)) & 15;
  const int high = (scales[8 + g % 4] >> (2 * (g / 4))) & 3;
  return (low | high << 4) - 32;
}

void PackScalesQ3(const int16_t* scale, uint8_t* scales) {
  std::memset(scales, 0, 12);
  for (int g = 0; g < 16; ++g) {
    const int code = scale[g] + 32;
    scales[g % 8] |= static_cast<uint8_t>((code & 15) << (g < 8 ? 0 : 4));
    scales[8 + g % 4] |= static_cast<uint8_t>((code >> 4) << (2 * (g / 4)));
  }
}

// The lanes of `tiles` as integers, group by group.
template <class T, int kTiles>
void StoreIntegers(const Floats (&tiles)[kTiles], T* out) {
  for (int t = 0; t < kTiles; ++t) {
    float x[kLanes];
    Store(tiles[t], x);
    for (int lane = 0; lane < kLanes; ++lane) out[t * kLanes + lane] = static_cast<T>(x[lane]);
  }
}

// Stores bits 0 and 1 of 256 codes as Q2_K, Q3_K (qs) and the high bits of Q6_K (qh) do.
void PackPairs(const uint8_t* codes, uint8_t* qs) {
  for (int h = 0; h < 2; ++h) {
    const uint8_t* c = codes + 128 * h;
    for (int l = 0; l < 32; ++l) {
      qs[32 * h + l] = static_cast<uint8_t>((c[l] & 3) | (c[l + 32] & 3) << 2 |
                                            (c[l + 64] & 3) << 4 | (c[l + 96] & 3) << 6);
    }
  }
}

// Stores bits 0 to 3 of 256 codes as Q4_K and Q5_K do.
void PackNibbles(const uint8_t* codes, uint8_t* qs) {
  for (int p = 0; p < 4; ++p) {
    for (int l = 0; l < 32; ++l) {
      qs[32 * p + l] =
          static_cast<uint8_t>((codes[64 * p + l] & 15) | (codes[64 * p + 32 + l] & 15) << 4);
    }
  }
}

// Codes of 256 grid values that start at `low`.
struct SuperCodes {
  SuperCodes(const int8_t* values, int low) {
    for (int j = 0; j < kSuper; ++j) code[j] = static_cast<uint8_t>(values[j] - low);
  }
  uint8_t code[kSuper];
};

void UnpackPairs(const uint8_t* qs, int8_t* values) {
  for (int j = 0; j < kSuper; ++j) {
    values[j] = static_cast<int8_t>((qs[32 * (j / 128) + j % 32] >> (2 * (j / 32 % 4))) & 3);
  }
}

void UnpackNibbles(const uint8_t* qs, int8_t* values) {
  for (int j = 0; j < kSuper; ++j) {
    values[j] = static_cast<int8_t>((qs[32 * (j / 64) + j % 32] >> (4 * (j / 32 % 2))) & 15);
  }
}

void UnpackQ2(const void* data, BlockParts* parts) {
  const BlockQ2_K& block = *static_cast<const BlockQ2_K*>(data);
  parts->d = block.d;
  parts->dmin = block.dmin;
  for (int g = 0; g < 16; ++g) {
    parts->scale[g] = block.scales[g] & 15;
    parts->min[g] = block.scales[g] >> 4;
  }
  UnpackPairs(block.qs, parts->value);
}

void PackQ2(const BlockParts& parts, void* data) {
  BlockQ2_K* block = static_cast<BlockQ2_K*>(data);
  block->d = parts.d;
  block->dmin = parts.dmin;
  for (int g = 0; g < 16; ++g) {
    block->scales[g] = static_cast<uint8_t>(parts.scale[g] | parts.min[g] << 4);
  }
  PackPairs(SuperCodes(parts.value, 0).code, block->qs);
}

void UnpackQ3(const void* data, BlockParts* parts) {
  const BlockQ3_K& block = *static_cast<const BlockQ3_K*>(data);
  parts->d = block.d;
  for (int g = 0; g < 16; ++g) {
    parts->scale[g] = static_cast<int16_t>(UnpackScaleQ3(block.scales, g));
  }
  UnpackPairs(block.qs, parts->value);
  for (int j = 0; j < kSuper; ++j) {
    const int high = (block.hmask[j % 32] >> (j / 32)) & 1;
    parts->value[j] = static_cast<int8_t>(parts->value[j] + 4 * high - 4);
  }
}

void PackQ3(const BlockParts& parts, void* data) {
  BlockQ3_K* block = static_cast<BlockQ3_K*>(data);
  block->d = parts.d;
  PackScalesQ3(parts.scale, block->scales);
  const SuperCodes codes(parts.value, -4);
  PackPairs(codes.code, block->qs);
  std::memset(block->hmask, 0, sizeof(block->hmask));
  for (int j = 0; j < kSuper; ++j) {
    block->hmask[j % 32] |= static_cast<uint8_t>((codes.code[j] >> 2) << (j / 32));
  }
}

// What Q4_K and Q5_K have in common.
template <class Block>
void UnpackScales(const Block& block, BlockParts* parts) {
  parts->d = block.d;
  parts->dmin = block.dmin;
  for (int g = 0; g < 8; ++g) {
    const ScaleMinCodes codes = UnpackScaleMin(block.scales, g);
    parts->scale[g] = static_cast<int16_t>(codes.scale);
    parts->min[g] = static_cast<int16_t>(codes.min);
  }
  UnpackNibbles(block.qs, parts->value);
}

template <class Block>
void PackScales(const BlockParts& parts, Block* block) {
  block->d = parts.d;
  block->dmin = parts.dmin;
  PackScaleMin(parts.scale, parts.min, block->scales);
}

void UnpackQ4(const void* data, BlockParts* parts) {
  UnpackScales(*static_cast<const BlockQ4_K*>(data), parts);
}

void PackQ4(const BlockParts& parts, void* data) {
  BlockQ4_K* block = static_cast<BlockQ4_K*>(data);
  PackScales(parts, block);
  PackNibbles(SuperCodes(parts.value, 0).code, block->qs);
}

void UnpackQ5(const void* data, BlockParts* parts) {
  const BlockQ5_K& block = *static_cast<const BlockQ5_K*>(data);
  UnpackScales(block, parts);
  for (int j = 0; j < kSuper; ++j) {
    const int high = (block.qh[j % 32] >> (j / 32)) & 1;
    parts->value[j] = static_cast<int8_t>(parts->value[j] + 16 * high);
  }
}

void PackQ5(const BlockParts& parts, void* data) {
  BlockQ5_K* block = static_cast<BlockQ5_K*>(data);
  PackScales(parts, block);
  const SuperCodes codes(parts.value, 0);
  PackNibbles(codes.code, block->qs);
  std::memset(block->qh, 0, sizeof(block->qh));
  for (int j = 0; j < kSuper; ++j) {
    block->qh[j % 32] |= static_cast<uint8_t>((codes.code[j] >> 4) << (j / 32));
  }
}

void UnpackQ6(const void* data, BlockParts* parts) {
  const BlockQ6_K& block = *static_cast<const BlockQ6_K*>(data);
  parts->d = block.d;
  for (int g = 0; g < 16; ++g) parts->scale[g] = block.scales[g];
  UnpackPairs(block.qh, parts->value);
  for (int j = 0; j < kSuper; ++j) {
    const int low = (block.ql[64 * (j / 128) + j % 64] >> (4 * (j / 64 % 2))) & 15;
    parts->value[j] = static_cast<int8_t>(low + 16 * parts->value[j] - 32);
  }
}

void PackQ6(const BlockParts& parts, void* data) {
  BlockQ6_K* block = static_cast<BlockQ6_K*>(data);
  block->d = parts.d;
  for (int g = 0; g < 16; ++g) block->scales[g] = static_cast<int8_t>(parts.scale[g]);
  const SuperCodes codes(parts.value, -32);
  uint8_t high[kSuper];
  for (int j = 0; j < kSuper; ++j) high[j] = codes.code[j] >> 4;
  PackPairs(high, block->qh);
  for (int j = 0; j < 128; ++j) {
    const uint8_t* c = codes.code + 128 * (j / 64) + j % 64;
    block->ql[j] = static_cast<uint8_t>((c[0] & 15) | (c[64] & 15) << 4);
  }
}

// The parts of a fit; the grid values are there already.
template <int kGroup>
void SetParts(const SuperFit0<kGroup>& fit, BlockParts* parts) {
  parts->d = fit.half;
  StoreIntegers(fit.scale, parts->scale);
}

template <int kGroup>
void SetParts(const SuperFit1<kGroup>& fit, BlockParts* parts) {
  parts->d = fit.half;
  parts->dmin = fit.half_min;
  StoreIntegers(fit.scale, parts->scale);
  StoreIntegers(fit.min, parts->min);
}

// Encodes each 256 values: `fit` fits one super-block and writes its grid values.
template <int kGroup, class Fit>
void EncodeSupers(const float* values, const float* weights, void* blocks, size_t n,
                  const DTypeInfo& info, Fit fit) {
  std::byte* block = static_cast<std::byte*>(blocks);
  for (size_t i = 0; i < n; i += kSuper, block += info.block_bytes) {
    SuperTiles<kGroup> super;
    FillSuper(values + i, weights == nullptr ? nullptr : weights + i, super);
    BlockParts parts;
    SetParts(fit(super, reinterpret_cast<int8_t(*)[kGroup]>(parts.value)), &parts);
    FormOf(info.id)->pack(parts, block);
  }
}

constexpr float kStarts3[] = {-4.0f, -3.6f, -3.2f, -4.4f, -4.8f, 3.0f, 2.7f, 3.4f, 3.8f};
constexpr float kStarts6[] = {-32.0f, -31.2f, -30.4f, -29.0f, -32.8f, 31.0f, 30.2f, 29.2f};
constexpr float kShrink4Bits[] = {0.0f, 0.7f, 1.5f, 2.5f};
constexpr float kShrink6Bits[] = {0.0f};

}  // namespace

void DecodeQ2_K(const void* blocks, float* values, size_t n) {
  const BlockQ2_K* block = static_cast<const BlockQ2_K*>(blocks);
  for (size_t i = 0; i < n; i += kSuper, ++block) {
    const float d = HalfToFloat(block->d), dmin = HalfToFloat(block->dmin);
    for (int g = 0; g < 16; ++g) {
      const float scale = d * static_cast<float>(block->scales[g] & 15);
      const float min = dmin * static_cast<float>(block->scales[g] >> 4);
      const uint8_t* qs = block->qs + 32 * (g / 8) + 16 * (g % 2);
      const int shift = 2 * (g / 2 % 4);
      for (int l = 0; l < 16; ++l) {
        values[i + 16 * g + l] = scale * static_cast<float>((qs[l] >> shift) & 3) - min;
      }
    }
  }
}

void DecodeQ3_K(const void* blocks, float* values, size_t n) {
  const BlockQ3_K* block = static_cast<const BlockQ3_K*>(blocks);
  for (size_t i = 0; i < n; i += kSuper, ++block) {
    const float d = HalfToFloat(block->d);
    for (int g = 0; g < 16; ++g) {
      const float scale = d * static_cast<float>(UnpackScaleQ3(block->scales, g));
      const uint8_t* qs = block->qs + 32 * (g / 8) + 16 * (g % 2);
      const uint8_t* high = block->hmask + 16 * (g % 2);
      const int shift = 2 * (g / 2 % 4), bit = g / 2;
      for (int l = 0; l < 16; ++l) {
        const int q = ((qs[l] >> shift) & 3) + 4 * ((high[l] >> bit) & 1) - 4;
        values[i + 16 * g + l] = scale * static_cast<float>(q);
      }
    }
  }
}

void DecodeQ4_K(const void* blocks, float* values, size_t n) {
  const BlockQ4_K* block = static_cast<const BlockQ4_K*>(blocks);
  for (size_t i = 0; i < n; i += kSuper, ++block) {
    const float d = HalfToFloat(block->d), dmin = HalfToFloat(block->dmin);
    for (int g = 0; g < 8; ++g) {
      const ScaleMinCodes codes = UnpackScaleMin(block->scales, g);
      const float scale = d * static_cast<float>(codes.scale);
      const float min = dmin * static_cast<float>(codes.min);
      const uint8_t* qs = block->qs + 32 * (g / 2);
      const int shift = 4 * (g % 2);
      for (int l = 0; l < 32; ++l) {
        values[i + 32 * g + l] = scale * static_cast<float>((qs[l] >> shift) & 15) - min;
      }
    }
  }
}

void DecodeQ5_K(const void* blocks, float* values, size_t n) {
  const BlockQ5_K* block = static_cast<const BlockQ5_K*>(blocks);
  for (size_t i = 0; i < n; i += kSuper, ++block) {
    const float d = HalfToFloat(block->d), dmin = HalfToFloat(block->dmin);
    for (int g = 0; g < 8; ++g) {
      const ScaleMinCodes codes = UnpackScaleMin(block->scales, g);
      const float scale = d * static_cast<float>(codes.scale);
      const float min = dmin * static_cast<float>(codes.min);
      const uint8_t* qs = block->qs + 32 * (g / 2);
      const int shift = 4 * (g % 2);
      for (int l = 0; l < 32; ++l) {
        const int q = ((qs[l] >> shift) & 15) + 16 * ((block->qh[l] >> g) & 1);
        values[i + 32 * g + l] = scale * static_cast<float>(q) - min;
      }
    }
  }
}

void DecodeQ6_K(const void* blocks, float* values, size_t n) {
  const BlockQ6_K* block = static_cast<const BlockQ6_K*>(blocks);
  for (size_t i = 0; i < n; i += kSuper, ++block) {
    const float d = HalfToFloat(block->d);
    for (int g = 0; g < 16; ++g) {
      const float scale = d * static_cast<float>(block->scales[g]);
      const uint8_t* low = block->ql + 64 * (g / 8) + 16 * (g % 4);
      const uint8_t* high = block->qh + 32 * (g / 8) + 16 * (g % 2);
      const int low_shift = 4 * (g / 4 % 2), high_shift = 2 * (g / 2 % 4);
      for (int l = 0; l < 16; ++l) {
        const int q = ((low[l] >> low_shift) & 15) + 16 * ((high[l] >> high_shift) & 3) - 32;
        values[i + 16 * g + l] = scale * static_cast<float>(q);
      }
    }
  }
}

void EncodeQ2_K(const float* values, const float* weights, void* blocks, size_t n) {
  EncodeSupers<16>(values, weights, blocks, n, Info(DType::kQ2_K), [](auto& super, auto* q) {
    return FitSuper1<3, 15>(super, kReach2, 2, kShrink4Bits, 3, q);
  });
}

void EncodeQ3_K(const float* values, const float* weights, void* blocks, size_t n) {
  EncodeSupers<16>(values, weights, blocks, n, Info(DType::kQ3_K), [](auto& super, auto* q) {
    return FitSuper0<IntegerGrid<-4, 3>, -32, 31>(super, kStarts3, 2, 3, q);
  });
}

void EncodeQ4_K(const float* values, const float* weights, void* blocks, size_t n) {
  EncodeSupers<32>(values, weights, blocks, n, Info(DType::kQ4_K), [](auto& super, auto* q) {
    return FitSuper1<15, 63>(super, kReach4, 3, kShrink6Bits, 3, q);
  });
}

void EncodeQ5_K(const float* values, const float* weights, void* blocks, size_t n) {
  EncodeSupers<32>(values, weights, blocks, n, Info(DType::kQ5_K), [](auto& super, auto* q) {
    return FitSuper1<31, 63>(super, kReach5, 3, kShrink6Bits, 3, q);
  });
}

void EncodeQ6_K(const float* values, const float* weights, void* blocks, size_t n) {
  EncodeSupers<16>(values, weights, blocks, n, Info(DType::kQ6_K), [](auto& super, auto* q) {
    return FitSuper0<IntegerGrid<-32, 31>, -128, 127>(super, kStarts6, 2, 2, q);
  });
}

const BlockForm kFormQ2_K = {16, 0, 3, nullptr, 0, 15, 0, 15, UnpackQ2, PackQ2};
const BlockForm kFormQ3_K = {16, -4, 3, nullptr, -32, 31, 0, 0, UnpackQ3, PackQ3};
const BlockForm kFormQ4_K = {32, 0, 15, nullptr, 0, 63, 0, 63, UnpackQ4, PackQ4};
const BlockForm kFormQ5_K = {32, 0, 31, nullptr, 0, 63, 0, 63, UnpackQ5, PackQ5};
const BlockForm kFormQ6_K = {16, -32, 31, nullptr, -128, 127, 0, 0, UnpackQ6, PackQ6};

}  // namespace edgewise::quant
