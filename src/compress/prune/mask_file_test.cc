#include "compress/prune/mask_file.h"

#include <doctest/doctest.h>

#include <fstream>
#include <iterator>

#include "base/rng.h"
#include "compress/prune/problem.h"
#include "model/tiny_model.h"
#include "tests/test_data.h"

namespace edgewise {
namespace {

Mask RandomMask(size_t rows, size_t columns, uint64_t seed) {
  Rng rng(seed);
  Mask mask(rows, columns, false);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < columns; ++c) mask.KeepIf(rng.Below(2) == 0, r, c);
  }
  return mask;
}

void WriteMasks(const std::string& path, const std::vector<MaskedWeight>& weights, uint64_t seed) {
  auto writer = MaskWriter::Create(path, true, Metadata(), weights);
  REQUIRE(writer);
  for (size_t i = weights.size(); i-- > 0;) {  // any order
    REQUIRE(writer->Write(i, RandomMask(weights[i].rows, weights[i].columns, seed + i)));
  }
  REQUIRE(writer->Finish());
}

const std::vector<MaskedWeight> kWeights = {
    {"a.weight", 5, 172}, {"b.weight", 3, 64}, {"c.weight", 1, 1}};

std::string ReadBytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST_CASE("a mask file gives back its masks") {
  const TemporaryFolder folder;
  WriteMasks(folder / "mask.gguf", kWeights, 1);
  auto opened = GgufFile::Open(folder / "mask.gguf");
  REQUIRE(opened);
  CHECK(MaskFile::Is(opened->metadata()));
  const auto file = MaskFile::Create(*std::move(opened), "mask.gguf");
  REQUIRE_MESSAGE(file, (file ? "" : file.error().message));
  REQUIRE(file->weights().size() == kWeights.size());
  for (size_t i = 0; i < kWeights.size(); ++i) {
    CHECK(file->weights()[i].name == kWeights[i].name);
    const auto mask = file->Load(i);
    REQUIRE(mask);
    CHECK(*mask == RandomMask(kWeights[i].rows, kWeights[i].columns, 1 + i));
  }
}

TEST_CASE("masks together keep what all keep") {
  const TemporaryFolder folder;
  WriteMasks(folder / "one.gguf", kWeights, 1);
  WriteMasks(folder / "two.gguf", kWeights, 7);
  const std::vector<std::string> paths = {folder / "one.gguf", folder / "two.gguf"};
  const auto set = MaskSet::Open(paths);
  REQUIRE(set);
  Mask expected = RandomMask(5, 172, 1);
  expected &= RandomMask(5, 172, 7);
  const auto mask = set->Load(kWeights[0]);
  REQUIRE(mask);
  CHECK(*mask == expected);
  CHECK(Fails(set->Load({"a.weight", 5, 173}), Code::kInvalidArgument,
              "is for 5 x 172 weights and the matrix has 5 x 173"));
  CHECK(Fails(set->Load({"d.weight", 5, 172}), Code::kInvalidArgument, "has no mask for d.weight"));
}

TEST_CASE("the zeros of a model are a mask") {
  const TemporaryFolder folder;
  TinyModel model = TinyLlama();
  auto& down = model.tensors["model.layers.1.mlp.down_proj.weight"].values;
  for (size_t i = 0; i < down.size(); i += 3) down[i] = 0;
  model.Write(folder.path());
  const std::vector<std::string> paths = {folder.path()};
  const auto set = MaskSet::Open(paths);
  REQUIRE_MESSAGE(set, (set ? "" : set.error().message));
  const auto mask = set->Load({"blk.1.ffn_down.weight", 48, 40});
  REQUIRE(mask);
  CHECK(*mask == Mask::OfValues(down, 40));
  CHECK(mask->CountKept() == 48 * 40 - 640);
}

TEST_CASE("damaged mask files are refused") {
  const TemporaryFolder folder;
  const auto refused = [&](const char* type, std::vector<uint32_t> columns, DType dtype,
                           const char* part) {
    Metadata metadata;
    metadata.Set("general.type", std::string(type));
    metadata.Set("edgewise.mask.columns", MetaArray(std::move(columns)));
    auto writer =
        GgufWriter::Create(folder / "bad.gguf", true, metadata, {{"a.weight", dtype, Shape{2, 4}}});
    REQUIRE(writer);
    REQUIRE(writer->Write(std::vector<std::byte>(dtype == DType::kI8 ? 8 : 32, std::byte{255})));
    REQUIRE(writer->Finish());
    const std::string bytes = ReadBytes(folder / "bad.gguf");
    const auto file = MaskFile::Parse(std::as_bytes(std::span(bytes)));
    if (!file) return Fails(file, Code::kBadData, part);
    return Fails(file->Load(0), Code::kBadData, part);
  };
  CHECK(refused("model", {32}, DType::kI8, "not a mask file"));
  CHECK(refused("mask", {32, 32}, DType::kI8, "has 2 entries for 1 tensors"));
  CHECK(refused("mask", {33}, DType::kI8, "no mask of rows of 33 weights"));
  CHECK(refused("mask", {24}, DType::kI8, "no mask of rows of 24 weights"));
  CHECK(refused("mask", {0}, DType::kI8, "no mask of rows of 0 weights"));
  CHECK(refused("mask", {32}, DType::kF32, "no mask of rows of 32 weights"));
  CHECK(refused("mask", {31}, DType::kI8, "beyond its 31 columns"));
}

TEST_CASE("a mask tells the pattern that it follows") {
  const auto pattern = [](const Mask& mask) {
    const auto found = mask.Pattern();
    return found ? found->ToString() : std::string("none");
  };
  const auto every = [](size_t columns, size_t keep, size_t group) {
    Mask mask(6, columns, false);
    for (size_t r = 0; r < 6; ++r) {
      for (size_t c = 0; c < columns; ++c) mask.KeepIf((c + r) % group < keep, r, c);
    }
    return mask;
  };
  CHECK(pattern(every(64, 2, 4)) == "2:4");
  CHECK(pattern(every(64, 1, 4)) == "1:4");
  CHECK(pattern(every(64, 4, 8)) == "4:8");
  CHECK(pattern(every(64, 3, 16)) == "3:16");
  CHECK(pattern(Mask(6, 64, true)) == "none");
  CHECK(pattern(Mask(6, 64, false)) == "none");
  CHECK(pattern(RandomMask(50, 64, 3)) == "none");
  Mask rounded = every(64, 2, 4);
  rounded.Prune(0, 0);  // a weight that was kept, and is 0 in the file
  CHECK(pattern(rounded) == "2:4");
}

}  // namespace
}  // namespace edgewise
