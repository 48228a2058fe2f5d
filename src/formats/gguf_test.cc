#include "formats/gguf.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>

#include "formats/test_bytes.h"
#include "tests/test_data.h"

using namespace edgewise;

namespace {

template <class T>
MetaArray ArrayOf(MetaType element, std::vector<T> values) {
  MetaArray array;
  array.element = element;
  array.values = std::move(values);
  return array;
}

// One value and one array of every type, with extreme values.
Metadata EveryType() {
  Metadata m;
  m.Set("u8", std::numeric_limits<uint8_t>::max());
  m.Set("i8", std::numeric_limits<int8_t>::min());
  m.Set("u16", std::numeric_limits<uint16_t>::max());
  m.Set("i16", std::numeric_limits<int16_t>::min());
  m.Set("u32", std::numeric_limits<uint32_t>::max());
  m.Set("i32", std::numeric_limits<int32_t>::min());
  m.Set("f32", 0.1f);
  m.Set("true", true);
  m.Set("false", false);
  m.Set("string", std::string("zero \0 and \xFF inside", 17));
  m.Set("u64", std::numeric_limits<uint64_t>::max());
  m.Set("i64", std::numeric_limits<int64_t>::min());
  m.Set("f64", 0.1);
  m.Set("[u8]", ArrayOf<uint8_t>(MetaType::kU8, {0, 255}));
  m.Set("[i8]", ArrayOf<int8_t>(MetaType::kI8, {-128, 127}));
  m.Set("[u16]", ArrayOf<uint16_t>(MetaType::kU16, {1, 65535}));
  m.Set("[i16]", ArrayOf<int16_t>(MetaType::kI16, {-32768}));
  m.Set("[u32]", ArrayOf<uint32_t>(MetaType::kU32, {1, 2, 3}));
  m.Set("[i32]", ArrayOf<int32_t>(MetaType::kI32, {-1}));
  m.Set("[f32]", ArrayOf<float>(MetaType::kF32, {0.25f, -1e30f}));
  m.Set("[bool]", ArrayOf<uint8_t>(MetaType::kBool, {1, 0, 1}));
  m.Set("[string]", ArrayOf<std::string>(MetaType::kString, {"", "a", "\xE2\x96\x81"}));
  m.Set("[u64]", ArrayOf<uint64_t>(MetaType::kU64, {~0ull}));
  m.Set("[i64]", ArrayOf<int64_t>(MetaType::kI64, {-1}));
  m.Set("[f64]", ArrayOf<double>(MetaType::kF64, {1e300}));
  m.Set("[empty]", ArrayOf<std::string>(MetaType::kString, {}));
  return m;
}

void CheckSame(const Metadata& a, const Metadata& b) {
  REQUIRE(a.all().size() == b.all().size());
  for (size_t i = 0; i < a.all().size(); ++i) {
    const auto& [key, value] = a.all()[i];
    CAPTURE(key);
    CHECK(key == b.all()[i].first);
    const MetaValue& other = b.all()[i].second;
    REQUIRE(value.index() == other.index());
    if (const auto* array = std::get_if<MetaArray>(&value)) {
      CHECK(array->element == std::get<MetaArray>(other).element);
      CHECK((array->values == std::get<MetaArray>(other).values));
    } else {
      CHECK(Describe(value) == Describe(other));
    }
  }
}

std::byte Pattern(size_t tensor, size_t i) {
  return static_cast<std::byte>((tensor * 37 + i * 11) % 251);
}

std::vector<std::byte> PatternBytes(size_t tensor, size_t count) {
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = Pattern(tensor, i);
  return bytes;
}

// Writes every tensor filled with its pattern and returns the finished file's bytes.
std::vector<std::byte> WriteFile(const std::string& path, const Metadata& metadata,
                                 const std::vector<GgufTensorDecl>& tensors) {
  auto writer = GgufWriter::Create(path, false, metadata, tensors);
  REQUIRE(writer);
  for (size_t i = 0; i < tensors.size(); ++i) {
    REQUIRE(writer->Write(
        PatternBytes(i, *TensorBytes(tensors[i].dtype, tensors[i].shape, tensors[i].layout))));
  }
  const auto finished = writer->Finish();
  REQUIRE_MESSAGE(finished.has_value(), (finished ? "" : finished.error().message));
  const auto text = ReadFile(path, 1 << 20);
  REQUIRE(text);
  CHECK(text->size() == writer->total_bytes());
  const auto bytes = std::as_bytes(std::span(*text));
  return {bytes.begin(), bytes.end()};
}

std::vector<GgufTensorDecl> EveryDType() {
  std::vector<GgufTensorDecl> tensors;
  for (const DTypeInfo& info : AllDTypes()) {
    tensors.push_back({std::string("tensor.") + info.name, info.id, {3, uint64_t{info.block} * 2}});
  }
  tensors.push_back({"packed", DType::kQ4_0, {17, 64}, TensorLayout::kPacked});
  tensors.push_back({"packed.large", DType::kQ6_K, {3, 256}, TensorLayout::kPacked});
  tensors.push_back({"vector", DType::kF32, {5}});
  tensors.push_back({"four", DType::kF16, {2, 3, 1, 7}});
  tensors.push_back({"scalar", DType::kF32, {}});
  return tensors;
}

Metadata SmallMetadata() {
  Metadata metadata;
  metadata.Set("general.architecture", std::string("llama"));
  metadata.Set("count", uint32_t{3});
  metadata.Set("names", MetaArray(std::vector<std::string>{"a", "bc"}));
  metadata.Set("scale", 0.5f);
  metadata.Set("flag", true);
  return metadata;
}

const std::vector<GgufTensorDecl> kSmallTensors = {{"w", DType::kF32, {2, 4}},
                                                   {"q", DType::kQ8_0, {1, 32}}};

}  // namespace

TEST_CASE("every metadata type and every number format survives a round trip") {
  const TemporaryFolder folder;
  const std::string path = folder / "every.gguf";
  const auto tensors = EveryDType();
  const auto bytes = WriteFile(path, EveryType(), tensors);
  CHECK(*GgufFileBytes(EveryType(), tensors) == bytes.size());

  const auto file = GgufFile::Open(path);
  REQUIRE_MESSAGE(file.has_value(), (file ? "" : file.error().message));
  CHECK(file->version() == 3);
  CHECK(file->file_bytes() == bytes.size());
  CHECK(file->data_offset() % 32 == 0);
  REQUIRE(file->map() != nullptr);
  CheckSame(EveryType(), file->metadata());
  REQUIRE(file->tensors().all().size() == tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const NamedTensor& tensor = file->tensors().all()[i];
    CAPTURE(tensor.name);
    CHECK(tensor.name == tensors[i].name);
    CHECK(tensor.view.dtype == tensors[i].dtype);
    CHECK(tensor.view.layout == tensors[i].layout);
    CHECK(tensor.view.shape == (tensors[i].shape.rank() == 0 ? Shape{1} : tensors[i].shape));
    CHECK(static_cast<size_t>(tensor.view.data - file->map()->bytes().data()) % 32 == 0);
    const auto expected = PatternBytes(i, tensor.view.bytes);
    CHECK(std::ranges::equal(tensor.view.as_bytes(), expected));
  }
  TouchEverything(file->tensors(), file->metadata());
}

TEST_CASE("an alignment of its own and a file without tensors are written and read") {
  const TemporaryFolder folder;
  Metadata metadata = SmallMetadata();
  metadata.Set("general.alignment", uint32_t{4096});
  WriteFile(folder / "aligned.gguf", metadata, kSmallTensors);
  const auto aligned = GgufFile::Open(folder / "aligned.gguf");
  REQUIRE(aligned);
  CHECK(aligned->data_offset() % 4096 == 0);
  CHECK(aligned->file_bytes() == aligned->data_offset() + 2 * 4096);

  WriteFile(folder / "vocab.gguf", SmallMetadata(), {});
  const auto vocab = GgufFile::Open(folder / "vocab.gguf");
  REQUIRE(vocab);
  CHECK(vocab->tensors().all().empty());
  CHECK(*vocab->metadata().GetString("general.architecture") == "llama");
}

TEST_CASE("version 2 is read as version 3 is") {
  const TemporaryFolder folder;
  auto bytes = WriteFile(folder / "small.gguf", SmallMetadata(), kSmallTensors);
  bytes[4] = std::byte{2};
  const auto file = GgufFile::Parse(bytes);
  REQUIRE(file);
  CHECK(file->version() == 2);
  CHECK(file->map() == nullptr);
  CHECK(file->tensors().all().size() == 2);
}

TEST_CASE("a file cut at any byte is refused with a message") {
  const TemporaryFolder folder;
  for (const auto& tensors : {kSmallTensors, std::vector<GgufTensorDecl>()}) {
    const std::string path = folder / ("cut" + std::to_string(tensors.size()) + ".gguf");
    const auto whole = WriteFile(path, SmallMetadata(), tensors);
    const auto file = GgufFile::Parse(whole);
    REQUIRE(file);
    // The padding after the last byte that matters may be absent.
    size_t needed = whole.size();
    if (!tensors.empty()) {
      const TensorView& last = file->tensors().all().back().view;
      needed = static_cast<size_t>(last.data - whole.data()) + last.bytes;
    } else {
      while (whole[needed - 1] == std::byte{0}) --needed;
    }
    for (size_t size = 0; size < whole.size(); ++size) {
      const std::vector<std::byte> cut(whole.begin(),
                                       whole.begin() + static_cast<std::ptrdiff_t>(size));
      const auto parsed = GgufFile::Parse(cut);
      CAPTURE(size);
      CHECK(parsed.has_value() == (size >= needed));
      if (!parsed) {
        CHECK(parsed.error().code == Code::kBadData);
        CHECK_FALSE(parsed.error().message.empty());
      }
    }
  }
}

TEST_CASE("a flipped bit in the header is refused or parses, and never crashes") {
  const TemporaryFolder folder;
  const auto whole = WriteFile(folder / "flip.gguf", SmallMetadata(), kSmallTensors);
  const auto header = GgufFile::Parse(whole)->data_offset();
  int refused = 0;
  int parsed = 0;
  for (size_t bit = 0; bit < header * 8; ++bit) {
    std::vector<std::byte> flipped = whole;
    flipped[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    const auto file = GgufFile::Parse(flipped);
    if (file) {
      TouchEverything(file->tensors(), file->metadata());
      ++parsed;
    } else {
      CHECK_FALSE(file.error().message.empty());
      ++refused;
    }
  }
  CHECK(refused > 200);
  CHECK(parsed > 200);
}

TEST_CASE("opening names the path") {
  const TemporaryFolder folder;
  const auto absent = GgufFile::Open(folder / "absent.gguf");
  REQUIRE_FALSE(absent);
  CHECK(absent.error().code == Code::kNotFound);
  CHECK(absent.error().message.find("absent.gguf") != std::string::npos);

  auto empty = AtomicFile::Create(folder / "empty.gguf", false);
  REQUIRE(empty);
  REQUIRE(empty->Commit());
  const auto refused = GgufFile::Open(folder / "empty.gguf");
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == Code::kBadData);
  CHECK(refused.error().message.find("empty.gguf") != std::string::npos);
}

TEST_CASE("real vocabularies parse") {
  EW_EXTERNAL_OR_SKIP(tokenizers, "tokenizers");
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(tokenizers)) {
    if (entry.path().extension() != ".gguf") continue;
    ++files;
    CAPTURE(entry.path());
    const auto file = GgufFile::Open(entry.path().string());
    REQUIRE_MESSAGE(file.has_value(), (file ? "" : file.error().message));
    const auto* tokens = file->metadata().FindStrings("tokenizer.ggml.tokens");
    REQUIRE(tokens != nullptr);
    CHECK(tokens->size() > 1000);
    CHECK(file->metadata().GetString("general.architecture"));
    TouchEverything(file->tensors(), file->metadata());
  }
  CHECK(files > 0);
}
