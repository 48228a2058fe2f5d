// IQ4_NL and IQ4_XS: codes of 4 bits into a table of 16 uneven values.
#include <cstring>

#include "quant/codecs.h"
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
      const int low = (block->scales_l[g / 2] >> (4 * (g % 2))) & 15;
      const int high = (block->scales_h >> (2 * g)) & 3;
      DecodeGroup(block->qs + 16 * g, d * static_cast<float>((low | high << 4) - 32),
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
    int8_t q[8][32];
    const auto fit = FitSuper0<Iq4NlGrid, -32, 31>(super, kStarts, 2, 2, q);
    float scale[kLanes];
    Store(fit.scale[0], scale);
    uint32_t high = 0;
    std::memset(block->scales_l, 0, sizeof(block->scales_l));
    for (int g = 0; g < 8; ++g) {
      const uint32_t code = static_cast<uint32_t>(static_cast<int>(scale[g]) + 32);
      block->scales_l[g / 2] |= static_cast<uint8_t>((code & 15) << (4 * (g % 2)));
      high |= (code >> 4) << (2 * g);
      PackGroup(q[g], block->qs + 16 * g);
    }
    block->scales_h = static_cast<uint16_t>(high);
    block->d = fit.half;
  }
}

}  // namespace edgewise::quant
