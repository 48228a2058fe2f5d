// Products of every weight format: each table against the exact sum over the decoded numbers.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/half.h"
#include "base/rng.h"
#include "kernels/kernels.h"
#include "quant/blocks.h"
#include "quant/dtype.h"
#include "quant/packed.h"

namespace edgewise::kernels {
namespace {

const DType kBlockTypes[] = {DType::kQ4_0,   DType::kQ4_1,   DType::kQ5_0,  DType::kQ5_1,
                             DType::kQ8_0,   DType::kIQ4_NL, DType::kQ2_K,  DType::kQ3_K,
                             DType::kQ4_K,   DType::kQ5_K,   DType::kQ6_K,  DType::kIQ4_XS,
                             DType::kS24_Q4, DType::kS24_Q8, DType::kBM_Q4, DType::kBM_Q8};
const DType kFloatTypes[] = {DType::kF32, DType::kF16, DType::kBF16};
const DType kSparseFloatTypes[] = {DType::kS24_F16, DType::kS24_BF16};

uint16_t RandomHalf(Rng& rng) {
  return FloatToHalf(static_cast<float>((rng.Uniform() - 0.5) * 0.1));
}

// Where a block keeps its one or two factors.
struct Factors {
  size_t first;
  size_t second;
};
Factors FactorsOf(DType type) {
  switch (type) {
    case DType::kQ4_0:
      return {offsetof(BlockQ4_0, d), offsetof(BlockQ4_0, d)};
    case DType::kQ4_1:
      return {offsetof(BlockQ4_1, d), offsetof(BlockQ4_1, m)};
    case DType::kQ5_0:
      return {offsetof(BlockQ5_0, d), offsetof(BlockQ5_0, d)};
    case DType::kQ5_1:
      return {offsetof(BlockQ5_1, d), offsetof(BlockQ5_1, m)};
    case DType::kQ8_0:
      return {offsetof(BlockQ8_0, d), offsetof(BlockQ8_0, d)};
    case DType::kIQ4_NL:
      return {offsetof(BlockIQ4_NL, d), offsetof(BlockIQ4_NL, d)};
    case DType::kQ2_K:
      return {offsetof(BlockQ2_K, d), offsetof(BlockQ2_K, dmin)};
    case DType::kQ3_K:
      return {offsetof(BlockQ3_K, d), offsetof(BlockQ3_K, d)};
    case DType::kQ4_K:
      return {offsetof(BlockQ4_K, d), offsetof(BlockQ4_K, dmin)};
    case DType::kQ5_K:
      return {offsetof(BlockQ5_K, d), offsetof(BlockQ5_K, dmin)};
    case DType::kQ6_K:
      return {offsetof(BlockQ6_K, d), offsetof(BlockQ6_K, d)};
    case DType::kIQ4_XS:
      return {offsetof(BlockIQ4_XS, d), offsetof(BlockIQ4_XS, d)};
    case DType::kS24_Q4:
      return {offsetof(BlockS24_Q4, d), offsetof(BlockS24_Q4, d)};
    case DType::kS24_Q8:
      return {offsetof(BlockS24_Q8, d), offsetof(BlockS24_Q8, d)};
    case DType::kBM_Q4:
      return {offsetof(BlockBM_Q4, d), offsetof(BlockBM_Q4, d)};
    default:
      return {offsetof(BlockBM_Q8, d), offsetof(BlockBM_Q8, d)};
  }
}

// Gives a block of arbitrary bytes sane factors.
void SetFactors(DType type, uint8_t* block, Rng& rng) {
  const Factors at = FactorsOf(type);
  for (const size_t offset : {at.first, at.second}) {
    const uint16_t factor = RandomHalf(rng);
    std::memcpy(block + offset, &factor, 2);
  }
}

constexpr int kRandomBytes = -1;

// One product: weights at an odd address, rows of everything further apart than they need be.
struct Problem {
  DType type;
  ActFormat act;
  size_t rows, columns, n;
  size_t w_stride, x_stride;
  std::vector<uint8_t> weights;
  std::vector<std::byte> packed;   // block formats: as the kernels take them, at an odd address
  std::vector<float> activations;  // (n, columns), before quantization
  std::vector<uint64_t> x;

  Problem(DType t, size_t r, size_t c, size_t count, uint64_t seed, int fill = kRandomBytes)
      : type(t),
        act(Available().items[0].linear[static_cast<int>(t)].act),
        rows(r),
        columns(c),
        n(count) {
    Rng rng(seed);
    const DTypeInfo& info = Info(type);
    w_stride = info.RowBytes(columns) + 3;
    x_stride = (ActRowBytes(act, columns) + 15) / 8 * 8;
    weights.resize(1 + rows * w_stride);
    for (uint8_t& byte : weights) {
      byte = fill == kRandomBytes ? static_cast<uint8_t>(rng.Next()) : static_cast<uint8_t>(fill);
    }
    for (size_t i = 0; i < rows; ++i) FillRow(i, rng);
    if (IsPacked(type)) Pack();
    activations.resize(n * columns);
    for (float& value : activations) value = static_cast<float>(rng.Gaussian());
    x.resize(n * x_stride / 8 + 1);
  }

  uint8_t* Row(size_t i) { return weights.data() + 1 + i * w_stride; }
  const uint8_t* Row(size_t i) const { return weights.data() + 1 + i * w_stride; }
  char* Act(size_t j) { return reinterpret_cast<char*>(x.data()) + j * x_stride; }
  const char* Act(size_t j) const { return reinterpret_cast<const char*>(x.data()) + j * x_stride; }

  void FillRow(size_t i, Rng& rng) {
    const DTypeInfo& info = Info(type);
    if (info.quantized()) {
      for (size_t b = 0; b < columns / info.block; ++b) {
        SetFactors(type, Row(i) + b * info.block_bytes, rng);
      }
      return;
    }
    if (info.sparse()) {  // any positions, and halves
      for (size_t b = 0; b < columns / info.block; ++b) {
        for (size_t k = 0; k < 8; ++k) {
          const float value = static_cast<float>(rng.Gaussian());
          const uint16_t half = type == DType::kS24_F16 ? FloatToHalf(value) : FloatToBf16(value);
          std::memcpy(Row(i) + b * info.block_bytes + offsetof(BlockS24_F16, kept) + 2 * k, &half,
                      2);
        }
      }
      return;
    }
    for (size_t c = 0; c < columns; ++c) {
      const float value = static_cast<float>(rng.Gaussian());
      const uint16_t half = type == DType::kF16 ? FloatToHalf(value) : FloatToBf16(value);
      if (type == DType::kF32) std::memcpy(Row(i) + 4 * c, &value, 4);
      if (type != DType::kF32) std::memcpy(Row(i) + 2 * c, &half, 2);
    }
  }

  void Pack() {
    const size_t row_bytes = Info(type).RowBytes(columns);
    packed.resize(1 + PackedBytes(type, rows, columns));
    for (size_t i = 0; i < rows; i += kPackedRows) {
      PackGroup(type, reinterpret_cast<const std::byte*>(Row(i)), w_stride,
                std::min(kPackedRows, rows - i), columns, packed.data() + 1 + i * row_bytes);
    }
  }

  void Quantize(const Kernels& k) {
    for (size_t j = 0; j < n; ++j) {
      const float* values = activations.data() + j * columns;
      if (act == ActFormat::kF32) std::memcpy(Act(j), values, columns * 4);
      if (act == ActFormat::kQ8) k.quantize_q8(values, Act(j), columns);
    }
  }

  // Row j of x as the numbers it stands for.
  std::vector<double> DecodedX(size_t j) const {
    std::vector<double> values(columns);
    for (size_t c = 0; c < columns; ++c) {
      if (act == ActFormat::kF32) {
        values[c] = static_cast<double>(activations[j * columns + c]);
      } else {
        const auto& block = reinterpret_cast<const ActQ8*>(Act(j))[c / 32];
        values[c] = static_cast<double>(block.scale) * block.q[c % 32];
      }
    }
    return values;
  }

  std::vector<float> DecodedW(size_t i) const {
    std::vector<float> values(columns);
    std::vector<uint64_t> aligned((w_stride + 7) / 8);
    std::memcpy(aligned.data(), Row(i), Info(type).RowBytes(columns));
    Info(type).decode(aligned.data(), values.data(), columns);
    return values;
  }

  // Rows first.. of w, in block formats a multiple of 16, with rows j.. of x.
  void Run(const Kernels& k, size_t first, size_t row_count, size_t j, size_t x_count, float* y,
           size_t y_stride) const {
    LinearArgs args{Row(first), w_stride, row_count, columns, Act(j),
                    x_stride,   x_count,  y,         y_stride};
    if (IsPacked(type)) {
      args.w_stride = Info(type).RowBytes(columns);
      args.w = packed.data() + 1 + first * args.w_stride;
    }
    k.linear[static_cast<int>(type)].run(args);
  }
};

// Computes the whole product and compares each element with the exact sum; nothing else in y may
// change.
void CheckProduct(const Kernels& k, Problem& p) {
  CAPTURE(std::string(k.name));
  CAPTURE(std::string(Info(p.type).name));
  CAPTURE(p.rows);
  CAPTURE(p.columns);
  CAPTURE(p.n);
  p.Quantize(k);
  constexpr float kUntouched = -12345.0f;
  const size_t y_stride = p.rows + 2;
  std::vector<float> y(p.n * y_stride, kUntouched);
  p.Run(k, 0, p.rows, 0, p.n, y.data(), y_stride);
  std::vector<std::vector<float>> w;
  for (size_t i = 0; i < p.rows; ++i) w.push_back(p.DecodedW(i));
  size_t wrong = 0;
  for (size_t j = 0; j < p.n; ++j) {
    const std::vector<double> x = p.DecodedX(j);
    for (size_t i = 0; i < p.rows; ++i) {
      double exact = 0, largest_w = 0, sum_x = 0;
      for (size_t c = 0; c < p.columns; ++c) {
        exact += static_cast<double>(w[i][c]) * x[c];
        largest_w = std::fmax(largest_w, std::fabs(static_cast<double>(w[i][c])));
        sum_x += std::fabs(x[c]);
      }
      const double error = std::fabs(static_cast<double>(y[j * y_stride + i]) - exact);
      if (!(error <= 1e-6 * largest_w * sum_x)) ++wrong;
    }
    for (size_t i = p.rows; i < y_stride; ++i) wrong += y[j * y_stride + i] != kUntouched;
  }
  CHECK(wrong == 0);
}

template <class Function>
void ForEachTable(Function function) {
  const KernelList list = Available();
  for (size_t i = 0; i < list.size; ++i) function(list.items[i]);
}

}  // namespace

TEST_CASE("block formats equal the exact dot of the decoded numbers, for every count of rows") {
  ForEachTable([](const Kernels& k) {
    for (const DType type : kBlockTypes) {
      for (size_t rows = 1; rows <= 9; ++rows) {
        for (size_t n = 1; n <= 9; ++n) {
          Problem p(type, rows, Info(type).block * (1 + (rows + n) % 3), n, rows * 100 + n);
          CheckProduct(k, p);
        }
      }
      for (const size_t blocks : {4, 5, 8, 17}) {
        Problem p(type, 3, Info(type).block * blocks, 5, blocks);
        CheckProduct(k, p);
      }
      Problem many_rows(type, 37, Info(type).block, 2, 7);
      CheckProduct(k, many_rows);
      Problem many_activations(type, 3, Info(type).block, 67, 8);
      CheckProduct(k, many_activations);
    }
  });
}

TEST_CASE("block formats neither overflow nor saturate") {
  ForEachTable([](const Kernels& k) {
    for (const DType type : kBlockTypes) {
      for (const int fill : {0x00, 0x0F, 0x7F, 0x80, 0xF0, 0xFF, kRandomBytes}) {
        for (int signs = 0; signs < 4; ++signs) {
          Problem p(type, 2, Info(type).block * 2, 5, static_cast<uint64_t>(fill + 2), fill);
          Rng rng(static_cast<uint64_t>(signs));
          for (size_t i = 0; i < p.activations.size(); ++i) {
            const bool negative =
                signs == 1 || (signs == 2 && i % 2 == 1) || (signs == 3 && rng.Below(2));
            p.activations[i] = negative ? -2.0f : 2.0f;
          }
          CAPTURE(fill);
          CAPTURE(signs);
          CheckProduct(k, p);
        }
      }
    }
  });
}

TEST_CASE("float formats equal the exact dot, for every count of columns") {
  ForEachTable([](const Kernels& k) {
    for (const DType type : kFloatTypes) {
      for (size_t columns = 1; columns <= 130; ++columns) {
        Problem p(type, 3, columns, 1 + columns % 9, columns);
        CheckProduct(k, p);
      }
      for (const size_t columns : {256, 257, 1000, 2048}) {
        Problem p(type, 18, columns, 9, columns);
        CheckProduct(k, p);
      }
      Problem tall(type, 263, 40, 9, 3);
      CheckProduct(k, tall);
      for (const size_t columns : {512, 515, 1024, 1031}) {  // chunks of columns, blocks of rows
        for (const size_t n : {8, 96, 97, 105}) {
          Problem p(type, 5 + n % 9, columns, n, columns + n);
          CheckProduct(k, p);
        }
      }
    }
  });
}

TEST_CASE("floats pruned 2:4 equal the exact dot, for every count of blocks") {
  ForEachTable([](const Kernels& k) {
    for (const DType type : kSparseFloatTypes) {
      for (size_t blocks = 1; blocks <= 9; ++blocks) {
        for (size_t n = 1; n <= 10; ++n) {
          Problem p(type, 1 + (blocks + n) % 9, 16 * blocks, n, 100 * blocks + n);
          CheckProduct(k, p);
        }
      }
      for (const size_t columns : {512, 528, 1040}) {
        for (const size_t n : {8, 97, 105}) {
          Problem p(type, 5 + n % 9, columns, n, columns + n);
          CheckProduct(k, p);
        }
      }
      Problem tall(type, 263, 48, 9, 3);
      CheckProduct(k, tall);
    }
  });
}

TEST_CASE("long rows of floats keep the precision of short ones") {
  ForEachTable([](const Kernels& k) {
    for (const size_t n : {1, 9}) {
      Problem p(DType::kF32, 32, 8192, n, 5);
      p.Quantize(k);
      std::vector<float> y(n * p.rows);
      p.Run(k, 0, p.rows, 0, n, y.data(), p.rows);
      double squares = 0, expected = 0;
      for (size_t i = 0; i < n * p.rows; ++i) {
        const std::vector<double> x = p.DecodedX(i / p.rows);
        const std::vector<float> w = p.DecodedW(i % p.rows);
        double exact = 0;
        for (size_t c = 0; c < p.columns; ++c) {
          const double product = static_cast<double>(w[c]) * x[c];
          exact += product;
          expected += product * product;
        }
        squares += (static_cast<double>(y[i]) - exact) * (static_cast<double>(y[i]) - exact);
      }
      CAPTURE(std::string(k.name));
      CHECK(std::sqrt(squares / expected) < 6e-7);  // of the size of a random sum
    }
  });
}

TEST_CASE("an element is the same bits however the work is split") {
  ForEachTable([](const Kernels& k) {
    for (int type = 0; type <= static_cast<int>(DType::kS24_BF16); ++type) {
      const DTypeInfo& info = Info(static_cast<DType>(type));
      constexpr size_t kRows = 37;
      const size_t n = info.quantized() ? 21 : 103;
      const size_t columns = info.quantized() ? info.block * 5 : info.sparse() ? 1104 : 1100;
      Problem p(info.id, kRows, columns, n, 11);
      p.Quantize(k);
      std::vector<float> whole(kRows * n), parts(kRows * n), rows(kRows * n);
      p.Run(k, 0, kRows, 0, n, whole.data(), kRows);
      const size_t step = info.quantized() ? 16 : 1, wide = info.quantized() ? 32 : 5;
      for (size_t j = 0; j < n; ++j) {
        for (size_t i = 0; i < kRows; i += step) {
          p.Run(k, i, std::min(step, kRows - i), j, 1, &parts[j * kRows + i], kRows);
        }
      }
      for (size_t i = 0; i < kRows; i += wide) {
        const size_t count = std::min(wide, kRows - i);
        for (size_t j = 0; j < n; j += 6) {
          p.Run(k, i, count, j, j + 6 < n ? 6 : n - j, &rows[j * kRows + i], kRows);
        }
      }
      CAPTURE(std::string(k.name));
      CAPTURE(std::string(info.name));
      CHECK(std::memcmp(whole.data(), parts.data(), whole.size() * 4) == 0);
      CHECK(std::memcmp(whole.data(), rows.data(), whole.size() * 4) == 0);
    }
  });
}

TEST_CASE("no rows and no activations are no work") {
  ForEachTable([](const Kernels& k) {
    for (const DType type : {DType::kF16, DType::kQ4_0, DType::kQ4_K}) {
      Problem p(type, 1, 256, 1, 1);
      p.Quantize(k);
      float y = 5;
      p.Run(k, 0, 0, 0, 1, &y, 1);
      p.Run(k, 0, 1, 0, 0, &y, 1);
      CHECK(y == 5);
    }
  });
}

TEST_CASE("activations round to the nearest step, alike in every table") {
  constexpr size_t kCount = 2048;
  std::vector<float> x(kCount);
  Rng rng(3);
  for (size_t i = 0; i < kCount; ++i) {
    x[i] = static_cast<float>(rng.Gaussian() * std::pow(10.0, static_cast<double>(i / 256) - 4.0));
  }
  for (size_t i = 256; i < 512; ++i) x[i] = 0;
  for (size_t i = 512; i < 768; ++i)
    x[i] = static_cast<float>(static_cast<int>(i) - 640) * 0.5f;  // ties
  for (size_t i = 768; i < 1024; ++i) x[i] *= 1e30f;
  for (size_t i = 1024; i < 1280; ++i) x[i] *= 1e-38f;
  std::vector<ActQ8> first(kCount / 32);
  Available().items[0].quantize_q8(x.data(), first.data(), kCount);
  for (size_t i = 0; i < kCount; ++i) {
    float largest = 0;
    for (size_t c = i / 32 * 32; c < i / 32 * 32 + 32; ++c)
      largest = std::fmax(largest, std::fabs(x[c]));
    const ActQ8& block = first[i / 32];
    const double tiny = 1e-30;
    CHECK(
        std::fabs(static_cast<double>(block.scale) * block.q[i % 32] - static_cast<double>(x[i])) <=
        static_cast<double>(largest) * 0.50001 / 127 + tiny);
  }
  for (const ActQ8& block : first) {
    int sums[3] = {};
    for (int i = 0; i < 32; ++i) {
      sums[0] += block.q[i];
      sums[1 + i / 16] += block.q[i];
    }
    for (int i = 0; i < 3; ++i) {
      CHECK(block.negated[i] == -sums[i]);
      CHECK(block.sums[i] == block.scale * static_cast<float>(sums[i]));
    }
  }
  ForEachTable([&](const Kernels& k) {
    std::vector<ActQ8> blocks(kCount / 32);
    k.quantize_q8(x.data(), blocks.data(), kCount);
    CHECK(std::memcmp(blocks.data(), first.data(), blocks.size() * sizeof(ActQ8)) == 0);
  });
}

TEST_CASE("the peak of int8 products counts what it does") {
  for (size_t i = 0; i < Available().size; ++i) {
    const Kernels& k = Available().items[i];
    CAPTURE(k.name);
    CHECK(k.int8_products(0) == 0);
    CHECK(k.int8_products(1) >= 32);
    CHECK(k.int8_products(1000) == 1000 * k.int8_products(1));
  }
}

TEST_CASE("a broken activation shows in the scale") {
  ForEachTable([](const Kernels& k) {
    for (const float bad :
         {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
          std::numeric_limits<float>::quiet_NaN()}) {
      std::vector<float> x(256, 1.0f);
      x[17] = bad;
      ActQ8 blocks[8];
      k.quantize_q8(x.data(), blocks, 256);
      CHECK_FALSE(std::isfinite(blocks[0].scale));
      CHECK(blocks[1].scale == 1.0f / 127.0f);
    }
  });
}

}  // namespace edgewise::kernels
