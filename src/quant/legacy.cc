// Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: blocks of 32 values with one scale, and a minimum in type 1.
#include "quant/legacy.h"

#include <cstring>

#include "quant/codecs.h"

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

// Encodes x = d * q + m blocks. The minimum is rounded first, then d fits what is left. Plain
// rounding over the range of the data stays where rounding to halves spoils the fit.
template <int kHigh, class Block, size_t kStarts, class Pack>
void EncodeType1(const float* values, const float* weights, void* out, size_t n,
                 const Reach (&starts)[kStarts], int ascents, Pack pack) {
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
      pack(*block, q[lane]);
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
      [](BlockQ4_0& block, const int8_t* q) { PackNibbles(Codes(q, -8).code, block.qs); });
}

void EncodeQ4_1(const float* values, const float* weights, void* blocks, size_t n) {
  EncodeType1<15, BlockQ4_1>(
      values, weights, blocks, n, kReach4, 2,
      [](BlockQ4_1& block, const int8_t* q) { PackNibbles(Codes(q, 0).code, block.qs); });
}

void EncodeQ5_0(const float* values, const float* weights, void* blocks, size_t n) {
  static constexpr float kStarts[] = {-16.0f, -15.0f, -15.5f, -16.6f, -17.2f, 14.6f, 15.3f};
  EncodeType0<IntegerGrid<-16, 15>, BlockQ5_0>(values, weights, blocks, n, kStarts, 2,
                                               [](BlockQ5_0& block, const int8_t* q) {
                                                 const Codes codes(q, -16);
                                                 PackNibbles(codes.code, block.qs);
                                                 PackHighBits(codes.code, block.qh);
                                               });
}

void EncodeQ5_1(const float* values, const float* weights, void* blocks, size_t n) {
  EncodeType1<31, BlockQ5_1>(values, weights, blocks, n, kReach5, 2,
                             [](BlockQ5_1& block, const int8_t* q) {
                               const Codes codes(q, 0);
                               PackNibbles(codes.code, block.qs);
                               PackHighBits(codes.code, block.qh);
                             });
}

// -128 stays unused, as in ggml: some of its kernels negate codes.
void EncodeQ8_0(const float* values, const float* weights, void* blocks, size_t n) {
  static constexpr float kStarts[] = {127.0f, 126.2f, 125.4f, 124.3f, 123.1f, 121.7f};
  EncodeType0<IntegerGrid<-127, 127>, BlockQ8_0>(
      values, weights, blocks, n, kStarts, 1,
      [](BlockQ8_0& block, const int8_t* q) { std::memcpy(block.qs, q, 32); });
}

}  // namespace edgewise::quant
