#include "formats/llama2c.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "formats/test_bytes.h"
#include "tests/test_data.h"

using namespace edgewise;

namespace {

constexpr int32_t kMagic = 0x616b3432;

// dim 4, hidden 6, 2 layers, 2 heads, 1 kv head, 3 tokens, context 5.
ByteBuilder& SevenIntegers(ByteBuilder& builder, int32_t vocab = 3, int32_t heads = 2) {
  for (const int32_t value : {4, 6, 2, heads, 1, vocab, 5}) builder.Number<int32_t>(value);
  return builder;
}

// Floats 0, 1, 2, ... so that a place is seen in the value.
ByteBuilder& Floats(ByteBuilder& builder, int count) {
  for (int i = 0; i < count; ++i) builder.Number<float>(static_cast<float>(i));
  return builder;
}

// Embedding 12; norms 8; q 32, k 16, v 16, o 32; norms 8; gate 48, down 48, up 48; norm 4; RoPE
// tables 10.
constexpr int kSharedFloats = 12 + 8 + 32 + 16 + 16 + 32 + 8 + 48 * 3 + 4 + 10;

std::vector<std::byte> LegacyFile(bool shared) {
  ByteBuilder builder;
  SevenIntegers(builder, shared ? 3 : -3);
  return Floats(builder, kSharedFloats + (shared ? 0 : 12)).bytes();
}

// `groups` int8 groups of two: the codes are 1, 2, ..., each group's scale is 0.5.
void Quantized(ByteBuilder& builder, int values) {
  for (int i = 0; i < values; ++i) builder.Number<int8_t>(static_cast<int8_t>(i + 1));
  for (int i = 0; i < values / 2; ++i) builder.Number<float>(0.5f);
}

std::vector<std::byte> QuantizedFile(int32_t version = 2, int32_t group = 2, uint8_t shared = 1) {
  ByteBuilder builder;
  SevenIntegers(builder.Number<int32_t>(kMagic).Number<int32_t>(version));
  builder.U8(shared).Number<int32_t>(group);
  builder.Zeros(256 - builder.size());
  Floats(builder, 8 + 8 + 4);
  for (const int values : {12, 16, 16, 8, 8, 8, 8, 16, 16, 24, 24, 24, 24, 24, 24})
    Quantized(builder, values);
  return builder.bytes();
}

float FirstOf(const Llama2cFile& file, const char* name) {
  const TensorView* view = file.tensors().Find(name);
  REQUIRE(view != nullptr);
  std::vector<float> row(view->shape.columns());
  view->DecodeRow(0, row.data());
  return row[0];
}

void CheckRefused(const std::vector<std::byte>& bytes, Code code, std::string_view part) {
  const auto file = Llama2cFile::Parse(bytes);
  REQUIRE_FALSE(file);
  CAPTURE(file.error().message);
  CHECK(file.error().code == code);
  CHECK(file.error().message.find(part) != std::string::npos);
}

}  // namespace

TEST_CASE("a legacy checkpoint is seen in place, part by part") {
  const auto bytes = LegacyFile(true);
  const auto file = Llama2cFile::Parse(bytes);
  REQUIRE_MESSAGE(file.has_value(), (file ? "" : file.error().message));
  CHECK(file->config().version == 0);
  CHECK(file->config().shared_classifier);
  CHECK(file->config().vocab_size == 3);
  CHECK(file->tensors().all().size() == 2 + 2 * 9);
  CHECK(FirstOf(*file, "model.embed_tokens.weight") == 0);
  CHECK(FirstOf(*file, "model.layers.0.input_layernorm.weight") == 12);
  CHECK(FirstOf(*file, "model.layers.1.input_layernorm.weight") == 16);
  CHECK(FirstOf(*file, "model.layers.0.self_attn.q_proj.weight") == 20);
  CHECK(FirstOf(*file, "model.layers.1.self_attn.k_proj.weight") == 20 + 32 + 8);
  CHECK(FirstOf(*file, "model.layers.0.mlp.down_proj.weight") == 12 + 8 + 96 + 8 + 48);
  CHECK(FirstOf(*file, "model.norm.weight") == kSharedFloats - 14);
  CHECK(file->tensors().Find("model.layers.1.mlp.down_proj.weight")->shape == Shape{4, 6});
  CHECK(file->tensors().Find("model.layers.1.self_attn.v_proj.weight")->shape == Shape{2, 4});
  CHECK(file->tensors().Find("lm_head.weight") == nullptr);

  const auto untied = LegacyFile(false);
  const auto other = Llama2cFile::Parse(untied);
  REQUIRE(other);
  CHECK_FALSE(other->config().shared_classifier);
  CHECK(FirstOf(*other, "lm_head.weight") == kSharedFloats);
}

TEST_CASE("a quantized checkpoint is decoded") {
  const auto bytes = QuantizedFile();
  const auto file = Llama2cFile::Parse(bytes);
  REQUIRE_MESSAGE(file.has_value(), (file ? "" : file.error().message));
  CHECK(file->config().version == 2);
  CHECK(file->config().group_size == 2);
  CHECK(file->tensors().all().size() == 2 + 2 * 9);
  CHECK(FirstOf(*file, "model.layers.0.post_attention_layernorm.weight") == 8);
  CHECK(FirstOf(*file, "model.norm.weight") == 16);
  const TensorView* up = file->tensors().Find("model.layers.1.mlp.up_proj.weight");
  REQUIRE(up != nullptr);
  std::vector<float> row(4);
  up->DecodeRow(5, row.data());
  CHECK(row == std::vector<float>{10.5f, 11.f, 11.5f, 12.f});
}

TEST_CASE("only an exact length is accepted") {
  for (const auto& whole : {LegacyFile(true), QuantizedFile()}) {
    CHECK(Llama2cFile::Matches(whole));
    for (size_t size = 0; size < whole.size(); ++size) {
      const std::vector<std::byte> cut(whole.begin(),
                                       whole.begin() + static_cast<std::ptrdiff_t>(size));
      CAPTURE(size);
      const auto parsed = Llama2cFile::Parse(cut);
      REQUIRE_FALSE(parsed);
      CHECK(parsed.error().code == Code::kBadData);
    }
    auto longer = whole;
    longer.push_back(std::byte{0});
    CheckRefused(longer, Code::kBadData, "bytes");
  }
}

TEST_CASE("bad llama2.c headers") {
  CheckRefused(QuantizedFile(1), Code::kUnsupported, "version 1");
  CheckRefused(QuantizedFile(2, 0), Code::kBadData, "group size");
  CheckRefused(QuantizedFile(2, 5), Code::kBadData, "groups of 5");
  CheckRefused(QuantizedFile(2, 2, 2), Code::kBadData, "classifier flag");
  ByteBuilder zero_vocab;
  CheckRefused(SevenIntegers(zero_vocab, 0).Zeros(64).bytes(), Code::kBadData, "vocab_size");
  ByteBuilder odd_heads;
  CheckRefused(SevenIntegers(odd_heads, 3, 4).Zeros(64).bytes(), Code::kBadData, "n_heads");
  ByteBuilder huge;
  for (int i = 0; i < 3; ++i) huge.Number<int32_t>(0x7FFFFFFE);
  huge.Number<int32_t>(1)
      .Number<int32_t>(1)
      .Number<int32_t>(0x7FFFFFFF)
      .Number<int32_t>(0x7FFFFFFF);
  CheckRefused(huge.Zeros(64).bytes(), Code::kBadData, "overflow");
  ByteBuilder lowest;
  CheckRefused(SevenIntegers(lowest, std::numeric_limits<int32_t>::min()).Zeros(64).bytes(),
               Code::kBadData, "2147483648");
  const std::vector<std::byte> zeros(4096);
  CHECK_FALSE(Llama2cFile::Matches(zeros));
  CHECK_FALSE(Llama2cFile::Matches({}));
}

TEST_CASE("flipped bits in the headers never crash") {
  for (const auto& whole : {LegacyFile(true), QuantizedFile()}) {
    int refused = 0;
    for (size_t bit = 0; bit < 45 * 8; ++bit) {
      auto flipped = whole;
      flipped[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
      const auto file = Llama2cFile::Parse(flipped);
      if (file) {
        TouchEverything(file->tensors(), {});
      } else {
        ++refused;
      }
    }
    CHECK(refused > 200);
  }
}

TEST_CASE("both forms of stories260K open, and the quantized one is close") {
  EW_EXTERNAL_OR_SKIP(exact_path, "models/stories260K/stories260K.bin");
  EW_EXTERNAL_OR_SKIP(quantized_path, "models/stories260K/stories260K-q8.bin");
  const auto exact = Llama2cFile::Open(exact_path);
  REQUIRE_MESSAGE(exact.has_value(), (exact ? "" : exact.error().message));
  const auto quantized = Llama2cFile::Open(quantized_path);
  REQUIRE_MESSAGE(quantized.has_value(), (quantized ? "" : quantized.error().message));
  CHECK(exact->config().dim == 64);
  CHECK(exact->config().n_kv_heads == 4);
  CHECK(quantized->config().group_size == 8);
  REQUIRE(exact->tensors().all().size() == 2 + 5 * 9);
  REQUIRE(quantized->tensors().all().size() == 2 + 5 * 9);
  for (const NamedTensor& tensor : exact->tensors().all()) {
    CAPTURE(tensor.name);
    const TensorView* other = quantized->tensors().Find(tensor.name);
    REQUIRE(other != nullptr);
    REQUIRE(other->shape == tensor.view.shape);
    std::vector<float> a(tensor.view.shape.columns());
    std::vector<float> b(a.size());
    float largest = 0;
    float error = 0;
    for (uint64_t row = 0; row < tensor.view.shape.rows(); ++row) {
      tensor.view.DecodeRow(row, a.data());
      other->DecodeRow(row, b.data());
      for (size_t i = 0; i < a.size(); ++i) {
        largest = std::max(largest, std::abs(a[i]));
        error = std::max(error, std::abs(a[i] - b[i]));
      }
    }
    // Half a step of the largest group, and a little for rounding.
    CHECK(error <= largest / 254.0f * 1.001f);
  }
}
