// Folders that GPTQ, AWQ or bitsandbytes has quantized give the same tensors as a folder of the
// floats that their codes mean.
#include <doctest/doctest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/half.h"
#include "base/json.h"
#include "base/rng.h"
#include "formats/quantized_linear.h"
#include "formats/safetensors_writer.h"
#include "model/checkpoint.h"
#include "model/tiny_model.h"
#include "quant/nf4.h"
#include "tests/test_data.h"

namespace edgewise {
namespace {

constexpr uint64_t kGroup = 32;

struct Written {
  SafetensorsDecl declaration;
  std::vector<std::byte> bytes;
};

// A folder in the making.
struct Folder {
  Json config;
  std::vector<Written> tensors;

  template <class T>
  void Add(const std::string& name, const char* dtype, std::vector<uint64_t> shape,
           const std::vector<T>& values) {
    const auto bytes = std::as_bytes(std::span(values));
    tensors.push_back({{name, dtype, std::move(shape)}, {bytes.begin(), bytes.end()}});
  }
  Written* Find(const std::string& name) {
    for (Written& tensor : tensors) {
      if (tensor.declaration.name == name) return &tensor;
    }
    return nullptr;
  }
  void Write(const std::string& folder) const {
    std::ofstream(folder + "/config.json") << config.Dump();
    std::vector<SafetensorsDecl> declarations;
    for (const Written& tensor : tensors) declarations.push_back(tensor.declaration);
    auto writer = SafetensorsWriter::Create(folder + "/model.safetensors", true, declarations, {});
    REQUIRE(writer.has_value());
    for (size_t i = 0; i < tensors.size(); ++i) {
      REQUIRE(writer->Write(i, tensors[i].bytes).has_value());
    }
    REQUIRE(writer->Finish().has_value());
  }
};

TinyModel Plain() {
  const TinySizes sizes{
      .dim = 64, .layers = 2, .heads = 4, .kv_heads = 2, .head_dim = 16, .ffn = 96, .vocab = 40};
  return TinyWeights(TinyConfig("LlamaForCausalLM", "llama", sizes), sizes, {}, 5);
}

bool IsLinear(const std::string& name) { return name.find("_proj.weight") != std::string::npos; }

// Adds the parts of the layer `stem` and returns the values that they mean.
using Quantizer = std::function<std::vector<float>(Folder* folder, const std::string& stem,
                                                   const TinyTensor& tensor)>;

// Random codes stand for the weights: what they mean is what must come back.
struct RandomCodes {
  RandomCodes(const Shape& shape, uint64_t seed) {
    Rng rng(seed);
    const uint64_t groups = shape[1] / kGroup;
    for (uint64_t i = 0; i < shape.elements(); ++i) {
      codes.push_back(static_cast<uint8_t>(rng.Below(16)));
    }
    for (uint64_t i = 0; i < shape[0] * groups; ++i) {
      zeros.push_back(static_cast<uint8_t>(1 + rng.Below(15)));
      scales.push_back(FloatToHalf(static_cast<float>(0.01 + 0.02 * rng.Uniform())));
    }
    for (uint64_t i = 0; i < shape.elements(); ++i) {
      const uint64_t group = i / shape[1] * groups + i % shape[1] / kGroup;
      values.push_back(HalfToFloat(scales[group]) *
                       static_cast<float>(static_cast<int>(codes[i]) - zeros[group]));
    }
  }
  std::vector<uint8_t> codes, zeros;
  std::vector<uint16_t> scales;
  std::vector<float> values;
};

std::vector<float> AddGptq(Folder* folder, const std::string& stem, const TinyTensor& tensor) {
  const Shape shape{tensor.shape[0], tensor.shape[1]};
  const RandomCodes random(shape, stem.size() + shape[0]);
  const GptqWords words = PackGptq(4, kGroup, shape, random.codes, random.zeros, random.scales);
  const uint64_t groups = shape[1] / kGroup;
  folder->Add(stem + ".qweight", "I32", {shape[1] / 8, shape[0]}, words.qweight);
  folder->Add(stem + ".qzeros", "I32", {groups, shape[0] / 8}, words.qzeros);
  folder->Add(stem + ".scales", "F16", {groups, shape[0]}, words.scales);
  folder->Add(stem + ".g_idx", "I32", {shape[1]}, words.g_idx);
  folder->Add(stem + ".bias", "F16", {shape[0]}, std::vector<uint16_t>(shape[0]));
  return random.values;
}

std::vector<float> AddAwq(Folder* folder, const std::string& stem, const TinyTensor& tensor) {
  const Shape shape{tensor.shape[0], tensor.shape[1]};
  const RandomCodes random(shape, stem.size() + shape[0]);
  const AwqWords words = PackAwq(kGroup, shape, random.codes, random.zeros, random.scales);
  const uint64_t groups = shape[1] / kGroup;
  folder->Add(stem + ".qweight", "I32", {shape[1], shape[0] / 8}, words.qweight);
  folder->Add(stem + ".qzeros", "I32", {groups, shape[0] / 8}, words.qzeros);
  folder->Add(stem + ".scales", "F16", {groups, shape[0]}, words.scales);
  return random.values;
}

std::vector<float> AddNf4(Folder* folder, const std::string& stem, const TinyTensor& tensor) {
  const Shape shape{tensor.shape[0], tensor.shape[1]};
  const Bnb4Bytes bytes = PackNf4(tensor.values, shape);
  const std::string weight = stem + ".weight";
  folder->Add(weight, "U8", {bytes.weight.size(), 1}, bytes.weight);
  folder->Add(weight + ".absmax", "U8", {bytes.absmax.size()}, bytes.absmax);
  folder->Add(weight + ".nested_absmax", "F32", {bytes.nested_absmax.size()}, bytes.nested_absmax);
  const auto& map = bytes.nested_quant_map;
  folder->Add(weight + ".nested_quant_map", "F32", {256},
              std::vector<float>(map.begin(), map.end()));
  folder->Add(weight + ".quant_map", "F32", {16},
              std::vector<float>(quant::kNf4Values.begin(), quant::kNf4Values.end()));
  folder->Add(weight + ".quant_state.bitsandbytes__nf4", "U8", {bytes.quant_state.size()},
              std::vector<char>(bytes.quant_state.begin(), bytes.quant_state.end()));
  const double offset = *ParseJson(bytes.quant_state)->Find("nested_offset")->AsDouble();
  std::vector<float> values;
  for (size_t i = 0; i < tensor.values.size(); ++i) {
    const unsigned code = bytes.weight[i / 2] >> (i % 2 == 0 ? 4 : 0) & 15;
    const float product = map[bytes.absmax[i / 64]] * bytes.nested_absmax[i / 64 / 256];
    values.push_back(quant::kNf4Values[code] * (product + static_cast<float>(offset)));
  }
  return values;
}

// Replaces the linear layers of `plain` by quantized ones, and its values by what these mean.
Folder Quantize(TinyModel* plain, Json quantization, const Quantizer& quantize) {
  Folder folder;
  folder.config = plain->config;
  folder.config.Set("quantization_config", std::move(quantization));
  for (auto& [name, tensor] : plain->tensors) {
    if (IsLinear(name)) {
      tensor.values = quantize(&folder, name.substr(0, name.size() - 7), tensor);
    } else {
      folder.Add(name, "F32", tensor.shape, tensor.values);
    }
  }
  return folder;
}

void CheckSameTensors(const std::string& quantized_path, const std::string& plain_path) {
  const auto quantized = Checkpoint::Open(quantized_path);
  REQUIRE_MESSAGE(quantized.has_value(), (quantized ? "" : quantized.error().message));
  const auto plain = Checkpoint::Open(plain_path);
  REQUIRE(plain.has_value());
  REQUIRE(quantized->tensors().size() == plain->tensors().size());
  for (size_t i = 0; i < plain->tensors().size(); ++i) {
    CAPTURE(plain->tensors()[i].name);
    CHECK(quantized->tensors()[i].name == plain->tensors()[i].name);
    CHECK(quantized->tensors()[i].dtype == DType::kF32);
    const bool linear =
        plain->tensors()[i].shape.rank() == 2 && plain->tensors()[i].name.starts_with("blk.");
    CHECK(quantized->tensors()[i].stored_as.ends_with(linear ? "-4bit" : ""));
    CHECK((quantized->tensors()[i].stored_bytes > 0) == linear);
    CHECK(quantized->tensors()[i].shape == plain->tensors()[i].shape);
    const auto a = quantized->Load(i), b = plain->Load(i);
    REQUIRE(a.has_value());
    REQUIRE(b.has_value());
    REQUIRE(a->view().bytes == b->view().bytes);
    const auto* x = reinterpret_cast<const float*>(a->view().data);
    const auto* y = reinterpret_cast<const float*>(b->view().data);
    CHECK(std::equal(x, x + a->view().bytes / 4, y));
    quantized->DropPages(i);
  }
}

const JsonObject kGptqConfig = {
    {"quant_method", "gptq"}, {"bits", 4}, {"group_size", kGroup}, {"desc_act", false}};
const JsonObject kAwqConfig = {
    {"quant_method", "awq"}, {"bits", 4}, {"group_size", kGroup}, {"version", "gemm"}};
const JsonObject kBnbConfig = {{"quant_method", "bitsandbytes"}, {"load_in_4bit", true}};

TEST_CASE("quantized folders give the floats that their codes mean") {
  const std::pair<JsonObject, Quantizer> methods[] = {
      {kGptqConfig, AddGptq}, {kAwqConfig, AddAwq}, {kBnbConfig, AddNf4}};
  for (const auto& [config, quantize] : methods) {
    CAPTURE(Json(config).Dump());
    TinyModel plain = Plain();
    const TemporaryFolder quantized_folder, plain_folder;
    Quantize(&plain, config, quantize).Write(quantized_folder.path());
    plain.Write(plain_folder.path());
    CheckSameTensors(quantized_folder.path(), plain_folder.path());
  }
}

Error ErrorAfter(const std::function<void(Folder*)>& change) {
  TinyModel plain = Plain();
  Folder folder = Quantize(&plain, kGptqConfig, AddGptq);
  change(&folder);
  const TemporaryFolder written;
  folder.Write(written.path());
  const auto opened = Checkpoint::Open(written.path());
  REQUIRE_FALSE(opened.has_value());
  CHECK(opened.error().message.starts_with(written.path()));
  return opened.error();
}

TEST_CASE("broken quantized folders are refused, with the tensor named") {
  const std::string stem = "model.layers.1.mlp.down_proj";
  const auto names = [&](const Error& error, const std::string& part) {
    CHECK_MESSAGE(error.message.find(part) != std::string::npos, error.message);
  };
  Error error = ErrorAfter([&](Folder* f) { f->Find(stem + ".qzeros")->declaration.name = "z"; });
  CHECK(error.code == Code::kBadData);
  names(error, stem + ": qzeros is missing");
  error = ErrorAfter([&](Folder* f) {
    const int32_t group = 3;
    std::memcpy(f->Find(stem + ".g_idx")->bytes.data() + 8, &group, 4);
  });
  CHECK(error.code == Code::kBadData);
  names(error, "g_idx puts column 2 into group 3");
  error = ErrorAfter([&](Folder* f) { f->Find(stem + ".bias")->bytes[1] = std::byte{0x3C}; });
  CHECK(error.code == Code::kUnsupported);
  names(error, stem + ".bias");
  error = ErrorAfter([](Folder* f) { f->config.Set("quantization_config", Json()); });
  CHECK(error.code == Code::kBadData);
  names(error, "lacks the \"quantization_config\"");
  error = ErrorAfter([](Folder* f) {
    f->config.Set("quantization_config", kBnbConfig);
    for (Written& tensor : f->tensors) {
      if (tensor.declaration.name != "model.embed_tokens.weight") continue;
      tensor.declaration.dtype = "I32";
    }
  });
  CHECK(error.code == Code::kUnsupported);
  names(error, "holds integers");
}

TEST_CASE("a quantized model runs") {
  TinyModel plain = Plain();
  const TemporaryFolder folder;
  Quantize(&plain, kAwqConfig, AddAwq).Write(folder.path());
  CHECK(LoadTestModel(folder.path()) != nullptr);
}

}  // namespace
}  // namespace edgewise
