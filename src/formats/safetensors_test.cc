#include "formats/safetensors.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "formats/test_bytes.h"
#include "tests/test_data.h"

using namespace edgewise;

namespace {

std::vector<std::byte> File(std::string_view header, size_t data_bytes) {
  ByteBuilder builder;
  builder.Text(header);
  for (size_t i = 0; i < data_bytes; ++i) builder.U8(static_cast<uint8_t>(i));
  return builder.bytes();
}

constexpr std::string_view kSmall =
    R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F16","shape":[2,3],"data_offsets":[8,20]},)"
    R"("a":{"shape":[2],"data_offsets":[0,8],"dtype":"F32"}}   )";

void CheckRefused(std::string_view header, size_t data_bytes, Code code, std::string_view part) {
  CAPTURE(header);
  const auto file = SafetensorsFile::Parse(File(header, data_bytes));
  REQUIRE_FALSE(file);
  CAPTURE(file.error().message);
  CHECK(file.error().code == code);
  CHECK(file.error().message.find(part) != std::string::npos);
}

// The header of one tensor "t".
std::string One(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return R"({"t":{"dtype":")" + std::string(dtype) + R"(","shape":)" + std::string(shape) +
         R"(,"data_offsets":)" + std::string(offsets) + "}}";
}

}  // namespace

TEST_CASE("tensors are listed in the order of their data") {
  const auto bytes = File(kSmall, 20);
  const auto file = SafetensorsFile::Parse(bytes);
  REQUIRE_MESSAGE(file.has_value(), (file ? "" : file.error().message));
  const auto tensors = file->tensors().all();
  REQUIRE(tensors.size() == 2);
  CHECK(tensors[0].name == "a");
  CHECK(tensors[0].view.dtype == DType::kF32);
  CHECK(tensors[0].view.shape == Shape{2});
  CHECK(tensors[0].view.data == bytes.data() + 8 + kSmall.size());
  CHECK(tensors[1].name == "b");
  CHECK(tensors[1].view.shape == Shape{2, 3});
  CHECK(tensors[1].view.bytes == 12);
  REQUIRE(file->metadata().size() == 1);
  CHECK(file->metadata()[0] == std::pair<std::string, std::string>("format", "pt"));
}

TEST_CASE("every supported type, scalars, empty tensors and escaped names") {
  const std::pair<const char*, size_t> types[] = {{"F64", 8},  {"F32", 4}, {"F16", 2},
                                                  {"BF16", 2}, {"I64", 8}, {"I32", 4},
                                                  {"I16", 2},  {"I8", 1},  {"U8", 1}};
  for (const auto& [type, size] : types) {
    CAPTURE(type);
    const auto bytes = File(One(type, "[3]", "[0," + std::to_string(3 * size) + "]"), 3 * size);
    const auto file = SafetensorsFile::Parse(bytes);
    REQUIRE(file);
    CHECK(file->tensors().all()[0].view.bytes == 3 * size);
    TouchEverything(file->tensors(), {});
  }
  const auto scalar = File(One("F32", "[]", "[0,4]"), 4);
  CHECK(SafetensorsFile::Parse(scalar)->tensors().Find("t")->shape.rank() == 0);
  const auto empty = File(One("F32", "[0,7]", "[0,0]"), 0);
  CHECK(SafetensorsFile::Parse(empty)->tensors().Find("t")->bytes == 0);
  CHECK(SafetensorsFile::Parse(File("{}", 0)));

  const auto named = File(
      R"({ "a\u00e9\ud83d\ude00\n\"" : { "dtype" : "F32" , "shape" : [ 1 ] , "data_offsets" : [ 0 , 4 ] } } )",
      4);
  const auto file = SafetensorsFile::Parse(named);
  REQUIRE(file);
  CHECK(file->tensors().Find("a\xC3\xA9\xF0\x9F\x98\x80\n\"") != nullptr);
}

TEST_CASE("bad extents") {
  CheckRefused(One("F32", "[2]", "[0,4]"), 4, Code::kBadData, "takes 8");
  CheckRefused(One("F32", "[1]", "[0,8]"), 8, Code::kBadData, "takes 4");
  CheckRefused(One("F32", "[1]", "[4,8]"), 8, Code::kBadData, "begins at 4");
  CheckRefused(One("F32", "[1]", "[4,0]"), 8, Code::kBadData, "not inside");
  CheckRefused(One("F32", "[2]", "[0,8]"), 4, Code::kBadData, "not inside");
  CheckRefused(One("F32", "[1]", "[0,4]"), 5, Code::kBadData, "5 bytes of data");
  CheckRefused("{}", 1, Code::kBadData, "1 bytes of data");
  CheckRefused(One("F32", "[4611686018427387904,4]", "[0,4]"), 4, Code::kBadData, "2^63");
  CheckRefused(One("F32", "[4611686018427387904]", "[0,4]"), 4, Code::kBadData, "overflows");
  CheckRefused(
      R"({"a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"I8","shape":[4],"data_offsets":[2,6]}})",
      6, Code::kBadData, "begins at 2");
  CheckRefused(
      R"({"a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"I8","shape":[4],"data_offsets":[6,10]}})",
      10, Code::kBadData, "ends at 4");
}

TEST_CASE("what is not supported is named") {
  for (const char* type : {"BOOL", "F8_E4M3", "U16", "F4"}) {
    CheckRefused(One(type, "[1]", "[0,1]"), 1, Code::kUnsupported, type);
  }
  CheckRefused(One("I8", "[1,1,1,1,1]", "[0,1]"), 1, Code::kUnsupported, "\"t\"");
  CheckRefused(One("I8", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1, Code::kUnsupported, "more than 8");
}

TEST_CASE("bad headers") {
  const char* const bad[] = {
      "",
      " {}",
      "[]",
      "{",
      "{}}",
      "{} x",
      R"({"t":1})",
      R"({"t":{}})",
      R"({"t":{"dtype":"F32","shape":[1]}})",
      R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0]}})",
      R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}})",
      R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"extra":1}})",
      R"({"t":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
      R"({"t":{"dtype":4,"shape":[1],"data_offsets":[0,4]}})",
      R"({"t":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})",
      R"({"t":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})",
      R"({"t":{"dtype":"F32","shape":[01],"data_offsets":[0,4]}})",
      R"({"t":{"dtype":"F32","shape":[1,],"data_offsets":[0,4]}})",
      R"({"t":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,4]}})",
      R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},})",
      R"({"":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
      R"({"\x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
      R"({"\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
      R"({"\ud83d\u0041":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
      R"({"\ud83d\ue000":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
      R"({"\udc00\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
      R"({"\u12g4":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
      "{\"a\x01\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
      "{\"\xFF\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
      R"({"__metadata__":{"a":1}})",
      R"({"__metadata__":{"a":"1","a":"2"}})",
      R"({"__metadata__":{},"__metadata__":{}})",
  };
  for (const char* header : bad) CheckRefused(header, 4, Code::kBadData, "header");
  CheckRefused(
      R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"t":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
      8, Code::kBadData, "appears twice");
  CheckRefused("{\"" + std::string(5000, 'n') + "\":{}}", 0, Code::kBadData, "5000 bytes");

  CHECK_FALSE(SafetensorsFile::Parse(ByteBuilder().U64(~0ull).Raw("{}").bytes()));
  CHECK_FALSE(SafetensorsFile::Parse(ByteBuilder().U64(3).Raw("{}").bytes()));
}

TEST_CASE("a safetensors file cut at any byte is refused") {
  const auto whole = File(kSmall, 20);
  REQUIRE(SafetensorsFile::Parse(whole));
  for (size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    const std::vector<std::byte> cut(whole.begin(),
                                     whole.begin() + static_cast<std::ptrdiff_t>(size));
    const auto parsed = SafetensorsFile::Parse(cut);
    REQUIRE_FALSE(parsed);
    CHECK(parsed.error().code == Code::kBadData);
  }
}

TEST_CASE("a flipped bit in a safetensors header never crashes") {
  const auto whole = File(kSmall, 20);
  int refused = 0;
  int parsed = 0;
  for (size_t bit = 0; bit < (8 + kSmall.size()) * 8; ++bit) {
    auto flipped = whole;
    flipped[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    const auto file = SafetensorsFile::Parse(flipped);
    if (file) {
      TouchEverything(file->tensors(), {});
      ++parsed;
    } else {
      CHECK_FALSE(file.error().message.empty());
      ++refused;
    }
  }
  CHECK(refused > 1000);
  CHECK(parsed > 10);
}

TEST_CASE("opening a safetensors file maps it and names the path in errors") {
  const TemporaryFolder folder;
  const auto bytes = File(kSmall, 20);
  std::ofstream(folder / "m.safetensors", std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  const auto file = SafetensorsFile::Open(folder / "m.safetensors");
  REQUIRE(file);
  REQUIRE(file->map() != nullptr);
  CHECK(file->map()->bytes().size() == bytes.size());

  std::filesystem::resize_file(folder / "m.safetensors", bytes.size() - 1);
  const auto cut = SafetensorsFile::Open(folder / "m.safetensors");
  REQUIRE_FALSE(cut);
  CHECK(cut.error().message.find("m.safetensors: ") != std::string::npos);
  CHECK(SafetensorsFile::Open(folder / "absent").error().code == Code::kNotFound);
}
