// IQ4_NL and IQ4_XS: codes of 4 bits into a table of 16 uneven values.
#include <cstring>

#include "quant/codecs.h"
#include "quant/forms.h"
#include "quant/legacy.h"
#include "quant/superblock.h"

namespace edgewise::quant {
namespace {

constexpr float kStarts[] = {-127.0f, -120.0f, -113.0f, -106.0f, -134.0f,
                             113.0f,  119.0f,  126.0f,  106.0f};

// Position of each of the values in the table, by value + 128.
struct CodeTable {
  constexpr CodeTable() {
    for (int k = 0; k < 16; ++k) code[kIq4NlValues[k] + 128] = static_cast<uint8_t>(k);
  }
  uint8_t code[256] = {};
};
constexpr CodeTable kCodes;

void PackGroup(const int8_t* values, uint8_t* qs) {
  for (int j = 0; j < 16; ++j) {
    qs[j] =
        static_cast<uint8_t>(kCodes.code[values[j] + 128] | kCodes.code[values[j + 16] + 128] << 4);
  }
}

void DecodeGroup(const uint8_t* qs, float scale, float* values) {
  for (int j = 0; j < 16; ++j) {
    values[j] = scale * static_cast<float>(kIq4NlValues[qs[j] & 15]);
    values[j + 16] = scale * static_cast<float>(kIq4NlValues[qs[j] >> 4]);
  }
}

void UnpackGroup(const uint8_t* qs, int8_t* values) {
  for (int j = 0; j < 16; ++j) {
    values[j] = kIq4NlValues[qs[j] & 15];
    values[j + 16] = kIq4NlValues[qs[j] >> 4];
  }
}

void UnpackNl(const void* data, BlockParts* parts) {
  const BlockIQ4_NL& block = *static_cast<const BlockIQ4_NL*>(data);
  parts->d = block.d;
  parts->scale[0] = 1;
  UnpackGroup(block.qs, parts->value);
}

void PackNl(const BlockParts& parts, void* data) {
  BlockIQ4_NL* block = static_cast<BlockIQ4_NL*>(data);
  block->d = parts.d;
  PackGroup(parts.value, block->qs);
}

// Scale of group g of IQ4_XS, -32 to 31.
int ScaleXs(const BlockIQ4_XS& block, int g) {
  const int low = (block.scales_l[g / 2] >> (4 * (g % 2))) & 15;
  const int high = (block.scales_h >> (2 * g)) & 3;
  return (low | high << 4) - 32;
}

void UnpackXs(const void* data, BlockParts* parts) {
  const BlockIQ4_XS& block = *static_cast<const BlockIQ4_XS*>(data);
  parts->d = block.d;
  for (int g = 0; g < 8; ++g) {
    parts->scale[g] = static_cast<int16_t>(ScaleXs(block, g));
    UnpackGroup(block.qs + 16 * g, parts->value + 32 * g);
  }
}

void PackXs(const BlockParts& parts, void* data) {
  BlockIQ4_XS* block = static_cast<BlockIQ4_XS*>(data);
  block->d = parts.d;
  uint32_t high = 0;
  std::memset(block->scales_l, 0, sizeof(block->scales_l));
  for (int g = 0; g < 8; ++g) {
    const uint32_t code = static_cast<uint32_t>(parts.scale[g] + 32);
    block->scales_l[g / 2] |= static_cast<uint8_t>((code & 15) << (4 * (g % 2)));
    high |= (code >> 4) << (2 * g);
    PackGroup(parts.value + 32 * g, block->qs + 16 * g);
  }
  block->scales_h = static_cast<uint16_t>(high);
}

}  // namespace

void DecodeIQ4_NL(const void* blocks, float* values, size_t n) {
  const BlockIQ4_NL* block = static_cast<const BlockIQ4_NL*>(blocks);
  for (size_t i = 0; i < n; i += 32, ++block) {
    DecodeGroup(block->qs, HalfToFloat(block->d), values + i);
  }
}

void DecodeIQ4_XS(const void* blocks, float* values, size_t n) {
  const BlockIQ4_XS* block = static_cast<const BlockIQ4_XS*>(blocks);
  for (size_t i = 0; i < n; i += kSuper, ++block) {
    const float d = HalfToFloat(block->d);
    for (int g = 0; g < 8; ++g) {
      DecodeGroup(block->qs + 16 * g, d * static_cast<float>(ScaleXs(*block, g)),
                  values + i + 32 * g);
    }
  }
}

void EncodeIQ4_NL(const float* values, const float* weights, void* blocks, size_t n) {
  EncodeType0<Iq4NlGrid, BlockIQ4_NL>(
      values, weights, blocks, n, kStarts, 2,
      [](BlockIQ4_NL& block, const int8_t* q) { PackGroup(q, block.qs); });
}

void EncodeIQ4_XS(const float* values, const float* weights, void* blocks, size_t n) {
  BlockIQ4_XS* block = static_cast<BlockIQ4_XS*>(blocks);
  for (size_t i = 0; i < n; i += kSuper, ++block) {
    SuperTiles<32> super;
    FillSuper(values + i, weights == nullptr ? nullptr : weights + i, super);
    BlockParts parts;
    const auto fit = FitSuper0<Iq4NlGrid, -32, 31>(super, kStarts, 2, 2,
                                                   reinterpret_cast<int8_t(*)[32]>(parts.value));
    float scale[kLanes];
    Store(fit.scale[0], scale);
    for (int g = 0; g < 8; ++g) parts.scale[g] = static_cast<int16_t>(scale[g]);
    parts.d = fit.half;
    PackXs(parts, block);
  }
}

const BlockForm kFormIQ4_NL = {32, -127, 113, kIq4NlValues, 1, 1, 0, 0, UnpackNl, PackNl};
const BlockForm kFormIQ4_XS = {32, -127, 113, kIq4NlValues, -32, 31, 0, 0, UnpackXs, PackXs};

}  // namespace edgewise::quant
