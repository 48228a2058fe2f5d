#include "formats/hf_folder.h"

#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "formats/test_bytes.h"
#include "tests/test_data.h"

using namespace edgewise;

namespace {

void WriteText(const std::string& path, std::string_view text) {
  std::ofstream(path, std::ios::binary)
      .write(text.data(), static_cast<std::streamsize>(text.size()));
}

// A file with the one tensor `name` of four bytes.
void WriteShard(const std::string& path, const std::string& name) {
  ByteBuilder builder;
  builder.Text("{\"" + name + R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})").Zeros(4);
  const auto bytes = builder.bytes();
  WriteText(path, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kShardA = "model-00001-of-00002.safetensors";
constexpr const char* kShardB = "model-00002-of-00002.safetensors";

std::string IndexText(const std::string& b_shard = kShardB, int total = 8) {
  return R"({"metadata":{"total_size":)" + std::to_string(total) + R"(},"weight_map":{"b":")" +
         b_shard + R"(","a":")" + kShardA + R"("}})";
}

// A good folder of two shards with a tensor each.
void WriteSharded(const TemporaryFolder& folder) {
  WriteText(folder / "config.json", R"({"model_type":"llama"})");
  WriteText(folder / kIndex, IndexText());
  WriteShard(folder / kShardA, "a");
  WriteShard(folder / kShardB, "b");
}

void CheckRefused(const std::string& path, Code code, std::string_view part) {
  const auto folder = HfFolder::Open(path);
  REQUIRE_FALSE(folder);
  CAPTURE(folder.error().message);
  CHECK(folder.error().code == code);
  CHECK(folder.error().message.find(part) != std::string::npos);
}

}  // namespace

TEST_CASE("the model of this repository opens") {
  const auto folder = HfFolder::Open(SourcePath("models/edgewise-stories-3M"));
  REQUIRE_MESSAGE(folder.has_value(), (folder ? "" : folder.error().message));
  CHECK(folder->tensors().all().size() == 38);
  CHECK(folder->shards().size() == 1);
  CHECK(folder->config().Find("model_type") != nullptr);
  CHECK(folder->generation_config().is_object());
  CHECK(folder->tokenizer_config().is_object());
  const TensorView* embedding = folder->tensors().Find("model.embed_tokens.weight");
  REQUIRE(embedding != nullptr);
  CHECK(embedding->dtype == DType::kF16);
  CHECK(embedding->shape == Shape{2048, 256});
  CHECK(std::isfinite(TouchEverything(folder->tensors(), {})));
}

TEST_CASE("a folder of shards opens") {
  const TemporaryFolder folder;
  WriteSharded(folder);
  const auto opened = HfFolder::Open(folder.path());
  REQUIRE_MESSAGE(opened.has_value(), (opened ? "" : opened.error().message));
  CHECK(opened->shards().size() == 2);
  REQUIRE(opened->tensors().all().size() == 2);
  CHECK(opened->tensors().all()[0].name == "a");
  CHECK(opened->generation_config().is_null());
  CHECK(*opened->config().Find("model_type")->AsString() == "llama");
}

TEST_CASE("an index and shards that disagree are refused") {
  const TemporaryFolder folder;
  WriteSharded(folder);
  WriteText(folder / kIndex, IndexText(kShardB, 9));
  CheckRefused(folder.path(), Code::kBadData, "total_size");
  WriteText(folder / kIndex, IndexText(kShardA));
  CheckRefused(folder.path(), Code::kBadData, "lacks the tensor \"b\"");
  WriteText(folder / kIndex, IndexText());
  WriteShard(folder / kShardB, "c");
  CheckRefused(folder.path(), Code::kBadData, "holds the tensor \"c\"");
  WriteShard(folder / kShardB, "a");
  CheckRefused(folder.path(), Code::kBadData, "holds the tensor \"a\"");
  std::filesystem::remove(folder / kShardB);
  CheckRefused(folder.path(), Code::kNotFound, kShardB);
}

TEST_CASE("shard names must be plain") {
  const TemporaryFolder folder;
  WriteSharded(folder);
  for (const char* name :
       {"../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "a\\\\b.safetensors", "",
        ".hidden.safetensors", "model.bin", "x\\u0000.safetensors"}) {
    CAPTURE(name);
    WriteText(folder / kIndex, IndexText(name));
    CheckRefused(folder.path(), Code::kBadData, "plain name");
  }
  for (const char* text :
       {"{}", "[]", R"({"weight_map":[]})", R"({"weight_map":{}})", R"({"weight_map":{"a":1}})",
        R"({"metadata":{"total_size":"x"},"weight_map":{"a":"a.safetensors"}})"}) {
    CAPTURE(text);
    WriteText(folder / kIndex, text);
    CheckRefused(folder.path(), Code::kBadData, kIndex);
  }
}

TEST_CASE("missing and unsupported parts are named") {
  const TemporaryFolder folder;
  CheckRefused(folder / "absent", Code::kNotFound, "absent");
  CheckRefused(folder.path(), Code::kNotFound, "config.json");
  WriteText(folder / "config.json", "{}");
  CheckRefused(folder / "config.json", Code::kInvalidArgument, "pass the model's folder");
  CheckRefused(folder.path(), Code::kNotFound, "model.safetensors");
  WriteText(folder / "pytorch_model.bin", "x");
  CheckRefused(folder.path(), Code::kUnsupported, "pytorch_model.bin");
  WriteShard(folder / "model.safetensors", "a");
  CHECK(HfFolder::Open(folder.path()));
  WriteText(folder / "tokenizer_config.json", "{");
  CheckRefused(folder.path(), Code::kBadData, "tokenizer_config.json");
  WriteText(folder / "config.json", "[]");
  CheckRefused(folder.path(), Code::kBadData, "not an object");
}
