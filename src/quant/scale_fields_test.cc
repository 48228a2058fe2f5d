// Every block format: its values are multiples of its halves.
#include "quant/scale_fields.h"

#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <vector>

#include "base/half.h"
#include "base/rng.h"

namespace edgewise {
namespace {

// Decodes a block whose halves are these.
std::vector<float> With(const DTypeInfo& info, std::vector<std::byte> block,
                        const std::vector<float>& halves) {
  const auto fields = ScaleFieldsOf(info.id);
  for (size_t f = 0; f < fields.size(); ++f) {
    const uint16_t half = FloatToHalf(halves[f]);
    std::memcpy(block.data() + fields[f], &half, sizeof(half));
  }
  std::vector<float> values(info.block);
  info.decode(block.data(), values.data(), info.block);
  return values;
}

TEST_CASE("values are sums of multiples of a block's halves, in every block format") {
  Rng rng(1);
  size_t formats = 0;
  for (const DTypeInfo& info : AllDTypes()) {
    CAPTURE(std::string(info.name));
    const auto fields = ScaleFieldsOf(info.id);
    CHECK(fields.empty() == !info.quantized());
    if (fields.empty()) continue;
    ++formats;
    std::vector<float> source(info.block);
    for (size_t i = 0; i < source.size(); ++i) {
      source[i] = info.sparse() && i % 4 > 1 ? 0 : static_cast<float>(rng.Gaussian());
    }
    std::vector<std::byte> block(info.block_bytes);
    info.encode(source.data(), nullptr, block.data(), info.block);
    const bool two = fields.size() == 2;
    const std::vector<float> a = With(info, block, {1, 0}), b = With(info, block, {0, 1});
    const std::vector<float> both = With(info, block, {0.375f, -1.5f});
    bool used = false;
    for (size_t i = 0; i < info.block; ++i) {
      REQUIRE(both[i] == 0.375f * a[i] - (two ? 1.5f * b[i] : 0));
      used = used || a[i] != 0;
    }
    CHECK(used);
  }
  CHECK(formats == 16);
}

}  // namespace
}  // namespace edgewise
