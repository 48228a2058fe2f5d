#include "kernels/kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/half.h"
#include "quant/blocks.h"

namespace edgewise::kernels {
namespace {

// Rounds with the stored (half) scale, so that the error is that of the reader; a scale that is a
// subnormal half may be off by more than 1 / 254, hence the limits.
void EncodeKvQ8_0(const float* x, BlockQ8_0* blocks, size_t n) {
  for (size_t b = 0; b < n / 32; ++b, x += 32) {
    float largest = 0, zero_or_nan = 0;
    for (int i = 0; i < 32; ++i) {
      largest = std::max(largest, std::fabs(x[i]));
      zero_or_nan += x[i] * 0.0f;
    }
    BlockQ8_0& block = blocks[b];
    block.d = FloatToHalf(largest / 127.0f + zero_or_nan);
    const float d = HalfToFloat(block.d);
    const float inverse = d > 0 ? 1.0f / d : 0.0f;
    for (int i = 0; i < 32; ++i) {
      const float q = std::nearbyint(x[i] * inverse);
      block.qs[i] = static_cast<int8_t>(q > 127.0f ? 127.0f : q > -127.0f ? q : -127.0f);
    }
  }
}

// The nearest of 16 codes, 0 for NaN.
int NearestCode(float x) { return static_cast<int>(std::min(std::max(0.0f, x) + 0.5f, 15.0f)); }

// Lays 16 codes over the range of 32 values, fits scale and offset to them by least squares, and
// takes the codes nearest to what is stored. What is not finite makes the scale NaN.
BlockQ4_1 EncodeKvQ4_1(const float* x) {
  float low = x[0], high = x[0], sum = 0;
  for (int i = 0; i < 32; ++i) {
    low = std::min(low, x[i]);
    high = std::max(high, x[i]);
    sum += x[i];
  }
  const float per_step = high > low ? 15.0f / (high - low) : 0.0f;
  float codes = 0, squares = 0, products = 0;
  for (int i = 0; i < 32; ++i) {
    const auto q = static_cast<float>(NearestCode((x[i] - low) * per_step));
    codes += q;
    squares += q * q;
    products += q * (x[i] - low);
  }
  const float mean = sum / 32 - low, spread = squares - codes * codes / 32;
  BlockQ4_1 block;
  block.d = FloatToHalf((spread > 0 ? (products - codes * mean) / spread : 0.0f) + sum * 0.0f);
  const float d = HalfToFloat(block.d);
  block.m = FloatToHalf(low + mean - d * codes / 32);
  const float m = HalfToFloat(block.m), inverse = d > 0 ? 1.0f / d : 0.0f;
  for (int i = 0; i < 16; ++i) {
    const int first = NearestCode((x[i] - m) * inverse);
    block.qs[i] = static_cast<uint8_t>(first | NearestCode((x[i + 16] - m) * inverse) << 4);
  }
  return block;
}

}  // namespace

size_t ActRowBytes(ActFormat format, size_t columns) {
  switch (format) {
    case ActFormat::kF32:
      return columns * sizeof(float);
    case ActFormat::kQ8:
      EW_CHECK(columns % 32 == 0);
      return columns / 32 * sizeof(ActQ8);
  }
  return 0;
}

size_t KvRowBytes(KvFormat format, size_t head_dim) {
  switch (format) {
    case KvFormat::kF32:
      return head_dim * sizeof(float);
    case KvFormat::kF16:
      return head_dim * sizeof(uint16_t);
    case KvFormat::kQ8_0:
      return head_dim % 32 == 0 ? head_dim / 32 * sizeof(BlockQ8_0) : 0;
    case KvFormat::kQ4_0:
      return head_dim % 32 == 0 ? head_dim / 32 * sizeof(BlockQ4_1) : 0;
  }
  return 0;
}

size_t KeyBlockBytes(KvFormat format, size_t head_dim) {
  return format == KvFormat::kQ4_0 ? head_dim * sizeof(BlockQ4_1)
                                   : kKeyBlock * KvRowBytes(format, head_dim);
}

void StoreValue(const Kernels& kernels, KvFormat format, const float* x, void* dst, size_t n) {
  switch (format) {
    case KvFormat::kF32:
      std::memcpy(dst, x, n * sizeof(float));
      return;
    case KvFormat::kF16:
      kernels.f32_to_f16(x, static_cast<uint16_t*>(dst), n);
      return;
    case KvFormat::kQ8_0:
      EW_CHECK(n % 32 == 0);
      EncodeKvQ8_0(x, static_cast<BlockQ8_0*>(dst), n);
      return;
    case KvFormat::kQ4_0:
      EW_CHECK(n % 32 == 0);
      for (size_t b = 0; b < n / 32; ++b) {
        static_cast<BlockQ4_1*>(dst)[b] = EncodeKvQ4_1(x + 32 * b);
      }
      return;
  }
}

void StoreKey(const Kernels& kernels, KvFormat format, const float* x, void* block, size_t slot,
              size_t n) {
  EW_CHECK(format != KvFormat::kQ4_0);
  constexpr size_t kRun = 32;  // values stored at a time
  auto* bytes = static_cast<std::byte*>(block);
  for (size_t c = 0; c < n; c += kRun) {
    const size_t count = std::min(kRun, n - c);
    std::byte run[4 * kRun];
    StoreValue(kernels, format, x + c, run, count);
    const std::byte* from = run;
    std::byte* group = bytes + c / kRun * KeyBlockBytes(format, kRun);
    size_t units = count, size = format == KvFormat::kF16 ? 2 : 4;
    if (format == KvFormat::kQ8_0) {
      std::memcpy(group + 2 * slot, from, 2);  // the scale
      from += 2;
      group += 2 * kKeyBlock;
      units = kRun;
      size = 1;
    }
    for (size_t i = 0; i < units; ++i) {
      std::memcpy(group + (i * kKeyBlock + slot) * size, from + i * size, size);
    }
  }
}

void RoundKeys(const void* f16_block, void* q4_0_block, size_t head_dim) {
  const auto* halves = static_cast<const uint16_t*>(f16_block);
  auto* columns = static_cast<BlockQ4_1*>(q4_0_block);
  for (size_t c = 0; c < head_dim; ++c) {
    float x[kKeyBlock];
    for (size_t i = 0; i < kKeyBlock; ++i) x[i] = HalfToFloat(halves[c * kKeyBlock + i]);
    columns[c] = EncodeKvQ4_1(x);
  }
}

}  // namespace edgewise::kernels
