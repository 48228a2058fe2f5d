#include "formats/safetensors_writer.h"

#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "formats/safetensors.h"
#include "tests/test_data.h"

namespace edgewise {
namespace {

template <class T>
std::span<const std::byte> Bytes(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

TEST_CASE("what is written reads back, aligned, whatever the order") {
  const TemporaryFolder folder;
  const std::string path = folder / "model.safetensors";
  auto writer = SafetensorsWriter::Create(path, false,
                                          {{"codes", "U8", {3}},
                                           {"floats \"x\"", "F32", {2, 1}},
                                           {"empty", "F16", {0, 4}},
                                           {"half", "BF16", {}},
                                           {"words", "I32", {1}}},
                                          {{"format", "pt"}});
  REQUIRE_MESSAGE(writer.has_value(), (writer ? "" : writer.error().message));
  const std::vector<uint8_t> codes = {1, 200, 255};
  const std::vector<float> floats = {0.5f, -3.0f};
  const std::vector<uint16_t> half = {0x3F80};
  const std::vector<int32_t> words = {-7};
  REQUIRE(writer->Write(4, Bytes(words)).has_value());
  REQUIRE(writer->Write(0, Bytes(codes)).has_value());
  REQUIRE(writer->Write(3, Bytes(half)).has_value());
  CHECK_FALSE(std::filesystem::exists(path));
  REQUIRE(writer->Write(1, Bytes(floats)).has_value());
  const Status finished = writer->Finish();
  REQUIRE_MESSAGE(finished.has_value(), (finished ? "" : finished.error().message));
  CHECK(std::filesystem::file_size(path) == writer->total_bytes());

  const auto file = SafetensorsFile::Open(path);
  REQUIRE_MESSAGE(file.has_value(), (file ? "" : file.error().message));
  CHECK(file->metadata()[0] == std::pair<std::string, std::string>("format", "pt"));
  const auto all = file->tensors().all();
  REQUIRE(all.size() == 5);
  CHECK(all[0].name == "floats \"x\"");
  CHECK(all[1].name == "words");
  CHECK(all[4].name == "codes");
  const auto holds = [&](const char* name, std::span<const std::byte> bytes) {
    const TensorView* view = file->tensors().Find(name);
    REQUIRE(view != nullptr);
    REQUIRE(view->bytes == bytes.size());
    CHECK(std::memcmp(view->data, bytes.data(), bytes.size()) == 0);
    CHECK((view->data - file->map()->bytes().data()) % Info(view->dtype).block_bytes == 0);
  };
  holds("codes", Bytes(codes));
  holds("floats \"x\"", Bytes(floats));
  holds("half", Bytes(half));
  holds("words", Bytes(words));
}

TEST_CASE("an unfinished file leaves nothing behind") {
  const TemporaryFolder folder;
  {
    auto writer =
        SafetensorsWriter::Create(folder / "a.safetensors", false, {{"x", "F32", {1}}}, {});
    REQUIRE(writer.has_value());
    const Status finished = writer->Finish();
    REQUIRE_FALSE(finished.has_value());
    CHECK(finished.error().message.find("\"x\" was not written") != std::string::npos);
  }
  CHECK(std::filesystem::is_empty(folder.path()));
}

TEST_CASE("what cannot be written is refused") {
  const TemporaryFolder folder;
  const std::string path = folder / "a.safetensors";
  const auto code = [&](std::vector<SafetensorsDecl> tensors) {
    const auto writer = SafetensorsWriter::Create(path, false, std::move(tensors), {});
    REQUIRE_FALSE(writer.has_value());
    CHECK(writer.error().message.starts_with(path));
    return writer.error().code;
  };
  CHECK(code({{"x", "F32", {1}}, {"x", "U8", {1}}}) == Code::kInvalidArgument);
  CHECK(code({{"__metadata__", "F32", {1}}}) == Code::kInvalidArgument);
  CHECK(code({{"x", "F8", {1}}}) == Code::kInvalidArgument);
  CHECK(code({{"x", "F32", {uint64_t{1} << 62}}}) == Code::kBadData);
  std::ofstream(path) << "x";
  CHECK(code({{"x", "F32", {1}}}) == Code::kInvalidArgument);
}

}  // namespace
}  // namespace edgewise
