// Compares with blocks and errors that llama.cpp produced for 512 floats at unit importance.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/json.h"
#include "quant/dtype.h"
#include "tests/test_data.h"

namespace edgewise {
namespace {

std::vector<float> Floats(const Json* json) {
  REQUIRE(json != nullptr);
  REQUIRE(json->AsArray() != nullptr);
  std::vector<float> values;
  for (const Json& item : *json->AsArray()) {
    values.push_back(static_cast<float>(item.AsDouble().value()));
  }
  return values;
}

std::vector<uint8_t> Bytes(const Json* hex) {
  REQUIRE(hex != nullptr);
  REQUIRE(hex->AsString() != nullptr);
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i + 1 < hex->AsString()->size(); i += 2) {
    bytes.push_back(static_cast<uint8_t>(std::stoi(hex->AsString()->substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

double RelativeRmse(const std::vector<float>& x, const std::vector<float>& y) {
  double error = 0, energy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    error += (double{x[i]} - y[i]) * (double{x[i]} - y[i]);
    energy += double{x[i]} * x[i];
  }
  return std::sqrt(error / energy);
}

TEST_CASE("ggml blocks decode to the same floats and are matched in error") {
  EW_EXTERNAL_OR_SKIP(path, "golden/ggml_blocks.json");
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto parsed = ParseJson(text);
  REQUIRE(parsed.has_value());
  const std::vector<float> input = Floats(parsed->Find("input"));
  const Json* formats = parsed->Find("formats");
  REQUIRE(formats != nullptr);
  CHECK(formats->AsArray()->size() == 14);
  for (const Json& format : *formats->AsArray()) {
    const std::string& name = *format.Find("name")->AsString();
    CAPTURE(name);
    const auto type = DTypeFromName(name);
    REQUIRE(type.has_value());
    const DTypeInfo& info = Info(*type);
    CHECK(info.gguf_id == format.Find("gguf_type")->AsInt());
    CHECK(info.block == format.Find("block_elements")->AsUint());
    CHECK(info.block_bytes == format.Find("block_bytes")->AsUint());

    const std::vector<uint8_t> bytes = Bytes(format.Find("bytes_hex"));
    REQUIRE(bytes.size() == info.RowBytes(input.size()));
    std::vector<float> decoded(input.size());
    info.decode(bytes.data(), decoded.data(), decoded.size());
    CHECK(decoded == Floats(format.Find("decoded")));

    std::vector<uint8_t> ours(bytes.size());
    info.encode(input.data(), nullptr, ours.data(), input.size());
    std::vector<float> back(input.size());
    info.decode(ours.data(), back.data(), back.size());
    const double bar = RelativeRmse(input, decoded);
    CHECK(bar == doctest::Approx(format.Find("relative_rmse")->AsDouble().value()).epsilon(1e-4));
    CHECK(RelativeRmse(input, back) <= bar);
  }
}

}  // namespace
}  // namespace edgewise
