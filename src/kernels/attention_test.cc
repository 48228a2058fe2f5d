// Attention of every table against a plain softmax in double precision.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/half.h"
#include "base/rng.h"
#include "kernels/kernels.h"
#include "quant/blocks.h"

namespace edgewise::kernels {
namespace {

struct Case {
  size_t n, keys, head_dim;
  KvFormat format;
  float scale, softcap;
  size_t window;  // 0: query i sees keys 0 to keys - n + i; else only the last `window` of them
};

struct Inputs {
  Case c;
  size_t stride;      // bytes between values: two heads of them
  size_t key_stride;  // bytes between blocks of 32 keys, likewise
  size_t recent_stride;
  std::vector<float> q;
  std::vector<char> k, v, recent;
  std::vector<uint32_t> first, end;

  explicit Inputs(const Case& of, double size = 1) : c(of) {
    Rng rng(c.n * 1000 + c.keys + c.head_dim);
    const size_t row = KvRowBytes(c.format, c.head_dim);
    stride = 2 * row;
    key_stride = 2 * KeyBlockBytes(c.format, c.head_dim);
    recent_stride = 2 * KeyBlockBytes(KvFormat::kF16, c.head_dim);
    q.resize(c.n * (c.head_dim + 1));
    for (float& value : q) value = static_cast<float>(rng.Gaussian() * size);
    const size_t blocks = (c.keys + kKeyBlock - 1) / kKeyBlock;
    k.resize(blocks * key_stride);
    v.resize(blocks * kKeyBlock * stride);
    recent.resize(rounds() ? blocks * recent_stride : 0);
    std::vector<float> head(c.head_dim);
    for (size_t t = 0; t < c.keys; ++t) {
      for (float& value : head) value = static_cast<float>(rng.Gaussian() * size);
      StoreKey(Active(), rounds() ? KvFormat::kF16 : c.format, head.data(),
               rounds() ? recent.data() + t / kKeyBlock * recent_stride
                        : k.data() + t / kKeyBlock * key_stride,
               t % kKeyBlock, c.head_dim);
      for (float& value : head) value = static_cast<float>(rng.Gaussian());
      StoreValue(Active(), c.format, head.data(), v.data() + t * stride, c.head_dim);
    }
    for (size_t b = 0; rounds() && b < c.keys / kKeyBlock; ++b) {
      RoundKeys(recent.data() + b * recent_stride, k.data() + b * key_stride, c.head_dim);
    }
    for (size_t i = 0; i < c.n; ++i) {
      const size_t last = c.keys - c.n + i + 1;
      end.push_back(static_cast<uint32_t>(last));
      first.push_back(static_cast<uint32_t>(c.window && last > c.window ? last - c.window : 0));
    }
  }

  bool rounds() const { return c.format == KvFormat::kQ4_0; }

  // Queries i to i + count - 1 into out, (n, head_dim + 2).
  void Run(const Kernels& kernels, size_t i, size_t count, float* out) const {
    AttendArgs args = Args(i, count);
    args.out = out + i * (c.head_dim + 2);
    args.out_stride = c.head_dim + 2;
    kernels.attend(args);
  }

  AttendArgs Args(size_t i, size_t count) const {
    AttendArgs args{};
    args.q = q.data() + i * (c.head_dim + 1);
    args.n = count;
    args.heads = 1;
    args.q_stride = c.head_dim + 1;
    args.head_dim = c.head_dim;
    args.k = k.data();
    args.v = v.data();
    args.k_stride = key_stride;
    args.v_stride = stride;
    args.slots = v.size() / stride;
    args.format = c.format;
    args.recent = recent.data();
    args.recent_stride = recent_stride;
    args.recent_slots = recent.size() / recent_stride * kKeyBlock;
    args.first_key = first.data() + i;
    args.end_key = end.data() + i;
    args.scale = c.scale;
    args.softcap = c.softcap;
    return args;
  }

  static double Half(const char* p) {
    uint16_t value;
    std::memcpy(&value, p, 2);
    return static_cast<double>(HalfToFloat(value));
  }
  static double FourBits(const BlockQ4_1& block, size_t i) {
    const int code = i % 32 < 16 ? block.qs[i % 16] & 15 : block.qs[i % 16] >> 4;
    return static_cast<double>(HalfToFloat(block.d)) * code +
           static_cast<double>(HalfToFloat(block.m));
  }
  static double Single(const char* p) {
    float value;
    std::memcpy(&value, p, 4);
    return static_cast<double>(value);
  }

  // As a query at `position` sees it.
  double Key(size_t t, size_t column, size_t position) const {
    const char* block = k.data() + t / kKeyBlock * key_stride;
    const size_t slot = t % kKeyBlock;
    if (rounds() && t / kKeyBlock == position / kKeyBlock) {
      return Half(recent.data() + t / kKeyBlock * recent_stride + 2 * (column * kKeyBlock + slot));
    }
    if (rounds()) {
      return FourBits(reinterpret_cast<const BlockQ4_1*>(block)[column], slot);
    }
    if (c.format == KvFormat::kF32) return Single(block + 4 * (column * kKeyBlock + slot));
    if (c.format == KvFormat::kF16) return Half(block + 2 * (column * kKeyBlock + slot));
    const char* group = block + column / 32 * kKeyBlock * sizeof(BlockQ8_0);
    const char code = group[2 * kKeyBlock + column % 32 * kKeyBlock + slot];
    return Half(group + 2 * slot) * static_cast<int8_t>(code);
  }

  double Value(size_t t, size_t column) const {
    const char* row = v.data() + t * stride;
    if (c.format == KvFormat::kF32) return Single(row + 4 * column);
    if (c.format == KvFormat::kF16) return Half(row + 2 * column);
    if (c.format == KvFormat::kQ4_0) {
      return FourBits(reinterpret_cast<const BlockQ4_1*>(row)[column / 32], column);
    }
    const BlockQ8_0& block = reinterpret_cast<const BlockQ8_0*>(row)[column / 32];
    return static_cast<double>(HalfToFloat(block.d)) * block.qs[column % 32];
  }

  std::vector<double> Exact(size_t i) const {
    std::vector<double> scores;
    for (size_t t = first[i]; t < end[i]; ++t) {
      double score = 0;
      for (size_t d = 0; d < c.head_dim; ++d) {
        score += static_cast<double>(q[i * (c.head_dim + 1) + d]) * Key(t, d, end[i] - 1);
      }
      score *= static_cast<double>(c.scale);
      if (c.softcap > 0)
        score = static_cast<double>(c.softcap) * std::tanh(score / static_cast<double>(c.softcap));
      scores.push_back(score);
    }
    const double largest = *std::max_element(scores.begin(), scores.end());
    double total = 0;
    for (double& score : scores) total += score = std::exp(score - largest);
    std::vector<double> out(c.head_dim);
    for (size_t s = 0; s < scores.size(); ++s) {
      for (size_t d = 0; d < c.head_dim; ++d) out[d] += scores[s] / total * Value(first[i] + s, d);
    }
    return out;
  }
};

constexpr float kUntouched = -12345.0f;

void CheckCase(const Case& c, double tolerance, double size = 1) {
  const Inputs in(c, size);
  const KernelList list = Available();
  std::vector<std::vector<double>> exact;
  for (size_t i = 0; i < c.n; ++i) exact.push_back(in.Exact(i));
  for (size_t table = 0; table < list.size; ++table) {
    const Kernels& kernels = list.items[table];
    CAPTURE(std::string(kernels.name));
    CAPTURE(c.n);
    CAPTURE(c.keys);
    CAPTURE(c.head_dim);
    CAPTURE(static_cast<int>(c.format));
    std::vector<float> out(c.n * (c.head_dim + 2), kUntouched), single = out;
    in.Run(kernels, 0, c.n, out.data());
    double worst = 0;
    size_t overrun = 0;
    for (size_t i = 0; i < c.n; ++i) {
      const float* row = out.data() + i * (c.head_dim + 2);
      for (size_t d = 0; d < c.head_dim; ++d) {
        const double error = std::fabs(static_cast<double>(row[d]) - exact[i][d]);
        worst = std::isnan(error) ? 1e30 : std::max(worst, error);
      }
      overrun += row[c.head_dim] != kUntouched || row[c.head_dim + 1] != kUntouched;
      in.Run(kernels, i, 1, single.data());
    }
    CHECK(worst <= tolerance);
    CHECK(overrun == 0);
    CHECK(std::memcmp(out.data(), single.data(), out.size() * sizeof(float)) == 0);
  }
}

}  // namespace

TEST_CASE("attention equals a plain softmax, alone and in groups") {
  for (const KvFormat format : {KvFormat::kF32, KvFormat::kF16, KvFormat::kQ8_0, KvFormat::kQ4_0}) {
    for (const size_t head_dim : {1, 3, 8, 16, 31, 33, 48, 64, 80, 96, 100, 128, 160, 256}) {
      if (KvRowBytes(format, head_dim) == 0) continue;
      const float scale = 1 / std::sqrt(static_cast<float>(head_dim));
      for (size_t n = 1; n <= 9; n += head_dim == 64 ? 1 : 4) {
        CheckCase({n, n + 67, head_dim, format, scale, 0, 0}, 3e-6);
      }
      CheckCase({1, 1, head_dim, format, scale, 0, 0}, 3e-6);
      CheckCase({32, 32, head_dim, format, scale, 0, 0}, 3e-6);
      CheckCase({70, 100, head_dim, format, scale, 0, 0}, 3e-6);
      CheckCase({6, 150, head_dim, format, scale, 0, 40}, 3e-6);
      CheckCase({3, 40, head_dim, format, scale, 2.0f, 0}, 3e-6);
    }
  }
}

TEST_CASE("heads that share keys are the same bits as alone") {
  constexpr size_t kHeads = 5, kHeadDim = 64;
  for (const auto& [format, n] : {std::pair{KvFormat::kF16, size_t{1}},
                                  {KvFormat::kF16, 3},
                                  {KvFormat::kF16, 40},
                                  {KvFormat::kQ4_0, 1},
                                  {KvFormat::kQ4_0, 40}}) {
    const Inputs in({n, n + 50, kHeadDim, format, 0.2f, 0, 70});
    Rng rng(n);
    std::vector<float> q(n * kHeads * kHeadDim), out(q.size()), alone(q.size());
    for (float& value : q) value = static_cast<float>(rng.Gaussian());
    const KernelList list = Available();
    for (size_t table = 0; table < list.size; ++table) {
      AttendArgs args = in.Args(0, n);
      args.q = q.data();
      args.heads = kHeads;
      args.q_stride = args.out_stride = kHeads * kHeadDim;
      args.out = out.data();
      list.items[table].attend(args);
      args.heads = 1;
      for (size_t h = 0; h < kHeads; ++h) {
        args.q = q.data() + h * kHeadDim;
        args.out = alone.data() + h * kHeadDim;
        list.items[table].attend(args);
      }
      CAPTURE(std::string(list.items[table].name));
      CHECK(std::memcmp(out.data(), alone.data(), out.size() * sizeof(float)) == 0);
    }
  }
}

TEST_CASE("keys and values in a ring of slots are found by their position") {
  for (const KvFormat format : {KvFormat::kF32, KvFormat::kF16, KvFormat::kQ8_0, KvFormat::kQ4_0}) {
    const Inputs plain({3, 150, 32, format, 0.2f, 0, 50});
    Inputs ring = plain;  // 150 positions in 96 slots
    for (size_t t = 0; t < 150; ++t) {
      std::memcpy(ring.v.data() + t % 96 * ring.stride, plain.v.data() + t * ring.stride,
                  ring.stride);
    }
    for (size_t block = 0; block < 5; ++block) {
      std::memcpy(ring.k.data() + block % 3 * ring.key_stride,
                  plain.k.data() + block * ring.key_stride, ring.key_stride);
    }
    ring.v.resize(96 * ring.stride);
    if (plain.rounds()) {  // all three queries stand in block 4
      std::fill(ring.recent.begin(), ring.recent.end(), '\xff');
      std::memcpy(ring.recent.data(), plain.recent.data() + 4 * plain.recent_stride,
                  plain.recent_stride);
      ring.recent.resize(2 * plain.recent_stride);
    }
    const KernelList list = Available();
    for (size_t table = 0; table < list.size; ++table) {
      CAPTURE(std::string(list.items[table].name));
      std::vector<float> expected(3 * 34, kUntouched), out = expected;
      plain.Run(list.items[table], 0, 3, expected.data());
      ring.Run(list.items[table], 0, 3, out.data());
      CHECK(std::memcmp(out.data(), expected.data(), out.size() * sizeof(float)) == 0);
    }
  }
}

TEST_CASE("stored keys and values are within their format's step, and NaN stays NaN") {
  Rng rng(4);
  std::vector<float> x(64);
  for (float& value : x) value = static_cast<float>(rng.Gaussian());
  float largest = 0;
  for (const float value : x) largest = std::max(largest, std::fabs(value));
  for (const auto& [format, step] :
       {std::pair{KvFormat::kQ8_0, 254.0f}, {KvFormat::kQ4_0, 14.0f}}) {
    Inputs in({1, 1, 64, format, 1, 0, 0});
    StoreValue(Active(), format, x.data(), in.v.data(), 64);
    if (!in.rounds()) StoreKey(Active(), format, x.data(), in.k.data(), 0, 64);
    for (size_t d = 0; d < 64; ++d) {
      const auto exact = static_cast<double>(x[d]);
      CHECK(std::fabs(in.Value(0, d) - exact) <= static_cast<double>(largest * 1.3f / step));
      if (!in.rounds()) CHECK(in.Key(0, d, 0) == in.Value(0, d));
    }
    std::vector<float> broken = x;
    broken[40] = std::numeric_limits<float>::quiet_NaN();
    StoreValue(Active(), format, broken.data(), in.v.data(), 64);
    CHECK(std::isfinite(in.Value(0, 31)));
    CHECK(std::isnan(in.Value(0, 32)));
  }
}

TEST_CASE("keys in 4 bits have a scale and an offset for each column of 32") {
  Inputs in({1, 33, 32, KvFormat::kQ4_0, 1, 0, 0});
  Rng rng(5);
  std::vector<float> keys(32 * 32);  // (keys, columns): offsets of 0 to 31, spreads likewise
  for (size_t t = 0; t < 32; ++t) {
    for (size_t d = 0; d < 32; ++d) {
      const auto size = static_cast<double>(d);
      keys[t * 32 + d] = static_cast<float>(size + size * rng.Gaussian());
    }
    StoreKey(Active(), KvFormat::kF16, keys.data() + t * 32, in.recent.data(), t, 32);
  }
  RoundKeys(in.recent.data(), in.k.data(), 32);
  for (size_t d = 0; d < 32; ++d) {
    double low = 1e9, high = -1e9, error = 0;
    for (size_t t = 0; t < 32; ++t) {
      const auto exact = static_cast<double>(keys[t * 32 + d]);
      low = std::min(low, exact);
      high = std::max(high, exact);
      error += (in.Key(t, d, 32) - exact) * (in.Key(t, d, 32) - exact) / 32;
      CHECK(std::fabs(in.Key(t, d, 0) - exact) <= std::fabs(exact) / 2048);
    }
    // Rounding to 16 evenly spread levels: a step / sqrt(12) on average.
    CHECK(std::sqrt(error) <= (high - low) / 15 / std::sqrt(12.0) * 1.4 + high / 2048);
  }

  const float nan = std::numeric_limits<float>::quiet_NaN();
  keys[7 * 32 + 3] = nan;
  StoreKey(Active(), KvFormat::kF16, keys.data() + 7 * 32, in.recent.data(), 7, 32);
  RoundKeys(in.recent.data(), in.k.data(), 32);
  CHECK(std::isnan(in.Key(0, 3, 32)));
  CHECK(std::isfinite(in.Key(7, 2, 32)));
}

TEST_CASE("attention over each count of keys") {
  for (size_t keys = 1; keys <= 130; ++keys) {
    CheckCase({1, keys, 32, KvFormat::kF16, 0.2f, 0, 0}, 3e-6);
    CheckCase({1, keys, 32, KvFormat::kQ8_0, 0.2f, 0, 17}, 3e-6);
    CheckCase({1, keys, 32, KvFormat::kQ4_0, 0.2f, 0, 17}, 3e-6);
  }
}

TEST_CASE("attention is stable for large scores") {
  // Scores reach 1e5, where one unit in the last place is 0.008: the weights are those of nearly
  // one key.
  CheckCase({5, 90, 64, KvFormat::kF32, 1, 0, 0}, 5e-2, 100);
  CheckCase({5, 90, 64, KvFormat::kF32, 1, 30, 0}, 1e-3, 100);
}

TEST_CASE("a query does not see keys of later ones") {
  Inputs in({8, 40, 48, KvFormat::kF32, 0.1f, 0, 0});
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (size_t d = 0; d < 48; ++d) {  // the last key, seen by the last query only
    std::memcpy(in.k.data() + in.key_stride + 4 * (d * kKeyBlock + 39 % kKeyBlock), &nan, 4);
    std::memcpy(in.v.data() + 39 * in.stride + 4 * d, &nan, 4);
  }
  const KernelList list = Available();
  for (size_t table = 0; table < list.size; ++table) {
    std::vector<float> out(8 * 50, kUntouched);
    in.Run(list.items[table], 0, 8, out.data());
    for (size_t i = 0; i < 7; ++i) {
      for (size_t d = 0; d < 48; ++d) CHECK(std::isfinite(out[i * 50 + d]));
    }
    CHECK(std::isnan(out[7 * 50]));
  }
}

}  // namespace edgewise::kernels
