// The packed blocks of the number formats, byte for byte those of ggml where it has them, and the
// activation blocks of the kernels. Freestanding: kernel files include it. Halves are IEEE binary16
// as uint16_t; integers are little-endian. The structs have alignment 1, because a file may place a
// tensor anywhere. Element numbers count from the block's first value.
#pragma once

#include <stdint.h>

namespace edgewise {

// The 16 values of IQ4_NL and IQ4_XS, by code.
static constexpr int8_t kIq4NlValues[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                            1,    13,   25,  38,  53,  69,  89,  113};

// NOLINTBEGIN(readability-identifier-naming): the formats' own names
#pragma pack(push, 1)

// Q4_0, 32 values, 18 bytes: x = d * (q - 8).
//   offset  bytes  field
//        0      2  d   half
//        2     16  qs  byte j: low nibble element j, high nibble element j + 16
struct BlockQ4_0 {
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

// Q4_1, 32 values, 20 bytes: x = d * q + m.
//   offset  bytes  field
//        0      2  d   half
//        2      2  m   half
//        4     16  qs  as Q4_0
struct BlockQ4_1 {
  uint16_t d;
  uint16_t m;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_1) == 20);

// Q5_0, 32 values, 22 bytes: x = d * (q - 16).
//   offset  bytes  field
//        0      2  d   half
//        2      4  qh  bit j of the 32-bit word (byte j / 8, bit j % 8): bit 4 of element j
//        6     16  qs  bits 0-3, as Q4_0
struct BlockQ5_0 {
  uint16_t d;
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_0) == 22);

// Q5_1, 32 values, 24 bytes: x = d * q + m.
//   offset  bytes  field
//        0      2  d   half
//        2      2  m   half
//        4      4  qh  as Q5_0
//        8     16  qs  as Q5_0
struct BlockQ5_1 {
  uint16_t d;
  uint16_t m;
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_1) == 24);

// Q8_0, 32 values, 34 bytes: x = d * q.
//   offset  bytes  field
//        0      2  d   half
//        2     32  qs  int8, element j
struct BlockQ8_0 {
  uint16_t d;
  int8_t qs[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

// Q2_K, 256 values in 16 groups of 16, 84 bytes: x = d * scale * q - dmin * min, q of 2 bits.
//   offset  bytes  field
//        0     16  scales  byte g: low nibble scale, high nibble min of group g
//       16     64  qs      byte 32 h + l, bits 2 s and 2 s + 1: element 128 h + 32 s + l  (h 0-1, s
//       0-3, l 0-31) 80      2  d       half 82      2  dmin    half
struct BlockQ2_K {
  uint8_t scales[16];
  uint8_t qs[64];
  uint16_t d;
  uint16_t dmin;
};
static_assert(sizeof(BlockQ2_K) == 84);

// Q3_K, 256 values in 16 groups of 16, 110 bytes: x = d * (scale - 32) * (q - 4), q of 3 bits,
// scale of 6.
//   offset  bytes  field
//        0     32  hmask   byte l, bit 4 h + s: bit 2 of element 128 h + 32 s + l
//       32     64  qs      bits 0-1, laid out as in Q2_K
//       96     12  scales  group g: bits 0-3 in byte g % 8, low nibble for g < 8, else high;
//                          bits 4-5 in byte 8 + g % 4, bits 2 (g / 4) and 2 (g / 4) + 1
//      108      2  d       half
struct BlockQ3_K {
  uint8_t hmask[32];
  uint8_t qs[64];
  uint8_t scales[12];
  uint16_t d;
};
static_assert(sizeof(BlockQ3_K) == 110);

// Q4_K, 256 values in 8 groups of 32, 144 bytes: x = d * scale * q - dmin * min, q of 4 bits, scale
// and min of 6.
//   offset  bytes  field
//        0      2  d       half
//        2      2  dmin    half
//        4     12  scales  groups g < 4: scale in bits 0-5 of byte g, min in bits 0-5 of byte g +
//        4;
//                          groups g >= 4: bits 0-3 of scale and min are the low and high nibble of
//                          byte g + 4, bits 4-5 of the scale are bits 6-7 of byte g - 4, of the min
//                          bits 6-7 of byte g
//       16    128  qs      byte 32 p + l: low nibble element 64 p + l, high nibble element 64 p +
//       32 + l (p 0-3, l 0-31)
struct BlockQ4_K {
  uint16_t d;
  uint16_t dmin;
  uint8_t scales[12];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ4_K) == 144);

// Q5_K, 256 values in 8 groups of 32, 176 bytes: x = d * scale * q - dmin * min, q of 5 bits, scale
// and min of 6.
//   offset  bytes  field
//        0      2  d       half
//        2      2  dmin    half
//        4     12  scales  as Q4_K
//       16     32  qh      byte l, bit g: bit 4 of element 32 g + l  (g 0-7, l 0-31)
//       48    128  qs      bits 0-3, as Q4_K
struct BlockQ5_K {
  uint16_t d;
  uint16_t dmin;
  uint8_t scales[12];
  uint8_t qh[32];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ5_K) == 176);

// Q6_K, 256 values in 16 groups of 16, 210 bytes: x = d * scale * (q - 32), q of 6 bits, scale
// int8.
//   offset  bytes  field
//        0    128  ql      byte 64 h + l: low nibble element 128 h + l, high nibble element 128 h +
//        64 + l  (h 0-1, l 0-63)
//      128     64  qh      byte 32 h + l, bits 2 s and 2 s + 1: bits 4-5 of element 128 h + 32 s +
//      l  (s 0-3, l 0-31) 192     16  scales  int8, group g 208      2  d       half
struct BlockQ6_K {
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  uint16_t d;
};
static_assert(sizeof(BlockQ6_K) == 210);

// IQ4_NL, 32 values, 18 bytes: x = d * kIq4NlValues[q].
//   offset  bytes  field
//        0      2  d   half
//        2     16  qs  as Q4_0
struct BlockIQ4_NL {
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockIQ4_NL) == 18);

// IQ4_XS, 256 values in 8 groups of 32, 136 bytes: x = d * (scale - 32) * kIq4NlValues[q], scale of
// 6 bits.
//   offset  bytes  field
//        0      2  d         half
//        2      2  scales_h  bits 2 g and 2 g + 1: bits 4-5 of the scale of group g
//        4      4  scales_l  byte g / 2, low nibble for even g, else high: bits 0-3 of the scale of
//        group g 8    128  qs        byte 16 g + l: low nibble element 32 g + l, high nibble
//        element 32 g + 16 + l  (g 0-7, l 0-15)
struct BlockIQ4_XS {
  uint16_t d;
  uint16_t scales_h;
  uint8_t scales_l[4];
  uint8_t qs[128];
};
static_assert(sizeof(BlockIQ4_XS) == 136);

// S24_Q4, 64 values, 2 of each 4 consecutive ones kept, 26 bytes: x = d * q, q of 4 bits in two's
// complement; 0 elsewhere. Kept values 2 g and 2 g + 1 are of the four from element 4 g on, in
// ascending order; should both be at one element, they add up.
//   offset  bytes  field
//        0      2  d    half
//        2      8  at   byte 4 h + i, bits 2 s and 2 s + 1: which of its four kept value
//                       16 h + 4 s + i is (h 0-1, s 0-3, i 0-3)
//       10     16  qs   byte 4 u + i: low nibble kept value 8 u + i, high nibble kept value
//                       8 u + 4 + i (u 0-3, i 0-3)
struct BlockS24_Q4 {
  uint16_t d;
  uint8_t at[8];
  uint8_t qs[16];
};
static_assert(sizeof(BlockS24_Q4) == 26);

// S24_Q8, as S24_Q4 with q of 8 bits, 42 bytes.
//   offset  bytes  field
//        0      2  d    half
//        2      8  at   as S24_Q4
//       10     32  qs   int8, kept value k
struct BlockS24_Q8 {
  uint16_t d;
  uint8_t at[8];
  int8_t qs[32];
};
static_assert(sizeof(BlockS24_Q8) == 42);

// S24_F16 and S24_BF16, 16 values, 2 of each 4 consecutive ones kept, 18 bytes; 0 elsewhere. Kept
// values 2 g and 2 g + 1 are of the four from element 4 g on, in ascending order; should both be at
// one element, the second counts.
//   offset  bytes  field
//        0      2  at    byte k / 4, bits 2 (k % 4) and 2 (k % 4) + 1: which of its four value k is
//        2     16  kept  halves or bfloat16s, kept value k
struct BlockS24_F16 {
  uint8_t at[2];
  uint16_t kept[8];
};
static_assert(sizeof(BlockS24_F16) == 18);

// BM_Q4, 64 values, any 32 of them kept, 26 bytes: x = d * (q - 8), q of 4 bits; 0 elsewhere. A bit
// for each value takes no more than the positions of 2:4, and 32 of 64 leaves pruning nearly the
// freedom that a whole row would; one word of mask and one register of values make up a block.
//   offset  bytes  field
//        0      2  d     half
//        2      8  mask  byte j / 8, bit j % 8: element j is kept; bits after the 32nd say nothing
//       10     16  qs    byte k: low nibble kept value k, high nibble kept value k + 16
struct BlockBM_Q4 {
  uint16_t d;
  uint8_t mask[8];
  uint8_t qs[16];
};
static_assert(sizeof(BlockBM_Q4) == 26);

// BM_Q8, as BM_Q4 with x = d * q, q of 8 bits, 42 bytes.
//   offset  bytes  field
//        0      2  d     half
//        2      8  mask  as BM_Q4
//       10     32  qs    int8, kept value k
struct BlockBM_Q8 {
  uint16_t d;
  uint8_t mask[8];
  int8_t qs[32];
};
static_assert(sizeof(BlockBM_Q8) == 42);

#pragma pack(pop)

// Activations that meet block-quantized weights, 32 values: x = scale * q. Not stored in files. One
// cache line; the sums serve weights with an offset, in blocks of 32 or in groups of 16.
//   offset  bytes  field
//        0     32  q        int8, element j
//       32      4  scale    float
//       36     12  sums     float, scale * (sum of q): of all, of elements 0-15, of elements 16-31
//       48     12  negated  int32, -(sum of q), the same three
//       60      4  -
struct ActQ8 {
  int8_t q[32];
  float scale;
  float sums[3];
  int32_t negated[3];
  int32_t unused;
};
static_assert(sizeof(ActQ8) == 64);

// NOLINTEND(readability-identifier-naming)
}  // namespace edgewise
