// Products of block-quantized weights with int8 activations, written once over the byte operations
// S of an instruction set (Avx2Bytes, VnniBytes, NeonBytes, DotprodBytes): Bytes holds 32 of them.
// Shifts may move bits from one byte into the next, so a mask follows each.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/kernels.h"
#include "quant/blocks.h"

namespace edgewise::kernels {
namespace {

// ---- blocks of 32: x = d * q + m, q in 0..127 (kSigned: any int8) ----

template <class S>
struct FormatQ4_0 {
  using Block = BlockQ4_0;
  static constexpr bool kSigned = false, kHasMin = true;
  static typename S::Bytes Values(const Block& w) { return S::LoadNibbles(w.qs); }
  static float Min(const Block& w) { return -8.0f * S::Half(w.d); }
};

template <class S>
struct FormatQ4_1 {
  using Block = BlockQ4_1;
  static constexpr bool kSigned = false, kHasMin = true;
  static typename S::Bytes Values(const Block& w) { return S::LoadNibbles(w.qs); }
  static float Min(const Block& w) { return S::Half(w.m); }
};

template <class S>
struct FormatQ5_0 {
  using Block = BlockQ5_0;
  static constexpr bool kSigned = false, kHasMin = true;
  static typename S::Bytes Values(const Block& w) {
    return S::Or(S::LoadNibbles(w.qs), S::HighBits(w.qh));
  }
  static float Min(const Block& w) { return -16.0f * S::Half(w.d); }
};

template <class S>
struct FormatQ5_1 {
  using Block = BlockQ5_1;
  static constexpr bool kSigned = false, kHasMin = true;
  static typename S::Bytes Values(const Block& w) {
    return S::Or(S::LoadNibbles(w.qs), S::HighBits(w.qh));
  }
  static float Min(const Block& w) { return S::Half(w.m); }
};

template <class S>
struct FormatQ8_0 {
  using Block = BlockQ8_0;
  static constexpr bool kSigned = true, kHasMin = false;
  static typename S::Bytes Values(const Block& w) { return S::Load(w.qs); }
};

template <class S>
struct FormatIQ4_NL {
  using Block = BlockIQ4_NL;
  static constexpr bool kSigned = true, kHasMin = false;
  static typename S::Bytes Values(const Block& w) {
    return S::Lookup(kIq4NlValues, S::LoadNibbles(w.qs));
  }
};

// The dots of one weight row with N activation rows. Even and odd blocks add up apart: two chains
// of additions.
template <class S, class Format, size_t N>
struct Tile32 {
  using Block = typename Format::Block;
  using Act = ActQ8_32;
  typename S::Floats sum[N][2];
  float mins[N][2];

  template <size_t kParity>
  void AddBlock(const Block& w, const Act* const* x, size_t b) {
    const typename S::Bytes values = Format::Values(w);
    const typename S::Floats d = S::Set(S::Half(w.d));
    float min = 0;
    if constexpr (Format::kHasMin) min = Format::Min(w);
    for (size_t t = 0; t < N; ++t) {
      const Act& act = x[t][b];
      typename S::Ints dot;
      if constexpr (Format::kSigned) {
        dot = S::DotSigned(values, S::Load(act.q));
      } else {
        dot = S::Dot(values, S::Load(act.q));
      }
      sum[t][kParity] = S::Fma(S::Mul(d, S::Set(act.scale)), S::ToFloats(dot), sum[t][kParity]);
      if constexpr (Format::kHasMin) {
        mins[t][kParity] = S::FmaScalar(min, act.sum, mins[t][kParity]);
      }
    }
  }

  void Run(const Block* w, const Act* const* x, size_t blocks, float* const* y) {
    for (size_t t = 0; t < N; ++t) {
      sum[t][0] = sum[t][1] = S::Zero();
      mins[t][0] = mins[t][1] = 0;
    }
    size_t b = 0;
    for (; b + 2 <= blocks; b += 2) {
      AddBlock<0>(w[b], x, b);
      AddBlock<1>(w[b + 1], x, b + 1);
    }
    if (b < blocks) AddBlock<0>(w[b], x, b);
    for (size_t t = 0; t < N; ++t) {
      *y[t] = S::Sum(S::Add(sum[t][0], sum[t][1])) + (mins[t][0] + mins[t][1]);
    }
  }
};

// ---- blocks of 256, in 16 groups: x = d * scale[g] * q - dmin * min[g] ----

struct GroupScales {
  alignas(32) int16_t scale[16];
  alignas(32) int16_t min[16];
};

// How `min` is weighed: not at all, by its own dmin, or by d (then the product is an exact integer
// until the end).
enum class MinKind { kNone, kOwnFactor, kSameFactor };

// Writes each of 8 bytes twice as an int16.
inline void WidenPairs(const uint8_t* bytes, int16_t* out) {
  for (int g = 0; g < 8; ++g) out[2 * g] = out[2 * g + 1] = bytes[g];
}

// The 8 scales and mins of Q4_K and Q5_K, four bytes at a time.
inline void ReadScalesMins(const uint8_t* packed, GroupScales* out) {
  uint32_t u[3], scales[2], mins[2];
  memcpy(u, packed, 12);
  scales[0] = u[0] & 0x3F3F3F3Fu;
  mins[0] = u[1] & 0x3F3F3F3Fu;
  scales[1] = (u[2] & 0x0F0F0F0Fu) | ((u[0] >> 2) & 0x30303030u);
  mins[1] = ((u[2] >> 4) & 0x0F0F0F0Fu) | ((u[1] >> 2) & 0x30303030u);
  uint8_t bytes[16];
  memcpy(bytes, scales, 8);
  memcpy(bytes + 8, mins, 8);
  WidenPairs(bytes, out->scale);
  WidenPairs(bytes + 8, out->min);
}

// Bytes 32 h to 32 h + 31 hold 2 bits of each of four groups of 32: those of group s.
template <class S, int s>
inline typename S::Bytes TwoBits(const uint8_t* qs) {
  const typename S::Bytes raw = S::Load(qs + 32 * (s / 4));
  return S::And(S::template ShiftRight<2 * (s % 4)>(raw), S::Splat(3));
}

// Byte 32 p + l holds the nibbles of group 2 p (low) and 2 p + 1 (high).
template <class S, int s>
inline typename S::Bytes Nibbles(const uint8_t* qs) {
  const typename S::Bytes raw = S::Load(qs + 32 * (s / 2));
  return S::And(S::template ShiftRight<4 * (s % 2)>(raw), S::Splat(15));
}

// Moves bit `from` of each byte, and those above, so that it lies at bit `to`.
template <class S, int from, int to>
inline typename S::Bytes MoveBits(typename S::Bytes bytes) {
  if constexpr (from > to) {
    return S::template ShiftRight<from - to>(bytes);
  } else {
    return S::template ShiftLeft<to - from>(bytes);
  }
}

template <class S>
struct FormatQ2_K {
  using Block = BlockQ2_K;
  static constexpr bool kSigned = false;
  static constexpr MinKind kMin = MinKind::kOwnFactor;
  static void Scales(const Block& w, GroupScales* out) {
    for (int g = 0; g < 16; ++g) {
      out->scale[g] = w.scales[g] & 15;
      out->min[g] = w.scales[g] >> 4;
    }
  }
  template <int s>
  static typename S::Bytes Values(const Block& w) {
    return TwoBits<S, s>(w.qs);
  }
};

template <class S>
struct FormatQ3_K {
  using Block = BlockQ3_K;
  static constexpr bool kSigned = false;
  static constexpr MinKind kMin = MinKind::kSameFactor;
  static void Scales(const Block& w, GroupScales* out) {
    uint32_t u[3], joined[4];
    memcpy(u, w.scales, 12);
    joined[0] = (u[0] & 0x0F0F0F0Fu) | ((u[2] << 4) & 0x30303030u);
    joined[1] = (u[1] & 0x0F0F0F0Fu) | ((u[2] << 2) & 0x30303030u);
    joined[2] = ((u[0] >> 4) & 0x0F0F0F0Fu) | (u[2] & 0x30303030u);
    joined[3] = ((u[1] >> 4) & 0x0F0F0F0Fu) | ((u[2] >> 2) & 0x30303030u);
    uint8_t bytes[16];
    memcpy(bytes, joined, 16);
    for (int g = 0; g < 16; ++g) {
      out->scale[g] = static_cast<int16_t>(bytes[g] - 32);
      out->min[g] = static_cast<int16_t>(4 * (bytes[g] - 32));
    }
  }
  template <int s>
  static typename S::Bytes Values(const Block& w) {
    const typename S::Bytes high = S::And(MoveBits<S, s, 2>(S::Load(w.hmask)), S::Splat(4));
    return S::Or(TwoBits<S, s>(w.qs), high);
  }
};

template <class S>
struct FormatQ4_K {
  using Block = BlockQ4_K;
  static constexpr bool kSigned = false;
  static constexpr MinKind kMin = MinKind::kOwnFactor;
  static void Scales(const Block& w, GroupScales* out) { ReadScalesMins(w.scales, out); }
  template <int s>
  static typename S::Bytes Values(const Block& w) {
    return Nibbles<S, s>(w.qs);
  }
};

template <class S>
struct FormatQ5_K {
  using Block = BlockQ5_K;
  static constexpr bool kSigned = false;
  static constexpr MinKind kMin = MinKind::kOwnFactor;
  static void Scales(const Block& w, GroupScales* out) { ReadScalesMins(w.scales, out); }
  template <int s>
  static typename S::Bytes Values(const Block& w) {
    const typename S::Bytes high = S::And(MoveBits<S, s, 4>(S::Load(w.qh)), S::Splat(16));
    return S::Or(Nibbles<S, s>(w.qs), high);
  }
};

template <class S>
struct FormatQ6_K {
  using Block = BlockQ6_K;
  static constexpr bool kSigned = false;
  static constexpr MinKind kMin = MinKind::kSameFactor;
  static void Scales(const Block& w, GroupScales* out) {
    for (int g = 0; g < 16; ++g) {
      out->scale[g] = w.scales[g];
      out->min[g] = static_cast<int16_t>(32 * w.scales[g]);
    }
  }
  template <int s>
  static typename S::Bytes Values(const Block& w) {
    const typename S::Bytes raw = S::Load(w.ql + 64 * (s / 4) + 32 * (s % 2));
    const typename S::Bytes low =
        S::And(S::template ShiftRight<4 * (s / 2 % 2)>(raw), S::Splat(15));
    const typename S::Bytes high = MoveBits<S, 2 * (s % 4), 4>(S::Load(w.qh + 32 * (s / 4)));
    return S::Or(low, S::And(high, S::Splat(48)));
  }
};

template <class S>
struct FormatIQ4_XS {
  using Block = BlockIQ4_XS;
  static constexpr bool kSigned = true;
  static constexpr MinKind kMin = MinKind::kNone;
  static void Scales(const Block& w, GroupScales* out) {
    for (int g = 0; g < 8; ++g) {
      const int low = (w.scales_l[g / 2] >> (4 * (g % 2))) & 15;
      const int high = (w.scales_h >> (2 * g)) & 3;
      out->scale[2 * g] = out->scale[2 * g + 1] = static_cast<int16_t>((low | (high << 4)) - 32);
    }
  }
  template <int s>
  static typename S::Bytes Values(const Block& w) {
    return S::Lookup(kIq4NlValues, S::LoadNibbles(w.qs + 16 * s));
  }
};

// The dots of one weight row with N activation rows. The integers of a block are exact: at most 16
// * 16 * 127 * 127 * 128.
template <class S, class Format, size_t N>
struct Tile256 {
  using Block = typename Format::Block;
  using Act = ActQ8_256;
  typename S::Floats sum[N];

  template <int s>
  static void AddGroups(const Block& w, const GroupScales& scales, const Act* const* x, size_t b,
                        typename S::Ints* dots) {
    if constexpr (s < 8) {
      const typename S::Bytes values = Format::template Values<s>(w);
      const typename S::Scale scale = S::MakeScale(scales.scale + 2 * s);
      for (size_t t = 0; t < N; ++t) {
        const typename S::Bytes act = S::Load(x[t][b].q + 32 * s);
        if constexpr (Format::kSigned) {
          dots[t] = S::ScaledDotSigned(dots[t], values, act, scale);
        } else {
          dots[t] = S::ScaledDot(dots[t], values, act, scale);
        }
      }
      AddGroups<s + 1>(w, scales, x, b, dots);
    }
  }

  void AddBlock(const Block& w, const Act* const* x, size_t b) {
    GroupScales scales;
    Format::Scales(w, &scales);
    typename S::Ints dots[N];
    for (size_t t = 0; t < N; ++t) dots[t] = S::ZeroInts();
    AddGroups<0>(w, scales, x, b, dots);
    const typename S::Floats d = S::Set(S::Half(w.d));
    for (size_t t = 0; t < N; ++t) {
      const typename S::Floats act_scale = S::Set(x[t][b].scale);
      if constexpr (Format::kMin == MinKind::kSameFactor) {
        dots[t] = S::Sub(dots[t], S::DotSums(scales.min, x[t][b].sums));
      }
      sum[t] = S::Fma(S::Mul(d, act_scale), S::ToFloats(dots[t]), sum[t]);
      if constexpr (Format::kMin == MinKind::kOwnFactor) {
        const typename S::Floats dmin = S::Set(-S::Half(w.dmin));
        const typename S::Ints mins = S::DotSums(scales.min, x[t][b].sums);
        sum[t] = S::Fma(S::Mul(dmin, act_scale), S::ToFloats(mins), sum[t]);
      }
    }
  }

  void Run(const Block* w, const Act* const* x, size_t blocks, float* const* y) {
    for (size_t t = 0; t < N; ++t) sum[t] = S::Zero();
    for (size_t b = 0; b < blocks; ++b) AddBlock(w[b], x, b);
    for (size_t t = 0; t < N; ++t) *y[t] = S::Sum(sum[t]);
  }
};

// ---- the loops over rows ----

// Weight rows that meet a group of activation rows while those are in the first-level cache.
constexpr size_t kWeightRowsPerPass = 16;

template <class Tile, size_t N>
inline void TileRows(const LinearArgs& a, size_t first, size_t end, size_t j, size_t blocks) {
  const typename Tile::Act* x[N];
  for (size_t t = 0; t < N; ++t) {
    x[t] = reinterpret_cast<const typename Tile::Act*>(static_cast<const char*>(a.x) +
                                                       (j + t) * a.x_stride);
  }
  for (size_t i = first; i < end; ++i) {
    const char* w = static_cast<const char*>(a.w) + i * a.w_stride;
    float* y[N];
    for (size_t t = 0; t < N; ++t) y[t] = a.y + (j + t) * a.y_stride + i;
    Tile tile;
    tile.Run(reinterpret_cast<const typename Tile::Block*>(w), x, blocks, y);
  }
}

// Tile<N> adds in the same order for every N, so an element does not depend on how many rows it was
// computed with.
template <template <class, class, size_t> class Tile, class S, class Format>
inline void LinearBlocks(const LinearArgs& a, size_t blocks) {
  constexpr size_t kWide = S::kTile;
  for (size_t first = 0; first < a.rows; first += kWeightRowsPerPass) {
    const size_t end = a.rows - first < kWeightRowsPerPass ? a.rows : first + kWeightRowsPerPass;
    size_t j = 0;
    for (; j + kWide <= a.n; j += kWide) {
      TileRows<Tile<S, Format, kWide>, kWide>(a, first, end, j, blocks);
    }
    for (; j < a.n; ++j) TileRows<Tile<S, Format, 1>, 1>(a, first, end, j, blocks);
  }
}

template <class S, template <class> class Format>
void LinearQ8_32(const LinearArgs& a) {
  LinearBlocks<Tile32, S, Format<S>>(a, a.columns / 32);
}

template <class S, template <class> class Format>
void LinearQ8_256(const LinearArgs& a) {
  LinearBlocks<Tile256, S, Format<S>>(a, a.columns / 256);
}

template <class S>
constexpr void SetBlockKernels(Kernels* t) {
  const auto set = [t](DType type, ActFormat act, void (*run)(const LinearArgs&)) {
    t->linear[static_cast<int>(type)] = {act, run};
  };
  set(DType::kQ4_0, ActFormat::kQ8_32, LinearQ8_32<S, FormatQ4_0>);
  set(DType::kQ4_1, ActFormat::kQ8_32, LinearQ8_32<S, FormatQ4_1>);
  set(DType::kQ5_0, ActFormat::kQ8_32, LinearQ8_32<S, FormatQ5_0>);
  set(DType::kQ5_1, ActFormat::kQ8_32, LinearQ8_32<S, FormatQ5_1>);
  set(DType::kQ8_0, ActFormat::kQ8_32, LinearQ8_32<S, FormatQ8_0>);
  set(DType::kIQ4_NL, ActFormat::kQ8_32, LinearQ8_32<S, FormatIQ4_NL>);
  set(DType::kQ2_K, ActFormat::kQ8_256, LinearQ8_256<S, FormatQ2_K>);
  set(DType::kQ3_K, ActFormat::kQ8_256, LinearQ8_256<S, FormatQ3_K>);
  set(DType::kQ4_K, ActFormat::kQ8_256, LinearQ8_256<S, FormatQ4_K>);
  set(DType::kQ5_K, ActFormat::kQ8_256, LinearQ8_256<S, FormatQ5_K>);
  set(DType::kQ6_K, ActFormat::kQ8_256, LinearQ8_256<S, FormatQ6_K>);
  set(DType::kIQ4_XS, ActFormat::kQ8_256, LinearQ8_256<S, FormatIQ4_XS>);
}

}  // namespace
}  // namespace edgewise::kernels
