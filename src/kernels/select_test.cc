#include "kernels/select.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/half.h"
#include "kernels/kernels.h"
#include "quant/blocks.h"

namespace edgewise::kernels {

TEST_CASE("the fastest table is taken unless one is named") {
  const Selection best = Select(nullptr);
  REQUIRE(best.error.empty());
  REQUIRE(best.count >= 1);
  CHECK(best.active == best.count - 1);
  for (size_t i = 0; i < best.count; ++i) {
    const Selection forced = Select(best.tables[i].name);
    CHECK(forced.error.empty());
    CHECK(forced.active == i);
    CHECK(forced.count == best.count);
  }
}

TEST_CASE("a level that does not run here is left out; entries fall to the next below that does") {
  Kernels low, middle, high;
  low.name = "low";
  low.add = [](const float*, float* y, size_t) { *y = 1; };
  low.scale = [](float, float* y, size_t) { *y = 1; };
  middle.name = "middle";
  middle.add = [](const float*, float* y, size_t) { *y = 2; };
  middle.scale = [](float, float* y, size_t) { *y = 2; };
  high.name = "high";
  high.scale = [](float, float* y, size_t) { *y = 3; };
  const auto runs = [] { return true; };
  const auto missing = [] { return false; };

  const Level with[] = {{&low, runs}, {&middle, runs}, {&high, runs}};
  const Selection all = Select(with, nullptr);
  CHECK(all.count == 3);
  CHECK((all.tables[2].add == middle.add));

  const Level without[] = {{&low, runs}, {&middle, missing}, {&high, runs}};
  const Selection two = Select(without, nullptr);
  REQUIRE(two.count == 2);
  CHECK(std::strcmp(two.tables[two.active].name, "high") == 0);
  CHECK((two.tables[1].add == low.add));
  CHECK((two.tables[1].scale == high.scale));
  CHECK(Select(without, "high").error.empty());
  CHECK(Select(without, "middle").error ==
        "EDGEWISE_ISA=middle: not an instruction set of this CPU; it runs low, high");
}

TEST_CASE("a wrong name is an error that lists the right ones") {
  for (const char* name : {"avx9000", "", "AVX2", "scalar "}) {
    const Selection selection = Select(name);
    CHECK(selection.error.find(std::string("EDGEWISE_ISA=") + name + ":") == 0);
    for (size_t i = 0; i < selection.count; ++i) {
      CHECK(selection.error.find(selection.tables[i].name) != std::string::npos);
    }
  }
#if defined(__x86_64__)
  CHECK_FALSE(Select("neon").error.empty());
#else
  CHECK_FALSE(Select("avx2").error.empty());
#endif
}

TEST_CASE("every table is complete and agrees on the activation formats") {
  const KernelList list = Available();
  CHECK(std::strcmp(list.items[0].name, "scalar") == 0);
  for (size_t i = 0; i < list.size; ++i) {
    const Kernels& k = list.items[i];
    CAPTURE(std::string(k.name));
    for (int type = 0; type <= static_cast<int>(DType::kIQ4_XS); ++type) {
      CHECK((k.linear[type].run != nullptr));
      CHECK(k.linear[type].act == list.items[0].linear[type].act);
    }
    CHECK((k.linear[static_cast<int>(DType::kI32)].run == nullptr));
    CHECK((k.gemm_f32.multiply != nullptr));
    CHECK((k.gemm_bf16.multiply != nullptr));
    CHECK((k.quantize_q8 != nullptr));
    CHECK((k.dot_f32 != nullptr));
    CHECK((k.hadamard != nullptr));
    CHECK((k.rms_norm != nullptr));
    CHECK((k.layer_norm != nullptr));
    CHECK((k.rope_interleaved != nullptr));
    CHECK((k.rope_neox != nullptr));
    CHECK((k.silu_mul != nullptr));
    CHECK((k.gelu_tanh_mul != nullptr));
    CHECK((k.add != nullptr));
    CHECK((k.scale != nullptr));
    CHECK((k.softcap != nullptr));
    CHECK((k.f32_to_f16 != nullptr));
    CHECK((k.attend != nullptr));
    CHECK((k.log_sum_exp != nullptr));
    CHECK((k.softmax != nullptr));
    CHECK((k.exp != nullptr));
    CHECK((k.sum_squares != nullptr));
    CHECK((k.adamw != nullptr));
  }
}

TEST_CASE("row sizes") {
  CHECK(ActRowBytes(ActFormat::kF32, 7) == 28);
  CHECK(ActRowBytes(ActFormat::kQ8, 64) == 128);
  CHECK(KvRowBytes(KvFormat::kF32, 48) == 192);
  CHECK(KvRowBytes(KvFormat::kF16, 48) == 96);
  CHECK(KvRowBytes(KvFormat::kQ8_0, 64) == 68);
  CHECK(KvRowBytes(KvFormat::kQ8_0, 48) == 0);
  CHECK(KeyBlockBytes(KvFormat::kF16, 48) == 32 * 96);
  CHECK(KeyBlockBytes(KvFormat::kQ8_0, 64) == 32 * 68);
  CHECK(KeyBlockBytes(KvFormat::kQ4_0, 64) == 64 * 20);
}

TEST_CASE("a stored vector reads back within the precision of its format") {
  std::vector<float> x(96);
  for (size_t i = 0; i < x.size(); ++i) x[i] = 3.0f * std::sin(static_cast<float>(i * i));
  for (size_t i = 32; i < 64; ++i) x[i] = 0;       // a block of zeros
  for (size_t i = 64; i < 96; ++i) x[i] *= 4e-5f;  // its scale is a subnormal half
  const Kernels& k = Active();

  std::vector<float> f32(96);
  StoreValue(k, KvFormat::kF32, x.data(), f32.data(), 96);
  CHECK(f32 == x);

  std::vector<uint16_t> f16(96);
  StoreValue(k, KvFormat::kF16, x.data(), f16.data(), 96);
  for (size_t i = 0; i < 96; ++i) CHECK(f16[i] == FloatToHalf(x[i]));

  std::vector<BlockQ8_0> q8(3);
  StoreValue(k, KvFormat::kQ8_0, x.data(), q8.data(), 96);
  for (size_t i = 0; i < 96; ++i) {
    const float d = HalfToFloat(q8[i / 32].d);
    const float read = d * static_cast<float>(q8[i / 32].qs[i % 32]);
    // Half a step; and what the limits cut off, at most 127 / 2 units of the last place of d.
    CHECK(std::fabs(read - x[i]) <= 0.5001f * d + 127 * 3e-8f);
  }
}

}  // namespace edgewise::kernels
