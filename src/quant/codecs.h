// The encode and decode functions that the table in dtype.cc lists; signatures as in dtype.h.
#pragma once

#include <cstddef>

namespace edgewise::quant {
// NOLINTBEGIN(readability-identifier-naming): the formats' own names

void DecodeF32(const void* blocks, float* values, size_t n);
void DecodeF16(const void* blocks, float* values, size_t n);
void DecodeBF16(const void* blocks, float* values, size_t n);
void DecodeI8(const void* blocks, float* values, size_t n);
void DecodeI16(const void* blocks, float* values, size_t n);
void DecodeI32(const void* blocks, float* values, size_t n);
void DecodeI64(const void* blocks, float* values, size_t n);
void DecodeF64(const void* blocks, float* values, size_t n);
void DecodeQ4_0(const void* blocks, float* values, size_t n);
void DecodeQ4_1(const void* blocks, float* values, size_t n);
void DecodeQ5_0(const void* blocks, float* values, size_t n);
void DecodeQ5_1(const void* blocks, float* values, size_t n);
void DecodeQ8_0(const void* blocks, float* values, size_t n);
void DecodeQ2_K(const void* blocks, float* values, size_t n);
void DecodeQ3_K(const void* blocks, float* values, size_t n);
void DecodeQ4_K(const void* blocks, float* values, size_t n);
void DecodeQ5_K(const void* blocks, float* values, size_t n);
void DecodeQ6_K(const void* blocks, float* values, size_t n);
void DecodeIQ4_NL(const void* blocks, float* values, size_t n);
void DecodeIQ4_XS(const void* blocks, float* values, size_t n);
void DecodeS24_Q4(const void* blocks, float* values, size_t n);
void DecodeS24_Q8(const void* blocks, float* values, size_t n);
void DecodeBM_Q4(const void* blocks, float* values, size_t n);
void DecodeBM_Q8(const void* blocks, float* values, size_t n);
void DecodeS24_F16(const void* blocks, float* values, size_t n);
void DecodeS24_BF16(const void* blocks, float* values, size_t n);

void EncodeF32(const float* values, const float* weights, void* blocks, size_t n);
void EncodeF16(const float* values, const float* weights, void* blocks, size_t n);
void EncodeBF16(const float* values, const float* weights, void* blocks, size_t n);
void EncodeF64(const float* values, const float* weights, void* blocks, size_t n);
void EncodeQ4_0(const float* values, const float* weights, void* blocks, size_t n);
void EncodeQ4_1(const float* values, const float* weights, void* blocks, size_t n);
void EncodeQ5_0(const float* values, const float* weights, void* blocks, size_t n);
void EncodeQ5_1(const float* values, const float* weights, void* blocks, size_t n);
void EncodeQ8_0(const float* values, const float* weights, void* blocks, size_t n);
void EncodeQ2_K(const float* values, const float* weights, void* blocks, size_t n);
void EncodeQ3_K(const float* values, const float* weights, void* blocks, size_t n);
void EncodeQ4_K(const float* values, const float* weights, void* blocks, size_t n);
void EncodeQ5_K(const float* values, const float* weights, void* blocks, size_t n);
void EncodeQ6_K(const float* values, const float* weights, void* blocks, size_t n);
void EncodeIQ4_NL(const float* values, const float* weights, void* blocks, size_t n);
void EncodeIQ4_XS(const float* values, const float* weights, void* blocks, size_t n);
void EncodeS24_Q4(const float* values, const float* weights, void* blocks, size_t n);
void EncodeS24_Q8(const float* values, const float* weights, void* blocks, size_t n);
void EncodeBM_Q4(const float* values, const float* weights, void* blocks, size_t n);
void EncodeBM_Q8(const float* values, const float* weights, void* blocks, size_t n);
void EncodeS24_F16(const float* values, const float* weights, void* blocks, size_t n);
void EncodeS24_BF16(const float* values, const float* weights, void* blocks, size_t n);

// NOLINTEND(readability-identifier-naming)
}  // namespace edgewise::quant
