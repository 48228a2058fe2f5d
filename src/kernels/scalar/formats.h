// The weight formats, spelled out plainly: how a block becomes integers and scales.
#pragma once

#include <stdint.h>
#include <string.h>

#include "base/half.h"
#include "quant/blocks.h"

namespace edgewise::kernels {
namespace {

// A block of 32: x = d * q + m.
struct Unpacked32 {
  int8_t q[32];
  float d;
  float m;
};

// A block of 256 in 16 groups g of 16 values: x = d * scale[g] * q - dmin * min[g].
struct Unpacked256 {
  int8_t q[256];
  int16_t scale[16];
  int16_t min[16];
  float d;
  float dmin;
};

// A block of 64 with its zeros: x = d * q. Of two values at one place, q is the sum.
struct Unpacked64 {
  int16_t q[64];
  float d;
};

// Byte j of `qs`: low nibble element j, high nibble element j + 16; `high` has bit 4 of each
// element.
inline void UnpackNibbles(const uint8_t* qs, uint32_t high, int offset, int8_t* q) {
  for (int j = 0; j < 16; ++j) {
    const int low_bit = static_cast<int>((high >> j) & 1u) << 4;
    const int high_bit = static_cast<int>((high >> (j + 16)) & 1u) << 4;
    q[j] = static_cast<int8_t>(((qs[j] & 15) | low_bit) - offset);
    q[j + 16] = static_cast<int8_t>(((qs[j] >> 4) | high_bit) - offset);
  }
}

struct Q4_0 {
  using Block = BlockQ4_0;
  static void Unpack(const Block& w, Unpacked32* out) {
    UnpackNibbles(w.qs, 0, 8, out->q);
    out->d = HalfToFloat(w.d);
    out->m = 0;
  }
};

struct Q4_1 {
  using Block = BlockQ4_1;
  static void Unpack(const Block& w, Unpacked32* out) {
    UnpackNibbles(w.qs, 0, 0, out->q);
    out->d = HalfToFloat(w.d);
    out->m = HalfToFloat(w.m);
  }
};

struct Q5_0 {
  using Block = BlockQ5_0;
  static void Unpack(const Block& w, Unpacked32* out) {
    uint32_t high;
    memcpy(&high, w.qh, 4);
    UnpackNibbles(w.qs, high, 16, out->q);
    out->d = HalfToFloat(w.d);
    out->m = 0;
  }
};

struct Q5_1 {
  using Block = BlockQ5_1;
  static void Unpack(const Block& w, Unpacked32* out) {
    uint32_t high;
    memcpy(&high, w.qh, 4);
    UnpackNibbles(w.qs, high, 0, out->q);
    out->d = HalfToFloat(w.d);
    out->m = HalfToFloat(w.m);
  }
};

struct Q8_0 {
  using Block = BlockQ8_0;
  static void Unpack(const Block& w, Unpacked32* out) {
    memcpy(out->q, w.qs, 32);
    out->d = HalfToFloat(w.d);
    out->m = 0;
  }
};

struct IQ4_NL {
  using Block = BlockIQ4_NL;
  static void Unpack(const Block& w, Unpacked32* out) {
    for (int j = 0; j < 16; ++j) {
      out->q[j] = kIq4NlValues[w.qs[j] & 15];
      out->q[j + 16] = kIq4NlValues[w.qs[j] >> 4];
    }
    out->d = HalfToFloat(w.d);
    out->m = 0;
  }
};

struct Q2_K {
  using Block = BlockQ2_K;
  static void Unpack(const Block& w, Unpacked256* out) {
    for (int i = 0; i < 256; ++i) {
      const int h = i / 128, s = i / 32 % 4, l = i % 32;
      out->q[i] = static_cast<int8_t>((w.qs[32 * h + l] >> (2 * s)) & 3);
    }
    for (int g = 0; g < 16; ++g) {
      out->scale[g] = w.scales[g] & 15;
      out->min[g] = w.scales[g] >> 4;
    }
    out->d = HalfToFloat(w.d);
    out->dmin = HalfToFloat(w.dmin);
  }
};

struct Q3_K {
  using Block = BlockQ3_K;
  static void Unpack(const Block& w, Unpacked256* out) {
    for (int i = 0; i < 256; ++i) {
      const int h = i / 128, s = i / 32 % 4, l = i % 32;
      const int low = (w.qs[32 * h + l] >> (2 * s)) & 3;
      const int high = (w.hmask[l] >> (4 * h + s)) & 1;
      out->q[i] = static_cast<int8_t>((low | (high << 2)) - 4);
    }
    for (int g = 0; g < 16; ++g) {
      const int low = g < 8 ? w.scales[g] & 15 : w.scales[g - 8] >> 4;
      const int high = (w.scales[8 + g % 4] >> (2 * (g / 4))) & 3;
      out->scale[g] = static_cast<int16_t>((low | (high << 4)) - 32);
      out->min[g] = 0;
    }
    out->d = HalfToFloat(w.d);
    out->dmin = 0;
  }
};

// The scale and min of group g < 8 of Q4_K and Q5_K, 6 bits each.
inline void UnpackScaleMin(const uint8_t* scales, int g, int* scale, int* min) {
  if (g < 4) {
    *scale = scales[g] & 63;
    *min = scales[g + 4] & 63;
  } else {
    *scale = (scales[g + 4] & 15) | ((scales[g - 4] >> 6) << 4);
    *min = (scales[g + 4] >> 4) | ((scales[g] >> 6) << 4);
  }
}

inline void UnpackScalesMins(const uint8_t* scales, Unpacked256* out) {
  for (int g = 0; g < 8; ++g) {
    int scale, min;
    UnpackScaleMin(scales, g, &scale, &min);
    out->scale[2 * g] = out->scale[2 * g + 1] = static_cast<int16_t>(scale);
    out->min[2 * g] = out->min[2 * g + 1] = static_cast<int16_t>(min);
  }
}

struct Q4_K {
  using Block = BlockQ4_K;
  static void Unpack(const Block& w, Unpacked256* out) {
    for (int i = 0; i < 256; ++i) {
      const int p = i / 64, s = i / 32 % 2, l = i % 32;
      out->q[i] = static_cast<int8_t>((w.qs[32 * p + l] >> (4 * s)) & 15);
    }
    UnpackScalesMins(w.scales, out);
    out->d = HalfToFloat(w.d);
    out->dmin = HalfToFloat(w.dmin);
  }
};

struct Q5_K {
  using Block = BlockQ5_K;
  static void Unpack(const Block& w, Unpacked256* out) {
    for (int i = 0; i < 256; ++i) {
      const int p = i / 64, s = i / 32 % 2, l = i % 32;
      const int low = (w.qs[32 * p + l] >> (4 * s)) & 15;
      const int high = (w.qh[l] >> (i / 32)) & 1;
      out->q[i] = static_cast<int8_t>(low | (high << 4));
    }
    UnpackScalesMins(w.scales, out);
    out->d = HalfToFloat(w.d);
    out->dmin = HalfToFloat(w.dmin);
  }
};

struct Q6_K {
  using Block = BlockQ6_K;
  static void Unpack(const Block& w, Unpacked256* out) {
    for (int i = 0; i < 256; ++i) {
      const int h = i / 128, s = i / 32 % 4, l = i % 32;
      const int low = (w.ql[64 * h + i % 64] >> (4 * (i / 64 % 2))) & 15;
      const int high = (w.qh[32 * h + l] >> (2 * s)) & 3;
      out->q[i] = static_cast<int8_t>((low | (high << 4)) - 32);
    }
    for (int g = 0; g < 16; ++g) {
      out->scale[g] = w.scales[g];
      out->min[g] = 0;
    }
    out->d = HalfToFloat(w.d);
    out->dmin = 0;
  }
};

struct IQ4_XS {
  using Block = BlockIQ4_XS;
  static void Unpack(const Block& w, Unpacked256* out) {
    for (int i = 0; i < 256; ++i) {
      const int g = i / 32, l = i % 16;
      out->q[i] = kIq4NlValues[(w.qs[16 * g + l] >> (4 * (i / 16 % 2))) & 15];
    }
    for (int g = 0; g < 8; ++g) {
      const int low = (w.scales_l[g / 2] >> (4 * (g % 2))) & 15;
      const int high = (w.scales_h >> (2 * g)) & 3;
      const int16_t scale = static_cast<int16_t>((low | (high << 4)) - 32);
      out->scale[2 * g] = out->scale[2 * g + 1] = scale;
      out->min[2 * g] = out->min[2 * g + 1] = 0;
    }
    out->d = HalfToFloat(w.d);
    out->dmin = 0;
  }
};

inline int SparsePosition(const uint8_t* at, int k) {
  return 4 * (k / 2) + ((at[4 * (k / 16) + k % 4] >> (2 * (k / 4 % 4))) & 3);
}

struct S24_Q4 {
  using Block = BlockS24_Q4;
  static void Unpack(const Block& w, Unpacked64* out) {
    memset(out->q, 0, sizeof(out->q));
    for (int k = 0; k < 32; ++k) {
      const int code = (w.qs[4 * (k / 8) + k % 4] >> (4 * (k / 4 % 2))) & 15;
      out->q[SparsePosition(w.at, k)] += static_cast<int16_t>((code ^ 8) - 8);
    }
    out->d = HalfToFloat(w.d);
  }
};

struct S24_Q8 {
  using Block = BlockS24_Q8;
  static void Unpack(const Block& w, Unpacked64* out) {
    memset(out->q, 0, sizeof(out->q));
    for (int k = 0; k < 32; ++k) out->q[SparsePosition(w.at, k)] += w.qs[k];
    out->d = HalfToFloat(w.d);
  }
};

// value(k) to the element of the k-th bit, of 32 at most.
template <class Value>
inline void UnpackMask(const uint8_t* mask, Unpacked64* out, Value value) {
  memset(out->q, 0, sizeof(out->q));
  for (int j = 0, k = 0; j < 64 && k < 32; ++j) {
    if ((mask[j / 8] >> (j % 8) & 1) != 0) out->q[j] = static_cast<int16_t>(value(k++));
  }
}

struct BM_Q4 {
  using Block = BlockBM_Q4;
  static void Unpack(const Block& w, Unpacked64* out) {
    UnpackMask(w.mask, out, [&w](int k) { return ((w.qs[k % 16] >> (k / 16 * 4)) & 15) - 8; });
    out->d = HalfToFloat(w.d);
  }
};

struct BM_Q8 {
  using Block = BlockBM_Q8;
  static void Unpack(const Block& w, Unpacked64* out) {
    UnpackMask(w.mask, out, [&w](int k) { return w.qs[k]; });
    out->d = HalfToFloat(w.d);
  }
};

}  // namespace
}  // namespace edgewise::kernels
