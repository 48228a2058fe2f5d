// Handmade files, each broken in one place.
#include <doctest/doctest.h>

#include <functional>
#include <string>

#include "formats/gguf.h"
#include "formats/test_bytes.h"

using namespace edgewise;

namespace {

constexpr uint32_t kTypeF32 = 0;
constexpr uint32_t kTypeF16 = 1;
constexpr uint32_t kTypeQ8_0 = 8;
constexpr uint32_t kTypeI8 = 24;

ByteBuilder Start(uint64_t tensors, uint64_t pairs, uint32_t version = 3) {
  ByteBuilder builder;
  builder.Raw("GGUF").U32(version).U64(tensors).U64(pairs);
  return builder;
}

struct Declared {
  std::string name = "t";
  std::vector<uint64_t> dims = {8};  // innermost first
  uint32_t type = kTypeF32;
  uint64_t offset = 0;
};

// A file without metadata that declares these tensors before `data_bytes` of zeros.
std::vector<std::byte> WithTensors(const std::vector<Declared>& tensors, size_t data_bytes = 64) {
  ByteBuilder builder = Start(tensors.size(), 0);
  for (const Declared& tensor : tensors) {
    builder.Text(tensor.name).U32(static_cast<uint32_t>(tensor.dims.size()));
    for (const uint64_t dim : tensor.dims) builder.U64(dim);
    builder.U32(tensor.type).U64(tensor.offset);
  }
  return builder.Pad(32).Zeros(data_bytes).bytes();
}

// A file whose one pair is "k", followed by what `value` appends (the type included).
std::vector<std::byte> WithValue(const std::function<void(ByteBuilder&)>& value) {
  ByteBuilder builder = Start(0, 1);
  builder.Text("k");
  value(builder);
  return builder.Zeros(64).bytes();
}

std::vector<std::byte> WithAlignment(const std::function<void(ByteBuilder&)>& value) {
  ByteBuilder builder = Start(0, 1);
  builder.Text("general.alignment");
  value(builder);
  return builder.bytes();
}

void CheckRefused(const std::vector<std::byte>& bytes, Code code, std::string_view part) {
  const auto file = GgufFile::Parse(bytes);
  REQUIRE_FALSE(file);
  CAPTURE(file.error().message);
  CHECK(file.error().code == code);
  CHECK(file.error().message.find(part) != std::string::npos);
}

}  // namespace

TEST_CASE("the handmade files are good but for what each breaks") {
  CHECK(GgufFile::Parse(Start(0, 0).bytes()));
  CHECK(GgufFile::Parse(WithTensors({{}, {.name = "u", .offset = 32}})));
  CHECK(GgufFile::Parse(WithValue([](ByteBuilder& b) { b.U32(7).U8(1); })));
  CHECK(GgufFile::Parse(WithAlignment([](ByteBuilder& b) { b.U32(4).U32(64); })));
  // Tensors need not lie in the order of their declaration, nor without gaps.
  CHECK(GgufFile::Parse(WithTensors({{.offset = 96}, {.name = "u", .offset = 0}}, 128)));
}

TEST_CASE("bad magic and versions") {
  CheckRefused({}, Code::kBadData, "truncated");
  CheckRefused(ByteBuilder().Raw("GGML").Zeros(60).bytes(), Code::kBadData, "\"GGML\"");
  CheckRefused(Start(0, 0, 0).bytes(), Code::kUnsupported, "version 0");
  CheckRefused(Start(0, 0, 1).bytes(), Code::kUnsupported, "version 1");
  CheckRefused(Start(0, 0, 4).bytes(), Code::kUnsupported, "version 4");
  CheckRefused(Start(0, 0, 0x03000000).bytes(), Code::kUnsupported, "big-endian");
}

TEST_CASE("counts are checked before anything is allocated") {
  CheckRefused(Start(~0ull, 0).bytes(), Code::kBadData, "tensors");
  CheckRefused(Start(0, ~0ull).bytes(), Code::kBadData, "pairs");
  CheckRefused(Start(1'000'000, 0).bytes(), Code::kBadData, "cannot fit");
  CheckRefused(Start(0, 100'000).bytes(), Code::kBadData, "cannot fit");
  CheckRefused(Start(2, 0).Text("t").U32(1).U64(8).U32(0).U64(0).bytes(), Code::kBadData,
               "cannot fit");
}

TEST_CASE("bad keys") {
  CheckRefused(Start(0, 1).U64(~0ull).Zeros(64).bytes(), Code::kBadData, "at byte 24");
  CheckRefused(Start(0, 1).U64(65'536).Zeros(70'000).bytes(), Code::kBadData, "at most 65535");
  CheckRefused(Start(0, 1).U64(500).Zeros(64).bytes(), Code::kBadData, "truncated at byte 32");
  CheckRefused(Start(0, 1).Text("").U32(0).U8(0).Zeros(64).bytes(), Code::kBadData,
               "empty metadata key");
  CheckRefused(Start(0, 2).Text("k").U32(0).U8(0).Text("k").U32(0).U8(0).bytes(), Code::kBadData,
               "\"k\" appears twice");
}

TEST_CASE("bad values") {
  CheckRefused(WithValue([](ByteBuilder& b) { b.U32(13); }), Code::kBadData,
               "unknown value type 13");
  CheckRefused(WithValue([](ByteBuilder& b) { b.U32(~0u); }), Code::kBadData, "\"k\"");
  CheckRefused(WithValue([](ByteBuilder& b) { b.U32(7).U8(2); }), Code::kBadData,
               "a bool of value 2");
  CheckRefused(WithValue([](ByteBuilder& b) { b.U32(8).U64(~0ull); }), Code::kBadData,
               "a string of");
  CheckRefused(WithValue([](ByteBuilder& b) { b.U32(8).U64(1000); }), Code::kBadData, "truncated");
}

TEST_CASE("bad arrays") {
  const auto array = [](uint32_t element, uint64_t count) {
    return WithValue([=](ByteBuilder& b) { b.U32(9).U32(element).U64(count); });
  };
  CheckRefused(array(9, 1), Code::kUnsupported, "array of arrays");
  CheckRefused(array(13, 1), Code::kBadData, "unknown array element type 13");
  for (uint32_t element : {0u, 1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u, 10u, 11u, 12u}) {
    CheckRefused(array(element, ~0ull), Code::kBadData, "cannot fit");
    CheckRefused(array(element, 1ull << 61), Code::kBadData, "cannot fit");
    CheckRefused(array(element, 65), Code::kBadData, "cannot fit");
  }
  CheckRefused(WithValue([](ByteBuilder& b) { b.U32(9).U32(7).U64(2).U8(1).U8(3); }),
               Code::kBadData, "a bool of value 3");
  CheckRefused(WithValue([](ByteBuilder& b) { b.U32(9).U32(8).U64(2).Text("a").U64(1 << 20); }),
               Code::kBadData, "item 1");
}

TEST_CASE("metadata that would take too much memory") {
  // Nine million empty strings: 72 MB in the file, far more in memory.
  const uint64_t count = 9'000'000;
  ByteBuilder builder = Start(0, 1);
  builder.Text("k").U32(9).U32(8).U64(count).Zeros(count * 8);
  CheckRefused(builder.bytes(), Code::kBadData, "metadata takes more than 256 MiB");
  CheckRefused(Start(0, 1).Text("k").U32(8).U64((64ull << 20) + 1).bytes(), Code::kBadData,
               "a string of");
}

TEST_CASE("bad alignments") {
  for (const uint32_t value : {0u, 1u, 4u, 17u, 48u, 131072u, 0x80000000u}) {
    CheckRefused(WithAlignment([=](ByteBuilder& b) { b.U32(4).U32(value); }), Code::kBadData,
                 "general.alignment");
  }
  CheckRefused(WithAlignment([](ByteBuilder& b) { b.U32(5).U32(32); }), Code::kBadData, "i32");
  CheckRefused(WithAlignment([](ByteBuilder& b) { b.U32(8).Text("32"); }), Code::kBadData,
               "string");
}

TEST_CASE("bad tensor declarations") {
  CheckRefused(WithTensors({{.name = ""}}), Code::kBadData, "empty tensor name");
  CheckRefused(WithTensors({{.name = std::string(257, 'n')}}), Code::kBadData, "at most 256");
  CheckRefused(WithTensors({{}, {.offset = 32}}), Code::kBadData, "\"t\" appears twice");
  CheckRefused(WithTensors({{.dims = {}}}), Code::kBadData, "0 dimensions");
  CheckRefused(WithTensors({{.dims = {1, 1, 1, 1, 1}}}), Code::kBadData, "5 dimensions");
  CheckRefused(WithTensors({{.dims = {8, 0}}}), Code::kBadData, "a dimension of 0");
  CheckRefused(WithTensors({{.dims = {1ull << 32, 1ull << 32}}}), Code::kBadData, "2^63");
  CheckRefused(WithTensors({{.dims = {~0ull, ~0ull, ~0ull, ~0ull}}}), Code::kBadData, "2^63");
  CheckRefused(WithTensors({{.dims = {1ull << 62}}}), Code::kBadData, "overflows");
  CheckRefused(WithTensors({{.dims = {33}, .type = kTypeQ8_0}}), Code::kBadData, "blocks");
  CheckRefused(WithTensors({{.type = 4}}), Code::kUnsupported, "type number 4 ");
  CheckRefused(WithTensors({{.type = 5000}}), Code::kUnsupported, "\"t\"");
  CheckRefused(WithTensors({{.type = ~0u}}), Code::kUnsupported, "4294967295");
}

TEST_CASE("bad tensor extents") {
  CheckRefused(WithTensors({{.offset = 8}}), Code::kBadData, "multiple of the alignment");
  CheckRefused(WithTensors({{.offset = 64}}), Code::kBadData, "pass the end");
  CheckRefused(WithTensors({{.offset = ~0ull - 31}}), Code::kBadData, "pass the end");
  CheckRefused(WithTensors({{.dims = {1ull << 61}}}), Code::kBadData, "pass the end");
  CheckRefused(WithTensors({{.dims = {17}}}), Code::kBadData, "pass the end");
  CheckRefused(WithTensors({{.dims = {9}}, {.name = "u", .offset = 32}}), Code::kBadData,
               "overlap");
  CheckRefused(WithTensors({{}, {.name = "u"}}), Code::kBadData, "overlap");
}

TEST_CASE("bad packed tensors") {
  const auto packed = [](uint32_t type) { return kGgufPackedTag | type; };
  const auto with = [&](uint32_t type, std::vector<uint64_t> dims, size_t bytes) {
    return WithTensors({{.dims = std::move(dims), .type = packed(type)}}, bytes);
  };
  // Rows are padded to 16, so one row takes as many bytes as 16.
  CHECK(GgufFile::Parse(with(kTypeQ8_0, {32, 1}, 16 * 34)));
  CHECK(GgufFile::Parse(with(kTypeQ8_0, {32, 16}, 16 * 34)));
  CheckRefused(with(kTypeQ8_0, {32, 1}, 16 * 34 - 1), Code::kBadData, "pass the end");
  CheckRefused(with(kTypeQ8_0, {32, 17}, 17 * 34), Code::kBadData, "pass the end");
  CheckRefused(with(kTypeF32, {32, 16}, 4096), Code::kBadData, "cannot be packed");
  CheckRefused(with(kTypeF16, {32, 16}, 4096), Code::kBadData, "cannot be packed");
  CheckRefused(with(kTypeI8, {32, 16}, 4096), Code::kBadData, "cannot be packed");
  CheckRefused(with(kTypeQ8_0, {32}, 16 * 34), Code::kBadData, "cannot be packed");
  CheckRefused(with(kTypeQ8_0, {32, 16, 1}, 16 * 34), Code::kBadData, "cannot be packed");
  CheckRefused(with(kTypeQ8_0, {33, 16}, 4096), Code::kBadData, "blocks");
  CheckRefused(with(kTypeQ8_0, {1ull << 62, 1}, 4096), Code::kBadData, "overflows");
  CheckRefused(with(4, {32, 16}, 4096), Code::kUnsupported, "type number");
  CheckRefused(with(0xFFFF, {32, 16}, 4096), Code::kUnsupported, "type number");
  CheckRefused(WithTensors({{.dims = {32, 16}, .type = kTypeQ8_0 | 0x4556'0000}}, 4096),
               Code::kUnsupported, "type number");
  CheckRefused(
      WithTensors({{.dims = {32, 1}, .type = packed(kTypeQ8_0)}, {.name = "u", .offset = 64}},
                  1024),
      Code::kBadData, "overlap");
}
