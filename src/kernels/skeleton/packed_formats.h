// How 16 packed rows (quant/packed_layout.h) become bytes and float scales, written once over the
// operations S of an instruction set (Avx2Rows, NeonRows, ...).
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/kernels.h"
#include "quant/blocks.h"
#include "quant/packed_layout.h"

namespace edgewise::kernels {
namespace {

constexpr size_t kStepBytes = 4 * kPackedRows;  // 4 columns of 16 rows

// The factors of up to 256 columns of 16 rows, by group of 16 or 32 columns: x = scale * q + min.
struct Scales {
  alignas(64) float scale[16][kPackedRows];
  alignas(64) float min[16][kPackedRows];  // only where the format has one
};

// One byte of each of 16 rows.
using RowBytes [[gnu::vector_size(16)]] = uint8_t;

inline RowBytes LoadRowBytes(const uint8_t* p) {
  RowBytes v;
  memcpy(&v, p, sizeof(v));
  return v;
}

template <class S>
inline void StoreHalves(const uint8_t* halves, float* out) {
  for (size_t r = 0; r < kPackedRows; r += S::kLanes) {
    S::StoreFloats(out + r, S::FromHalves(halves + 2 * r));
  }
}

// out = factor * bytes, the bytes unsigned or, with kSigned, as int8.
template <class S, bool kSigned>
inline void StoreScaled(const float* factor, RowBytes bytes, float* out) {
  uint8_t buffer[kPackedRows];
  memcpy(buffer, &bytes, sizeof(bytes));
  for (size_t r = 0; r < kPackedRows; r += S::kLanes) {
    const typename S::Floats f = kSigned ? S::FromInt8(buffer + r) : S::FromUint8(buffer + r);
    S::StoreFloats(out + r, S::Mul(S::LoadFloats(factor + r), f));
  }
}

// The signed values v as they are, or with 128 added where the products take unsigned ones only.
template <class S>
inline typename S::Bytes Signed(typename S::Bytes v) {
  if constexpr (S::kBiased) return S::Xor(v, S::Splat(-128));
  return v;
}

template <class S, int high>
inline typename S::Bytes Nibble(typename S::Bytes raw) {
  return S::And(S::template ShiftRight<4 * high>(raw), S::Splat(15));
}

// Bits `from` and above of each byte to `to` and above; bits of the neighbour may come along.
template <class S, int from, int to>
inline typename S::Bytes MoveBits(typename S::Bytes bytes) {
  if constexpr (from > to) return S::template ShiftRight<from - to>(bytes);
  if constexpr (from < to) return S::template ShiftLeft<to - from>(bytes);
  return bytes;
}

// What a product needs to know of a format.
struct Traits {
  int group;    // columns that share a scale
  int largest;  // magnitude of q, as stored for unsigned products
  bool is_signed;
  int zero_log2;  // q stands for q - 2^zero_log2; -1: for q
  bool has_min;
};

// Each format below gives, for a tile of kColumns columns,
//   Values<g>: the 8 steps of its columns 32 g to 32 g + 31, rows from byte c of a step on;
//   Factors: its scales and mins, from group `first` on.

// ---- blocks of 32 ----

template <class S>
inline void Nibbles32(const uint8_t* qs, size_t c, typename S::Bytes* v) {
#pragma GCC unroll 4
  for (size_t s = 0; s < 4; ++s) {
    const typename S::Bytes raw = S::Load(qs + s * kStepBytes + c);
    v[s] = Nibble<S, 0>(raw);
    v[s + 4] = Nibble<S, 1>(raw);
  }
}

template <class S>
struct PackedQ4_0 {
  static constexpr size_t kColumns = 32, kBlockBytes = sizeof(BlockQ4_0);
  static constexpr Traits kTraits = {32, 15, false, 3, false};
  template <int g>
  static void Values(const uint8_t* tile, size_t c, typename S::Bytes* v) {
    Nibbles32<S>(tile + 32, c, v);
  }
  static void Factors(const uint8_t* tile, size_t first, Scales* out) {
    StoreHalves<S>(tile, out->scale[first]);
  }
};

template <class S>
struct PackedQ4_1 {
  static constexpr size_t kColumns = 32, kBlockBytes = sizeof(BlockQ4_1);
  static constexpr Traits kTraits = {32, 15, false, -1, true};
  template <int g>
  static void Values(const uint8_t* tile, size_t c, typename S::Bytes* v) {
    Nibbles32<S>(tile + 64, c, v);
  }
  static void Factors(const uint8_t* tile, size_t first, Scales* out) {
    StoreHalves<S>(tile, out->scale[first]);
    StoreHalves<S>(tile + 32, out->min[first]);
  }
};

// `high` holds bit 4 of each row's 32 values.
template <class S>
inline void FiveBits32(const uint8_t* high, const uint8_t* qs, size_t c, typename S::Bytes* v) {
  Nibbles32<S>(qs, c, v);
  const typename S::Bytes bits = S::Load(high + c);
#pragma GCC unroll 8
  for (size_t s = 0; s < 8; ++s) v[s] = S::Or(v[s], S::FifthBits(bits, s));
}

template <class S>
struct PackedQ5_0 {
  static constexpr size_t kColumns = 32, kBlockBytes = sizeof(BlockQ5_0);
  static constexpr Traits kTraits = {32, 31, false, 4, false};
  template <int g>
  static void Values(const uint8_t* tile, size_t c, typename S::Bytes* v) {
    FiveBits32<S>(tile + 32, tile + 96, c, v);
  }
  static void Factors(const uint8_t* tile, size_t first, Scales* out) {
    StoreHalves<S>(tile, out->scale[first]);
  }
};

template <class S>
struct PackedQ5_1 {
  static constexpr size_t kColumns = 32, kBlockBytes = sizeof(BlockQ5_1);
  static constexpr Traits kTraits = {32, 31, false, -1, true};
  template <int g>
  static void Values(const uint8_t* tile, size_t c, typename S::Bytes* v) {
    FiveBits32<S>(tile + 64, tile + 128, c, v);
  }
  static void Factors(const uint8_t* tile, size_t first, Scales* out) {
    StoreHalves<S>(tile, out->scale[first]);
    StoreHalves<S>(tile + 32, out->min[first]);
  }
};

template <class S>
constexpr Traits kSignedTraits = {32, 255, true, S::kBiased ? 7 : -1, false};

template <class S>
struct PackedQ8_0 {
  static constexpr size_t kColumns = 32, kBlockBytes = sizeof(BlockQ8_0);
  static constexpr Traits kTraits = kSignedTraits<S>;
  template <int g>
  static void Values(const uint8_t* tile, size_t c, typename S::Bytes* v) {
#pragma GCC unroll 8
    for (size_t s = 0; s < 8; ++s) v[s] = Signed<S>(S::Load(tile + 32 + s * kStepBytes + c));
  }
  static void Factors(const uint8_t* tile, size_t first, Scales* out) {
    StoreHalves<S>(tile, out->scale[first]);
  }
};

template <class S>
inline void Lookups32(const uint8_t* qs, size_t c, typename S::Bytes* v) {
  Nibbles32<S>(qs, c, v);
#pragma GCC unroll 8
  for (size_t s = 0; s < 8; ++s) v[s] = Signed<S>(S::Lookup(kIq4NlValues, v[s]));
}

template <class S>
struct PackedIQ4_NL {
  static constexpr size_t kColumns = 32, kBlockBytes = sizeof(BlockIQ4_NL);
  static constexpr Traits kTraits = kSignedTraits<S>;
  template <int g>
  static void Values(const uint8_t* tile, size_t c, typename S::Bytes* v) {
    Lookups32<S>(tile + 32, c, v);
  }
  static void Factors(const uint8_t* tile, size_t first, Scales* out) {
    StoreHalves<S>(tile, out->scale[first]);
  }
};

// ---- blocks of 256 ----

template <class S>
inline void StoreNegatedHalves(const uint8_t* halves, float* out) {
  StoreHalves<S>(halves, out);
  for (size_t r = 0; r < kPackedRows; ++r) out[r] = -out[r];
}

// The scales and mins of Q4_K and Q5_K, whose tiles begin alike.
template <class S>
inline void SixBitFactors(const uint8_t* tile, Scales* out) {
  float d[kPackedRows], dmin[kPackedRows];
  StoreHalves<S>(tile, d);
  StoreNegatedHalves<S>(tile + 32, dmin);
  const auto byte = [tile](size_t k) { return LoadRowBytes(tile + 64 + kPackedRows * k); };
  for (size_t g = 0; g < 4; ++g) {
    StoreScaled<S, false>(d, byte(g) & 63, out->scale[g]);
    StoreScaled<S, false>(dmin, byte(g + 4) & 63, out->min[g]);
    const RowBytes low = byte(g + 8);
    StoreScaled<S, false>(d, (low & 15) | ((byte(g) >> 6) << 4), out->scale[g + 4]);
    StoreScaled<S, false>(dmin, (low >> 4) | ((byte(g + 4) >> 6) << 4), out->min[g + 4]);
  }
}

template <class S>
struct PackedQ4_K {
  static constexpr size_t kColumns = 256, kBlockBytes = sizeof(BlockQ4_K);
  static constexpr Traits kTraits = {32, 15, false, -1, true};
  template <int g>
  static void Values(const uint8_t* tile, size_t c, typename S::Bytes* v) {
    const uint8_t* qs = tile + 16 * 16 + 8 * kStepBytes * (g / 2) + c;
#pragma GCC unroll 8
    for (size_t s = 0; s < 8; ++s) v[s] = Nibble<S, g % 2>(S::Load(qs + s * kStepBytes));
  }
  static void Factors(const uint8_t* tile, size_t, Scales* out) { SixBitFactors<S>(tile, out); }
};

template <class S>
struct PackedQ5_K {
  static constexpr size_t kColumns = 256, kBlockBytes = sizeof(BlockQ5_K);
  static constexpr Traits kTraits = {32, 31, false, -1, true};
  template <int g>
  static void Values(const uint8_t* tile, size_t c, typename S::Bytes* v) {
    const uint8_t* qh = tile + 16 * 16 + c;
    const uint8_t* qs = tile + 16 * 48 + 8 * kStepBytes * (g / 2) + c;
#pragma GCC unroll 8
    for (size_t s = 0; s < 8; ++s) {
      const typename S::Bytes high = MoveBits<S, g, 4>(S::Load(qh + s * kStepBytes));
      v[s] = S::Or(Nibble<S, g % 2>(S::Load(qs + s * kStepBytes)), S::And(high, S::Splat(16)));
    }
  }
  static void Factors(const uint8_t* tile, size_t, Scales* out) { SixBitFactors<S>(tile, out); }
};

template <class S>
struct PackedQ6_K {
  static constexpr size_t kColumns = 256, kBlockBytes = sizeof(BlockQ6_K);
  static constexpr Traits kTraits = {16, 63, false, 5, false};
  template <int g>
  static void Values(const uint8_t* tile, size_t c, typename S::Bytes* v) {
    const uint8_t* qh = tile + 16 * 18 + 24 * kStepBytes * (g / 4) + c;
    const uint8_t* ql = qh + kStepBytes * (8 + 8 * (g % 2));
#pragma GCC unroll 8
    for (size_t s = 0; s < 8; ++s) {
      const typename S::Bytes high = MoveBits<S, 2 * (g % 4), 4>(S::Load(qh + s * kStepBytes));
      v[s] = S::Or(Nibble<S, g / 2 % 2>(S::Load(ql + s * kStepBytes)), S::And(high, S::Splat(48)));
    }
  }
  static void Factors(const uint8_t* tile, size_t, Scales* out) {
    const uint8_t* scales = tile + 16 * 2;
    float d[kPackedRows];
    StoreHalves<S>(tile, d);
    for (size_t g = 0; g < 16; ++g) {
      StoreScaled<S, true>(d, LoadRowBytes(scales + kPackedRows * g), out->scale[g]);
    }
  }
};

// Bits 2 (g % 4) and 2 (g % 4) + 1 of the bytes of columns 128 (g / 4) on.
template <class S, int g>
inline typename S::Bytes TwoBits(const uint8_t* qs, size_t s) {
  const typename S::Bytes raw = S::Load(qs + kStepBytes * (8 * (g / 4) + s));
  return S::And(S::template ShiftRight<2 * (g % 4)>(raw), S::Splat(3));
}

template <class S>
struct PackedQ3_K {
  static constexpr size_t kColumns = 256, kBlockBytes = sizeof(BlockQ3_K);
  static constexpr Traits kTraits = {16, 7, false, 2, false};
  template <int g>
  static void Values(const uint8_t* tile, size_t c, typename S::Bytes* v) {
#pragma GCC unroll 8
    for (size_t s = 0; s < 8; ++s) {
      const uint8_t* hmask = tile + 16 * 14 + c;
      const typename S::Bytes high = MoveBits<S, g, 2>(S::Load(hmask + kStepBytes * s));
      v[s] = S::Or(TwoBits<S, g>(hmask + 16 * 32, s), S::And(high, S::Splat(4)));
    }
  }
  static void Factors(const uint8_t* tile, size_t, Scales* out) {
    const uint8_t* scales = tile + 16 * 2;
    float d[kPackedRows];
    StoreHalves<S>(tile, d);
    for (size_t g = 0; g < 16; ++g) {
      const RowBytes byte = LoadRowBytes(scales + kPackedRows * (g % 8));
      const RowBytes low = g < 8 ? byte & 15 : byte >> 4;
      const RowBytes high = LoadRowBytes(scales + kPackedRows * (8 + g % 4)) >> (2 * (g / 4));
      StoreScaled<S, true>(d, (low | ((high & 3) << 4)) - 32, out->scale[g]);
    }
  }
};

template <class S>
struct PackedQ2_K {
  static constexpr size_t kColumns = 256, kBlockBytes = sizeof(BlockQ2_K);
  static constexpr Traits kTraits = {16, 3, false, -1, true};
  template <int g>
  static void Values(const uint8_t* tile, size_t c, typename S::Bytes* v) {
#pragma GCC unroll 8
    for (size_t s = 0; s < 8; ++s) v[s] = TwoBits<S, g>(tile + 16 * 20 + c, s);
  }
  static void Factors(const uint8_t* tile, size_t, Scales* out) {
    float d[kPackedRows], dmin[kPackedRows];
    StoreHalves<S>(tile, d);
    StoreNegatedHalves<S>(tile + 32, dmin);
    for (size_t g = 0; g < 16; ++g) {
      const RowBytes byte = LoadRowBytes(tile + 64 + kPackedRows * g);
      StoreScaled<S, false>(d, byte & 15, out->scale[g]);
      StoreScaled<S, false>(dmin, byte >> 4, out->min[g]);
    }
  }
};

template <class S>
struct PackedIQ4_XS {
  static constexpr size_t kColumns = 256, kBlockBytes = sizeof(BlockIQ4_XS);
  static constexpr Traits kTraits = kSignedTraits<S>;
  template <int g>
  static void Values(const uint8_t* tile, size_t c, typename S::Bytes* v) {
    Lookups32<S>(tile + 128 + 4 * kStepBytes * g, c, v);
  }
  static void Factors(const uint8_t* tile, size_t, Scales* out) {
    float d[kPackedRows];
    StoreHalves<S>(tile, d);
    for (size_t g = 0; g < 8; ++g) {
      const RowBytes byte = LoadRowBytes(tile + 64 + kPackedRows * (g / 2));
      const RowBytes low = g % 2 == 0 ? byte & 15 : byte >> 4;
      const RowBytes high = LoadRowBytes(tile + 32 + kPackedRows * (g / 4)) >> (2 * (g % 4));
      StoreScaled<S, true>(d, (low | ((high & 3) << 4)) - 32, out->scale[g]);
    }
  }
};

}  // namespace
}  // namespace edgewise::kernels
