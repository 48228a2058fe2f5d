// Layers of GPTQ, AWQ and bitsandbytes, laid out here as their tools' packing code does it.
#include "formats/quantized_linear.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <deque>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "base/half.h"
#include "base/rng.h"
#include "quant/nf4.h"

namespace edgewise {
namespace {

// Tensors of one layer "l", with their memory.
class Layer {
 public:
  template <class T>
  void Set(const std::string& name, DType dtype, const Shape& shape, const std::vector<T>& values) {
    std::vector<std::byte> bytes(values.size() * sizeof(T));
    if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    SetBytes(name, dtype, shape, std::move(bytes));
  }
  void SetBytes(const std::string& name, DType dtype, const Shape& shape,
                std::vector<std::byte> bytes) {
    for (Part& part : parts_) {
      if (part.name == name) {
        part = {name, dtype, shape, std::move(bytes)};
        return;
      }
    }
    parts_.push_back({name, dtype, shape, std::move(bytes)});
  }
  void Remove(const std::string& name) {
    std::erase_if(parts_, [&](const Part& part) { return part.name == name; });
  }
  TensorIndex Index() const {
    TensorIndex index;
    for (const Part& part : parts_) {
      index.Add(part.name, {part.dtype, part.shape, part.bytes.data(), part.bytes.size()});
    }
    return index;
  }

 private:
  struct Part {
    std::string name;
    DType dtype;
    Shape shape;
    std::vector<std::byte> bytes;
  };
  std::vector<Part> parts_;
};

std::vector<float> Decode(const QuantizationConfig& config, const Layer& layer,
                          const Shape& shape) {
  const TensorIndex index = layer.Index();
  const auto matrix = QuantizedMatrix::Find(config, index, "l.weight", shape);
  REQUIRE_MESSAGE(matrix.has_value(), (matrix ? "" : matrix.error().message));
  REQUIRE(matrix->has_value());
  std::vector<float> values(shape.elements(), std::numeric_limits<float>::quiet_NaN());
  (*matrix)->Decode(values.data());
  return values;
}

Error FindError(const QuantizationConfig& config, const Layer& layer, const Shape& shape) {
  const TensorIndex index = layer.Index();
  const auto matrix = QuantizedMatrix::Find(config, index, "l.weight", shape);
  REQUIRE_FALSE(matrix.has_value());
  CHECK(matrix.error().message.starts_with("l: "));
  return matrix.error();
}

// Random codes of a layer and what they mean. Group g of column k is groups_of[k].
struct Codes {
  Codes(uint64_t rows_in, uint64_t columns_in, uint64_t group_size, uint32_t bits,
        uint32_t low_zero)
      : rows(rows_in), columns(columns_in), groups((columns_in + group_size - 1) / group_size) {
    Rng rng(bits + 31 * rows);
    for (uint64_t i = 0; i < rows * columns; ++i) {
      q.push_back(static_cast<uint32_t>(rng.Below(1u << bits)));
    }
    for (uint64_t i = 0; i < rows * groups; ++i) {
      zero.push_back(low_zero + static_cast<uint32_t>(rng.Below((1u << bits) - low_zero)));
      scale.push_back(FloatToHalf(0.001f + 0.01f * static_cast<float>(rng.Uniform())));
    }
    for (uint64_t k = 0; k < columns; ++k) group_of.push_back(static_cast<int32_t>(k / group_size));
  }
  Shape shape() const { return {rows, columns}; }
  std::vector<float> Values() const {
    std::vector<float> values;
    for (uint64_t r = 0; r < rows; ++r) {
      for (uint64_t k = 0; k < columns; ++k) {
        const uint64_t at = static_cast<uint64_t>(group_of[k]) * rows + r;
        values.push_back(HalfToFloat(scale[at]) *
                         (static_cast<float>(q[r * columns + k]) - static_cast<float>(zero[at])));
      }
    }
    return values;
  }
  uint64_t rows, columns, groups;
  std::vector<uint32_t> q;        // (rows, columns)
  std::vector<uint32_t> zero;     // (groups, rows)
  std::vector<uint16_t> scale;    // (groups, rows)
  std::vector<int32_t> group_of;  // (columns)
};

// AutoGPTQ's order of `count` codes in words: by shifts, and for 3 bits 10 codes, one cut 2 | 1, 10
// more, one cut 1 | 2, 10 more.
std::vector<uint32_t> GptqPack(const std::vector<uint32_t>& codes, uint32_t bits) {
  std::vector<uint32_t> words;
  if (bits != 3) {
    for (size_t i = 0; i < codes.size(); i += 32 / bits) {
      uint32_t word = 0;
      for (uint32_t j = 0; j < 32 / bits; ++j) word |= codes[i + j] << (bits * j);
      words.push_back(word);
    }
    return words;
  }
  for (size_t i = 0; i < codes.size(); i += 32) {
    const uint32_t* c = codes.data() + i;
    uint32_t word = 0;
    for (int j = 0; j < 10; ++j) word |= c[j] << (3 * j);
    words.push_back(word | c[10] << 30);
    word = (c[10] >> 2) & 1;
    for (int j = 0; j < 10; ++j) word |= c[11 + j] << (3 * j + 1);
    words.push_back(word | c[21] << 31);
    word = (c[21] >> 1) & 3;
    for (int j = 0; j < 10; ++j) word |= c[22 + j] << (3 * j + 2);
    words.push_back(word);
  }
  return words;
}

Layer GptqLayer(const Codes& codes, uint32_t bits, uint32_t zeros_less) {
  const uint64_t words = codes.columns * bits / 32, zero_words = codes.rows * bits / 32;
  std::vector<uint32_t> qweight(words * codes.rows), qzeros;
  for (uint64_t r = 0; r < codes.rows; ++r) {
    const auto row = codes.q.begin() + static_cast<std::ptrdiff_t>(r * codes.columns);
    const auto packed = GptqPack({row, row + static_cast<std::ptrdiff_t>(codes.columns)}, bits);
    for (uint64_t w = 0; w < words; ++w) qweight[w * codes.rows + r] = packed[w];
  }
  for (uint64_t g = 0; g < codes.groups; ++g) {
    std::vector<uint32_t> stored;
    for (uint64_t r = 0; r < codes.rows; ++r) {
      stored.push_back(codes.zero[g * codes.rows + r] - zeros_less);
    }
    for (const uint32_t word : GptqPack(stored, bits)) qzeros.push_back(word);
  }
  Layer layer;
  layer.Set("l.qweight", DType::kI32, Shape{words, codes.rows}, qweight);
  layer.Set("l.qzeros", DType::kI32, Shape{codes.groups, zero_words}, qzeros);
  layer.Set("l.scales", DType::kF16, Shape{codes.groups, codes.rows}, codes.scale);
  layer.Set("l.g_idx", DType::kI32, Shape{codes.columns}, codes.group_of);
  return layer;
}

TEST_CASE("GPTQ v1 and v2 decode at every width") {
  for (const uint32_t bits : {2u, 3u, 4u, 8u}) {
    CAPTURE(bits);
    const Codes codes(96, 64, 32, bits, 1);
    const auto expected = codes.Values();
    GptqOptions options{bits, 32, true, false};
    CHECK(Decode(options, GptqLayer(codes, bits, 1), codes.shape()) == expected);
    options.zeros_minus_one = false;
    Layer layer = GptqLayer(codes, bits, 0);
    CHECK(Decode(options, layer, codes.shape()) == expected);
    layer.Remove("l.g_idx");
    CHECK(Decode(options, layer, codes.shape()) == expected);
  }
}

TEST_CASE("GPTQ columns may be in any group, and all in one") {
  Codes codes(32, 128, 32, 4, 1);
  Rng rng(8);
  for (int32_t& group : codes.group_of) group = static_cast<int32_t>(rng.Below(4));
  const GptqOptions options{4, 32, true, true};
  Layer layer = GptqLayer(codes, 4, 1);
  CHECK(Decode(options, layer, codes.shape()) == codes.Values());
  layer.Remove("l.g_idx");
  CHECK(FindError(options, layer, codes.shape()).code == Code::kBadData);
  const Codes whole(32, 64, 64, 4, 1);
  CHECK(Decode(GptqOptions{4, 0, true, false}, GptqLayer(whole, 4, 1), whole.shape()) ==
        whole.Values());
}

// GPTQModel subtracts 0x11111111 from whole words: a zero of 0 borrows from the next.
TEST_CASE("GPTQ v1 zeros that borrowed come back") {
  Codes codes(8, 32, 32, 4, 0);
  codes.zero = {0, 8, 0, 0, 15, 1, 7, 0};
  Layer layer = GptqLayer(codes, 4, 0);
  uint32_t word = 0;
  for (int i = 7; i >= 0; --i) word = word << 4 | codes.zero[static_cast<size_t>(i)];
  layer.Set("l.qzeros", DType::kI32, Shape{1, 1}, std::vector<uint32_t>{word - 0x11111111u});
  CHECK(Decode(GptqOptions{4, 32, true, false}, layer, codes.shape()) == codes.Values());
}

TEST_CASE("what our GPTQ writer packs is what the layout says") {
  for (const uint32_t bits : {2u, 3u, 4u, 8u}) {
    const Codes codes(64, 96, 32, bits, 1);
    std::vector<uint8_t> q(codes.q.begin(), codes.q.end()), zeros;
    std::vector<uint16_t> scales;
    for (uint64_t r = 0; r < codes.rows; ++r) {
      for (uint64_t g = 0; g < codes.groups; ++g) {
        zeros.push_back(static_cast<uint8_t>(codes.zero[g * codes.rows + r]));
        scales.push_back(codes.scale[g * codes.rows + r]);
      }
    }
    const GptqWords words = PackGptq(bits, 32, codes.shape(), q, zeros, scales);
    Layer layer;
    layer.Set("l.qweight", DType::kI32, Shape{96 * bits / 32, 64}, words.qweight);
    layer.Set("l.qzeros", DType::kI32, Shape{3, 64 * bits / 32}, words.qzeros);
    layer.Set("l.scales", DType::kF16, Shape{3, 64}, words.scales);
    layer.Set("l.g_idx", DType::kI32, Shape{96}, words.g_idx);
    CHECK(Decode(GptqOptions{bits, 32, true, true}, layer, codes.shape()) == codes.Values());
    if (bits != 4) continue;
    const AwqWords awq = PackAwq(32, codes.shape(), q, zeros, scales);
    layer.Set("l.qweight", DType::kI32, Shape{96, 8}, awq.qweight);
    layer.Set("l.qzeros", DType::kI32, Shape{3, 8}, awq.qzeros);
    layer.Set("l.scales", DType::kF16, Shape{3, 64}, awq.scales);
    CHECK(Decode(AwqOptions{32}, layer, codes.shape()) == codes.Values());
  }
}

TEST_CASE("malformed GPTQ layers are refused") {
  const Codes codes(32, 64, 32, 4, 1);
  const GptqOptions options{4, 32, true, false};
  const auto refused = [&](const std::function<void(Layer*)>& change, const char* part) {
    Layer layer = GptqLayer(codes, 4, 1);
    change(&layer);
    const Error error = FindError(options, layer, codes.shape());
    CHECK(error.code == Code::kBadData);
    CHECK_MESSAGE(error.message.find(part) != std::string::npos, error.message);
  };
  for (const char* name : {"qzeros", "scales"}) {
    refused([&](Layer* l) { l->Remove(std::string("l.") + name); }, name);
    refused(
        [&](Layer* l) {
          l->Set(std::string("l.") + name, DType::kI32, Shape{1}, std::vector<int32_t>{0});
        },
        name);
  }
  refused(
      [](Layer* l) {
        l->Set("l.qweight", DType::kI32, Shape{7, 32}, std::vector<int32_t>(7 * 32));
      },
      "qweight has shape [7, 32]; [8, 32] is expected");
  refused(
      [](Layer* l) { l->Set("l.qweight", DType::kF32, Shape{8, 32}, std::vector<float>(8 * 32)); },
      "qweight has type f32; i32");
  for (const int32_t group : {-1, 2, std::numeric_limits<int32_t>::min()}) {
    refused(
        [&](Layer* l) {
          std::vector<int32_t> groups(64, 0);
          groups[5] = group;
          l->Set("l.g_idx", DType::kI32, Shape{64}, groups);
        },
        "g_idx puts column 5 into group");
  }
  refused(
      [](Layer* l) {
        std::vector<uint16_t> scales(64, 0x3C00);
        scales[9] = 0x7C00;
        l->Set("l.scales", DType::kF16, Shape{2, 32}, scales);
      },
      "scales holds inf at 9");
  Layer layer = GptqLayer(codes, 4, 1);
  CHECK(FindError(options, layer, Shape{32, 60}).code == Code::kUnsupported);
  CHECK(FindError(options, layer, Shape{30, 64}).code == Code::kUnsupported);
  CHECK(FindError(options, layer, Shape{uint64_t{1} << 24, uint64_t{1} << 24}).code ==
        Code::kBadData);
}

Layer AwqLayer(const Codes& codes) {
  constexpr int kOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};
  std::vector<uint32_t> qweight, qzeros;
  for (uint64_t k = 0; k < codes.columns; ++k) {
    for (uint64_t r = 0; r < codes.rows; r += 8) {
      uint32_t word = 0;
      for (uint32_t i = 0; i < 8; ++i) {
        word |= codes.q[(r + static_cast<uint64_t>(kOrder[i])) * codes.columns + k] << (4 * i);
      }
      qweight.push_back(word);
    }
  }
  for (uint64_t g = 0; g < codes.groups; ++g) {
    for (uint64_t r = 0; r < codes.rows; r += 8) {
      uint32_t word = 0;
      for (uint32_t i = 0; i < 8; ++i) {
        word |= codes.zero[g * codes.rows + r + static_cast<uint64_t>(kOrder[i])] << (4 * i);
      }
      qzeros.push_back(word);
    }
  }
  Layer layer;
  layer.Set("l.qweight", DType::kI32, Shape{codes.columns, codes.rows / 8}, qweight);
  layer.Set("l.qzeros", DType::kI32, Shape{codes.groups, codes.rows / 8}, qzeros);
  layer.Set("l.scales", DType::kF16, Shape{codes.groups, codes.rows}, codes.scale);
  return layer;
}

TEST_CASE("AWQ decodes with its order of rows") {
  const Codes codes(24, 80, 16, 4, 0);
  CHECK(Decode(AwqOptions{16}, AwqLayer(codes), codes.shape()) == codes.Values());
  const Codes whole(8, 10, 10, 4, 0);
  CHECK(Decode(AwqOptions{0}, AwqLayer(whole), whole.shape()) == whole.Values());
}

TEST_CASE("malformed AWQ layers are refused") {
  const Codes codes(16, 32, 16, 4, 0);
  for (const char* name : {"qzeros", "scales"}) {
    Layer layer = AwqLayer(codes);
    layer.Remove(std::string("l.") + name);
    CHECK(FindError(AwqOptions{16}, layer, codes.shape()).code == Code::kBadData);
    layer.Set(std::string("l.") + name, DType::kI32, Shape{2, 1}, std::vector<int32_t>(2));
    CHECK(FindError(AwqOptions{16}, layer, codes.shape()).code == Code::kBadData);
  }
  const Layer layer = AwqLayer(codes);
  CHECK(FindError(AwqOptions{8}, layer, codes.shape()).code == Code::kBadData);
  CHECK(FindError(AwqOptions{16}, layer, Shape{16, 31}).code == Code::kBadData);
  CHECK(FindError(AwqOptions{16}, layer, Shape{12, 32}).code == Code::kUnsupported);
}

void SetText(Layer* layer, const std::string& name, const std::string& text) {
  layer->Set(name, DType::kI8, Shape{text.size()}, std::vector<char>(text.begin(), text.end()));
}

constexpr const char* kNf4State = "l.weight.quant_state.bitsandbytes__nf4";

// 6 rows of 50 columns: 300 codes, blocks of 64, the last of 44 values.
struct Nf4Example {
  Nf4Example() {
    Rng rng(4);
    for (int i = 0; i < 300; ++i) codes.push_back(static_cast<uint8_t>(rng.Below(16)));
    for (size_t i = 0; i < codes.size(); i += 2) {
      packed.push_back(static_cast<uint8_t>(codes[i] << 4 | codes[i + 1]));
    }
    layer.Set("l.weight", DType::kI8, Shape{150, 1}, packed);
    layer.Set("l.weight.quant_map", DType::kF32, Shape{16},
              std::vector<float>(quant::kNf4Values.begin(), quant::kNf4Values.end()));
  }
  void MakePlain() {
    layer.Set("l.weight.absmax", DType::kF32, Shape{5}, absmax);
    SetText(&layer, kNf4State,
            R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [6, 50]})");
  }
  void MakeNested() {
    const std::vector<uint8_t> bytes = {0, 127, 128, 254, 255};
    const auto map = quant::DynamicMap();
    const float scale = 0.0625f, offset = 0.125f;
    for (size_t i = 0; i < 5; ++i) absmax[i] = map[bytes[i]] * scale + offset;
    layer.Set("l.weight.absmax", DType::kI8, Shape{5}, bytes);
    layer.Set("l.weight.nested_absmax", DType::kF32, Shape{1}, std::vector<float>{scale});
    layer.Set("l.weight.nested_quant_map", DType::kF32, Shape{256},
              std::vector<float>(map.begin(), map.end()));
    SetText(&layer, kNf4State,
            R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float16", "shape": [6, 50], )"
            R"("nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.125})");
  }
  std::vector<float> Values() const {
    std::vector<float> values;
    for (size_t i = 0; i < codes.size(); ++i) {
      values.push_back(quant::kNf4Values[codes[i]] * absmax[i / 64]);
    }
    return values;
  }
  std::vector<uint8_t> codes, packed;
  std::vector<float> absmax = {0.5f, 0.25f, 1.0f, 0.3f, 0.7f};
  Layer layer;
};

TEST_CASE("NF4 decodes with and without double quantization") {
  Nf4Example plain;
  plain.MakePlain();
  CHECK(Decode(BnbOptions{}, plain.layer, Shape{6, 50}) == plain.Values());
  // The storage type only names the bytes.
  plain.layer.Set("l.weight", DType::kBF16, Shape{75, 1}, plain.packed);
  CHECK(Decode(BnbOptions{}, plain.layer, Shape{6, 50}) == plain.Values());
  Nf4Example nested;
  nested.MakeNested();
  CHECK(Decode(BnbOptions{}, nested.layer, Shape{6, 50}) == nested.Values());
}

TEST_CASE("FP4 decodes by the map that comes with it") {
  const std::vector<float> map = {0, 0.0052f,  0.6667f,  1,  0.3333f,  0.5f,  0.1667f,  0.25f,
                                  0, -0.0052f, -0.6667f, -1, -0.3333f, -0.5f, -0.1667f, -0.25f};
  Layer layer;
  layer.Set("l.weight", DType::kI8, Shape{2, 1}, std::vector<uint8_t>{0x3B, 0x48});
  layer.Set("l.weight.quant_map", DType::kF32, Shape{16}, map);
  layer.Set("l.weight.absmax", DType::kF32, Shape{1}, std::vector<float>{2});
  SetText(&layer, "l.weight.quant_state.bitsandbytes__fp4",
          R"({"quant_type": "fp4", "blocksize": 64, "shape": [1, 3]})");
  CHECK(Decode(BnbOptions{}, layer, Shape{1, 3}) == std::vector<float>{2, -2, 2 * 0.3333f});
}

TEST_CASE("malformed NF4 layers are refused") {
  const auto refused = [&](const std::function<void(Layer*)>& change, const char* part) {
    Nf4Example example;
    example.MakeNested();
    change(&example.layer);
    const Error error = FindError(BnbOptions{}, example.layer, Shape{6, 50});
    CHECK(error.code == Code::kBadData);
    CHECK_MESSAGE(error.message.find(part) != std::string::npos, error.message);
  };
  for (const char* name : {"absmax", "quant_map", "nested_absmax", "nested_quant_map"}) {
    const std::string full = std::string("l.weight.") + name;
    refused([&](Layer* l) { l->Remove(full); }, name);
    refused([&](Layer* l) { l->Set(full, DType::kF32, Shape{3}, std::vector<float>(3)); }, name);
  }
  refused(
      [](Layer* l) { l->Set("l.weight", DType::kI8, Shape{149, 1}, std::vector<uint8_t>(149)); },
      "149 bytes");
  const auto with_state = [&](const char* text, const char* part) {
    refused([&](Layer* l) { SetText(l, kNf4State, text); }, part);
  };
  with_state("", "quant_state");
  with_state("[]", "shape");
  with_state(R"({"blocksize": 64, "shape": [50, 6]})", "shape");
  with_state(R"({"blocksize": 0, "shape": [6, 50]})", "blocksize");
  with_state(R"({"blocksize": -64, "shape": [6, 50]})", "blocksize");
  with_state(R"({"blocksize": 1e300, "shape": [6, 50]})", "blocksize");
  with_state(R"({"blocksize": 64, "shape": [6, 50]})", "nested_blocksize");
  with_state(R"({"blocksize": 64, "shape": [6, 50], "nested_blocksize": 256})", "nested_offset");
  with_state(R"({"blocksize": 64, "shape": [6, 50], "nested_blocksize": 256,
                 "nested_offset": 1e300})",
             "nested_offset");
  with_state(R"({"blocksize": 32, "shape": [6, 50], "nested_blocksize": 256,
                 "nested_offset": 1})",
             "absmax has shape [5]; [10]");
}

TEST_CASE("our NF4 encoder writes what decodes to the same values") {
  Rng rng(2);
  std::vector<float> values(24 * 33);
  for (float& value : values) value = static_cast<float>(rng.Uniform() - 0.5);
  const Shape shape{24, 33};
  const Bnb4Bytes bytes = PackNf4(values, shape);
  Layer layer;
  layer.Set("l.weight", DType::kI8, Shape{396, 1}, bytes.weight);
  layer.Set("l.weight.absmax", DType::kI8, Shape{13}, bytes.absmax);
  layer.Set("l.weight.nested_absmax", DType::kF32, Shape{1}, bytes.nested_absmax);
  layer.Set("l.weight.quant_map", DType::kF32, Shape{16},
            std::vector<float>(quant::kNf4Values.begin(), quant::kNf4Values.end()));
  layer.Set("l.weight.nested_quant_map", DType::kF32, Shape{256},
            std::vector<float>(bytes.nested_quant_map.begin(), bytes.nested_quant_map.end()));
  SetText(&layer, kNf4State, bytes.quant_state);
  const auto decoded = Decode(BnbOptions{}, layer, shape);
  for (size_t i = 0; i < values.size(); ++i) CHECK(std::abs(decoded[i] - values[i]) < 0.08f);
}

TEST_CASE("LLM.int8 decodes row by row") {
  Layer layer;
  layer.Set("l.weight", DType::kI8, Shape{2, 3}, std::vector<int8_t>{127, -127, 0, 64, -128, 1});
  layer.Set("l.SCB", DType::kF32, Shape{2}, std::vector<float>{0.5f, 2.0f});
  const auto values = Decode(BnbOptions{}, layer, Shape{2, 3});
  CHECK(values[0] == doctest::Approx(0.5));
  CHECK(values[1] == doctest::Approx(-0.5));
  CHECK(values[2] == 0);
  CHECK(values[3] == doctest::Approx(2.0 * 64 / 127));
  CHECK(values[5] == doctest::Approx(2.0 / 127));
  layer.Set("l.weight_format", DType::kI8, Shape{}, std::vector<uint8_t>{0});
  CHECK(Decode(BnbOptions{}, layer, Shape{2, 3}) == values);
  layer.Set("l.weight_format", DType::kI8, Shape{}, std::vector<uint8_t>{3});
  CHECK(FindError(BnbOptions{}, layer, Shape{2, 3}).code == Code::kUnsupported);
  layer.Remove("l.weight_format");
  CHECK(FindError(BnbOptions{}, layer, Shape{3, 2}).code == Code::kBadData);
}

Result<std::optional<QuantizationConfig>> ReadConfig(const std::string& text) {
  const auto json = ParseJson(R"({"quantization_config": )" + text + "}");
  REQUIRE(json.has_value());
  return ReadQuantizationConfig(*json);
}

TEST_CASE("quantization_config is read as the tools write it") {
  CHECK_FALSE(ReadQuantizationConfig(*ParseJson("{}"))->has_value());
  CHECK_FALSE(ReadConfig("null")->has_value());
  const auto v1 = ReadConfig(
      R"({"quant_method": "gptq", "bits": 3, "group_size": -1, "desc_act": true, "sym": false,
          "damp_percent": 0.1})");
  REQUIRE_MESSAGE(v1.has_value(), (v1 ? "" : v1.error().message));
  const auto& gptq = std::get<GptqOptions>(**v1);
  CHECK(gptq.bits == 3);
  CHECK(gptq.group_size == 0);
  CHECK(gptq.zeros_minus_one);
  CHECK(gptq.desc_act);
  const auto v2 = ReadConfig(
      R"({"quant_method": "gptq", "bits": 4, "group_size": 128, "checkpoint_format": "gptq_v2",
          "dynamic": null})");
  CHECK_FALSE(std::get<GptqOptions>(**v2).zeros_minus_one);
  const auto awq =
      ReadConfig(R"({"quant_method": "AWQ", "w_bit": 4, "q_group_size": 64, "version": "GEMM"})");
  CHECK(std::get<AwqOptions>(**awq).group_size == 64);
  const auto bnb = ReadConfig(R"({"load_in_4bit": true, "bnb_4bit_quant_type": "nf4"})");
  CHECK(std::holds_alternative<BnbOptions>(**bnb));
}

TEST_CASE("methods, widths and versions that we lack are refused by name") {
  const auto refused = [](const char* text, Code code, const char* part) {
    const auto read = ReadConfig(text);
    REQUIRE_FALSE(read.has_value());
    CHECK(read.error().code == code);
    CHECK_MESSAGE(read.error().message.find(part) != std::string::npos, read.error().message);
    CHECK(read.error().message.starts_with("config.json: quantization_config: "));
  };
  const Code lacking = Code::kUnsupported, bad = Code::kBadData;
  refused(R"({"quant_method": "aqlm"})", lacking, "gptq, awq and bitsandbytes");
  refused(R"({})", lacking, "unnamed");
  refused(R"({"quant_method": "gptq", "bits": 5, "group_size": 128})", lacking, "2, 3, 4 and 8");
  refused(R"({"quant_method": "gptq", "group_size": 128})", bad, "bits");
  refused(R"({"quant_method": "gptq", "bits": 4})", bad, "group_size");
  refused(R"({"quant_method": "gptq", "bits": 4, "group_size": 0})", bad, "group_size");
  refused(R"({"quant_method": "gptq", "bits": "4", "group_size": 128})", bad, "integer");
  refused(
      R"({"quant_method": "gptq", "bits": 4, "group_size": 128, "checkpoint_format": "marlin"})",
      lacking, "gptq_v2");
  refused(R"({"quant_method": "gptq", "bits": 4, "group_size": 128, "is_marlin_format": true})",
          lacking, "marlin");
  refused(R"({"quant_method": "gptq", "bits": 4, "group_size": 128, "dynamic": {"a": {}}})",
          lacking, "dynamic");
  refused(R"({"quant_method": "awq", "bits": 8, "group_size": 128})", lacking, "4 are supported");
  refused(R"({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemv"})", lacking,
          "gemm");
  refused(R"({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": false})", lacking,
          "zero_point");
  refused(R"([])", bad, "object");
}

TEST_CASE("layers that are not quantized are passed over") {
  Layer layer;
  layer.Set("l.weight", DType::kF32, Shape{1, 2}, std::vector<float>{1, 2});
  const TensorIndex index = layer.Index();
  for (const QuantizationConfig& config :
       {QuantizationConfig(GptqOptions{}), QuantizationConfig(AwqOptions{}),
        QuantizationConfig(BnbOptions{})}) {
    const auto found = QuantizedMatrix::Find(config, index, "l.weight", Shape{1, 2});
    REQUIRE(found.has_value());
    CHECK_FALSE(found->has_value());
  }
}

}  // namespace
}  // namespace edgewise
