#include "quant/block_parts.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "base/half.h"
#include "base/rng.h"

namespace edgewise {
namespace {

// A block of random bits whose halves are finite; of a sparse format one of random values, since
// bits may put two values at one element.
std::vector<std::byte> RandomBlock(const DTypeInfo& info, Rng* rng) {
  std::vector<std::byte> block(info.block_bytes);
  std::vector<float> values(info.block);
  if (info.sparse()) {
    for (float& v : values) v = static_cast<float>(rng->Gaussian());
    info.encode(values.data(), nullptr, block.data(), info.block);
    return block;
  }
  for (;;) {
    for (std::byte& b : block) b = static_cast<std::byte>(rng->Next());
    info.decode(block.data(), values.data(), info.block);
    bool finite = true;
    for (const float v : values) finite = finite && std::isfinite(v);
    if (finite) return block;
  }
}

TEST_CASE("a sparse block with both values at one element keeps its values") {
  std::vector<std::byte> block(Info(DType::kS24_Q4).block_bytes);
  Rng rng(6);
  for (std::byte& b : block) b = static_cast<std::byte>(rng.Next() & 0x33);  // 0 to 3, so that
  block[1] = std::byte{0x3c};                                                // sums fit
  std::vector<float> before(64), after(64);
  Info(DType::kS24_Q4).decode(block.data(), before.data(), 64);
  BlockParts parts;
  FormOf(DType::kS24_Q4)->unpack(block.data(), &parts);
  FormOf(DType::kS24_Q4)->pack(parts, block.data());
  Info(DType::kS24_Q4).decode(block.data(), after.data(), 64);
  CHECK(after == before);
}

TEST_CASE("the parts of any block give its values and its bytes again") {
  Rng rng(5);
  int forms = 0;
  for (const DTypeInfo& info : AllDTypes()) {
    const BlockForm* form = FormOf(info.id);
    CHECK((form != nullptr) == info.quantized());
    if (form == nullptr) continue;
    ++forms;
    CAPTURE(info.name);
    for (int trial = 0; trial < 50; ++trial) {
      const auto block = RandomBlock(info, &rng);
      std::vector<float> values(info.block);
      info.decode(block.data(), values.data(), info.block);
      BlockParts parts;
      form->unpack(block.data(), &parts);
      const float d = HalfToFloat(parts.d), dmin = HalfToFloat(parts.dmin);
      bool equal = true;
      for (uint32_t j = 0; j < info.block; ++j) {
        const uint32_t g = j / form->group;
        const float value = d * static_cast<float>(parts.scale[g]) * parts.value[j] -
                            dmin * static_cast<float>(parts.min[g]);
        equal = equal && value == values[j];
        CHECK(parts.scale[g] >= form->scale_low);
        CHECK(parts.scale[g] <= form->scale_high);
        CHECK(parts.min[g] >= form->min_low);
        CHECK(parts.min[g] <= form->min_high);
      }
      CHECK(equal);
      std::vector<std::byte> again(info.block_bytes);
      form->pack(parts, again.data());
      CHECK(again == block);
    }
  }
  CHECK(forms == 16);
}

}  // namespace
}  // namespace edgewise
