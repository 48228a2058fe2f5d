// Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: blocks of 32 values with one scale, and a minimum in type 1.
#include "quant/legacy.h"

#include <cstring>

#include "quant/block_parts.h"
#include "quant/codecs.h"
#include "quant/forms.h"

namespace edgewise::quant {
namespace {

// Stores 32 codes of 4 bits: element j in the low nibble of byte j, j + 16 in the high one.
void PackNibbles(const uint8_t* codes, uint8_t* qs) {
  for (int j = 0; j < 16; ++j) {
    qs[j] = static_cast<uint8_t>((codes[j] & 15) | (codes[j + 16] << 4));
  }
}

// Stores bit 4 of 32 codes.
void PackHighBits(const uint8_t* codes, uint8_t* qh) {
  uint32_t bits = 0;
  for (int j = 0; j < 32; ++j) bits |= static_cast<uint32_t>((codes[j] >> 4) & 1) << j;
  for (int k = 0; k < 4; ++k) qh[k] = static_cast<uint8_t>(bits >> (8 * k));
}

uint32_t HighBits(const uint8_t* qh) {
  uint32_t bits = 0;
  for (int k = 0; k < 4; ++k) bits |= static_cast<uint32_t>(qh[k]) << (8 * k);
  return bits;
}

// Codes of grid values that start at `low`.
struct Codes {
  Codes(const int8_t* values, int low) {
    for (int j = 0; j < 32; ++j) code[j] = static_cast<uint8_t>(values[j] - low);
  }
  uint8_t code[32];
};

void UnpackNibbles(const uint8_t* qs, int low, int8_t* values) {
  for (int j = 0; j < 16; ++j) {
    values[j] = static_cast<int8_t>((qs[j] & 15) + low);
    values[j + 16] = static_cast<int8_t>((qs[j] >> 4) + low);
  }
}

void AddHighBits(const uint8_t* qh, int8_t* values) {
  const uint32_t bits = HighBits(qh);
  for (int j = 0; j < 32; ++j) values[j] = static_cast<int8_t>(values[j] + 16 * ((bits >> j) & 1));
}

// 32 grid values into a block and out of it.
void PackValues(const int8_t* values, BlockQ4_0* block) {
  PackNibbles(Codes(values, -8).code, block->qs);
}
void PackValues(const int8_t* values, BlockQ4_1* block) {
  PackNibbles(Codes(values, 0).code, block->qs);
}
template <int kLow, class Block>
void PackFiveBits(const int8_t* values, Block* block) {
  const Codes codes(values, kLow);
  PackNibbles(codes.code, block->qs);
  PackHighBits(codes.code, block->qh);
}
void PackValues(const int8_t* values, BlockQ5_0* block) { PackFiveBits<-16>(values, block); }
void PackValues(const int8_t* values, BlockQ5_1* block) { PackFiveBits<0>(values, block); }
// -128 stays unused, as in ggml: some of its kernels negate codes.
void PackValues(const int8_t* values, BlockQ8_0* block) { std::memcpy(block->qs, values, 32); }

void UnpackValues(const BlockQ4_0& block, int8_t* values) { UnpackNibbles(block.qs, -8, values); }
void UnpackValues(const BlockQ4_1& block, int8_t* values) { UnpackNibbles(block.qs, 0, values); }
void UnpackValues(const BlockQ5_0& block, int8_t* values) {
  UnpackNibbles(block.qs, -16, values);
  AddHighBits(block.qh, values);
}
void UnpackValues(const BlockQ5_1& block, int8_t* values) {
  UnpackNibbles(block.qs, 0, values);
  AddHighBits(block.qh, values);
}
void UnpackValues(const BlockQ8_0& block, int8_t* values) { std::memcpy(values, block.qs, 32); }

constexpr uint16_t kSignBit = 0x8000;  // of a half

template <class Block>
constexpr bool kHasOffset = requires(Block b) { b.m; };

template <class Block>
void Unpack(const void* data, BlockParts* parts) {
  const Block& block = *static_cast<const Block*>(data);
  parts->d = block.d;
  parts->scale[0] = 1;
  if constexpr (kHasOffset<Block>) {
    parts->dmin = block.m ^ kSignBit;
    parts->min[0] = 1;
  }
  UnpackValues(block, parts->value);
}

template <class Block>
void Pack(const BlockParts& parts, void* data) {
  Block* block = static_cast<Block*>(data);
  block->d = parts.d;
  if constexpr (kHasOffset<Block>) block->m = parts.dmin ^ kSignBit;
  PackValues(parts.value, block);
}

template <class Block, int kLow, int kHigh>
constexpr BlockForm kForm = {32,
                             kLow,
                             kHigh,
                             nullptr,
                             1,
                             1,
                             kHasOffset<Block> ? 1 : 0,
                             kHasOffset<Block> ? 1 : 0,
                             Unpack<Block>,
                             Pack<Block>};

// Encodes x = d * q + m blocks. The minimum is rounded first, then d fits what is left. Plain
// rounding over the range of the data stays where rounding to halves spoils the fit.
template <int kHigh, class Block, size_t kStarts>
void EncodeType1(const float* values, const float* weights, void* out, size_t n,
                 const Reach (&starts)[kStarts], int ascents) {
  using Grid = IntegerGrid<0, kHigh>;
  Block* block = static_cast<Block*>(out);
  for (size_t i = 0; i < n; i += 32 * kLanes) {
    const size_t count = std::min<size_t>(n - i, 32 * kLanes);
    BlockTile b;
    FillBlocks(values + i, weights == nullptr ? nullptr : weights + i, count, b);
    const ScaleMin fit = SearchScaleMin<kHigh, false>(b.tile, starts, ascents);
    uint16_t d[2][kLanes], m[2][kLanes];
    const Floats fit_m = RoundToHalves(fit.m, b, m[0]);
    Scale0 again = {fit.d, Splat(3e38f), Splat(0.0f)};
    Tile<32> shifted = b.tile;
    for (int j = 0; j < 32; ++j) Store(Load(b.tile.x[j]) - fit_m, shifted.x[j]);
    TryScale<Grid>(shifted, Inverse(fit.d), again);
    const Floats fit_d = RoundToHalves(again.d, b, d[0]);
    Floats low = Load(b.tile.x[0]), high = low;
    for (int j = 1; j < 32; ++j) {
      low = Min(low, Load(b.tile.x[j]));
      high = Max(high, Load(b.tile.x[j]));
    }
    const Floats plain_m = RoundToHalves(low, b, m[1]);
    const Floats plain_d = RoundToHalves((high - low) * Splat(1.0f / kHigh), b, d[1]);
    const Floats fit_error = FixedError<Grid>(b.tile, fit_d, fit_m);
    const Floats plain_error = FixedError<Grid>(b.tile, plain_d, plain_m);
    const Mask plain = plain_error < fit_error;
    float gain[kLanes];
    Store(plain_error - fit_error, gain);
    int8_t q[kLanes][32];
    Quantize<Grid>(b.tile, Select(plain, plain_d, fit_d), Select(plain, plain_m, fit_m), q);
    for (int lane = 0; lane < static_cast<int>(count / 32); ++lane, ++block) {
      block->d = d[gain[lane] < 0][lane];
      block->m = m[gain[lane] < 0][lane];
      PackValues(q[lane], block);
    }
  }
}

}  // namespace

void FillBlocks(const float* values, const float* weights, size_t n, BlockTile& out) {
  static constexpr float kZeros[32] = {};
  for (int lane = 0; lane < kLanes; ++lane) {
    const size_t begin = 32 * static_cast<size_t>(lane);
    const bool used = begin < n;
    const float* x = used ? values + begin : kZeros;
    const float* w = used && weights != nullptr ? UsableWeights(weights + begin, 32) : nullptr;
    out.power[lane] = Normalizer(x, 32);
    FillLane(out.tile, lane, x, out.power[lane].scale, w,
             w == nullptr ? 1.0f : Normalizer(w, 32).scale);
  }
}

Floats RoundToHalves(Floats values, const BlockTile& blocks, uint16_t* halves) {
  float v[kLanes];
  Store(values, v);
  for (int lane = 0; lane < kLanes; ++lane) {
    halves[lane] = FiniteHalf(v[lane] * blocks.power[lane].inverse);
    v[lane] = HalfToFloat(halves[lane]) * blocks.power[lane].scale;
  }
  return Load(v);
}

void DecodeQ4_0(const void* blocks, float* values, size_t n) {
  const BlockQ4_0* block = static_cast<const BlockQ4_0*>(blocks);
  for (size_t i = 0; i < n; i += 32, ++block) {
    const float d = HalfToFloat(block->d);
    for (int j = 0; j < 16; ++j) {
      values[i + j] = static_cast<float>((block->qs[j] & 15) - 8) * d;
      values[i + j + 16] = static_cast<float>((block->qs[j] >> 4) - 8) * d;
    }
  }
}

void DecodeQ4_1(const void* blocks, float* values, size_t n) {
  const BlockQ4_1* block = static_cast<const BlockQ4_1*>(blocks);
  for (size_t i = 0; i < n; i += 32, ++block) {
    const float d = HalfToFloat(block->d), m = HalfToFloat(block->m);
    for (int j = 0; j < 16; ++j) {
      values[i + j] = static_cast<float>(block->qs[j] & 15) * d + m;
      values[i + j + 16] = static_cast<float>(block->qs[j] >> 4) * d + m;
    }
  }
}

void DecodeQ5_0(const void* blocks, float* values, size_t n) {
  const BlockQ5_0* block = static_cast<const BlockQ5_0*>(blocks);
  for (size_t i = 0; i < n; i += 32, ++block) {
    const float d = HalfToFloat(block->d);
    const uint32_t high = HighBits(block->qh);
    for (int j = 0; j < 16; ++j) {
      const int low = (block->qs[j] & 15) | ((high >> j) & 1) << 4;
      const int up = (block->qs[j] >> 4) | ((high >> (j + 16)) & 1) << 4;
      values[i + j] = static_cast<float>(low - 16) * d;
      values[i + j + 16] = static_cast<float>(up - 16) * d;
    }
  }
}

void DecodeQ5_1(const void* blocks, float* values, size_t n) {
  const BlockQ5_1* block = static_cast<const BlockQ5_1*>(blocks);
  for (size_t i = 0; i < n; i += 32, ++block) {
    const float d = HalfToFloat(block->d), m = HalfToFloat(block->m);
    const uint32_t high = HighBits(block->qh);
    for (int j = 0; j < 16; ++j) {
      const int low = (block->qs[j] & 15) | ((high >> j) & 1) << 4;
      const int up = (block->qs[j] >> 4) | ((high >> (j + 16)) & 1) << 4;
      values[i + j] = static_cast<float>(low) * d + m;
      values[i + j + 16] = static_cast<float>(up) * d + m;
    }
  }
}

void DecodeQ8_0(const void* blocks, float* values, size_t n) {
  const BlockQ8_0* block = static_cast<const BlockQ8_0*>(blocks);
  for (size_t i = 0; i < n; i += 32, ++block) {
    const float d = HalfToFloat(block->d);
    for (int j = 0; j < 32; ++j) values[i + j] = static_cast<float>(block->qs[j]) * d;
  }
}

void EncodeQ4_0(const float* values, const float* weights, void* blocks, size_t n) {
  static constexpr float kStarts[] = {-8.0f, -7.0f, -7.5f, -8.5f, -9.0f, 6.8f, 7.3f, 7.9f};
  EncodeType0<IntegerGrid<-8, 7>, BlockQ4_0>(
      values, weights, blocks, n, kStarts, 2,
      [](BlockQ4_0& block, const int8_t* q) { PackValues(q, &block); });
}

void EncodeQ4_1(const float* values, const float* weights, void* blocks, size_t n) {
  EncodeType1<15, BlockQ4_1>(values, weights, blocks, n, kReach4, 2);
}

void EncodeQ5_0(const float* values, const float* weights, void* blocks, size_t n) {
  static constexpr float kStarts[] = {-16.0f, -15.0f, -15.5f, -16.6f, -17.2f, 14.6f, 15.3f};
  EncodeType0<IntegerGrid<-16, 15>, BlockQ5_0>(
      values, weights, blocks, n, kStarts, 2,
      [](BlockQ5_0& block, const int8_t* q) { PackValues(q, &block); });
}

void EncodeQ5_1(const float* values, const float* weights, void* blocks, size_t n) {
  EncodeType1<31, BlockQ5_1>(values, weights, blocks, n, kReach5, 2);
}

void EncodeQ8_0(const float* values, const float* weights, void* blocks, size_t n) {
  static constexpr float kStarts[] = {127.0f, 126.2f, 125.4f, 124.3f, 123.1f, 121.7f};
  EncodeType0<IntegerGrid<-127, 127>, BlockQ8_0>(
      values, weights, blocks, n, kStarts, 1,
      [](BlockQ8_0& block, const int8_t* q) { PackValues(q, &block); });
}

const BlockForm kFormQ4_0 = kForm<BlockQ4_0, -8, 7>;
const BlockForm kFormQ4_1 = kForm<BlockQ4_1, 0, 15>;
const BlockForm kFormQ5_0 = kForm<BlockQ5_0, -16, 15>;
const BlockForm kFormQ5_1 = kForm<BlockQ5_1, 0, 31>;
const BlockForm kFormQ8_0 = kForm<BlockQ8_0, -127, 127>;

}  // namespace edgewise::quant
