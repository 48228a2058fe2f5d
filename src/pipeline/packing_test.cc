#include "pipeline/packing.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "compress/quantize/presets.h"
#include "formats/gguf.h"
#include "model/checkpoint.h"
#include "model/model.h"
#include "model/tiny_model.h"
#include "pipeline/convert.h"
#include "quant/packed.h"
#include "tests/test_data.h"

namespace edgewise {
namespace {

GgufFile MustOpen(const std::string& path) {
  auto file = GgufFile::Open(path);
  REQUIRE_MESSAGE(file, (file ? "" : file.error().message));
  return *std::move(file);
}

ConvertSummary Must(Result<ConvertSummary> summary) {
  REQUIRE_MESSAGE(summary, (summary ? "" : summary.error().message));
  return *std::move(summary);
}

void QuantizeOwn(const char* preset, const std::string& path, bool pack = false) {
  std::string model = SourcePath("models/edgewise-stories-3M");
  const auto found = FindPreset(preset);
  REQUIRE(found);
  if (const uint32_t group = Info((*found)->type).sparse_group; group > 0) {
    PruneJobOptions prune;
    prune.prune.sparsity = *Sparsity::NOfM(group / 2, group);
    Must(Prune(model, path + ".pruned", prune, nullptr));
    model = path + ".pruned";
  }
  QuantizeOptions options;
  options.preset = preset;
  options.pack = pack;
  Must(Quantize(model, path, options, nullptr));
}

// A tiny model in `type`, as far as its rows are whole blocks, and in F32.
void WriteTiny(const TinyModel& tiny, DType type, const std::string& folder,
               const std::string& path) {
  std::filesystem::create_directory(folder);
  tiny.Write(folder);
  auto checkpoint = Checkpoint::Open(folder);
  REQUIRE_MESSAGE(checkpoint, (checkpoint ? "" : checkpoint.error().message));
  std::vector<GgufTensorDecl> decls;
  for (const CheckpointTensor& tensor : checkpoint->tensors()) {
    const bool blocks = tensor.shape.rank() == 2 && tensor.shape.columns() % Info(type).block == 0;
    decls.push_back({tensor.name, blocks ? type : DType::kF32, tensor.shape});
  }
  auto writer = GgufWriter::Create(path, false, checkpoint->metadata(), decls);
  REQUIRE_MESSAGE(writer, (writer ? "" : writer.error().message));
  ThreadPool pool(1);
  for (size_t i = 0; i < decls.size(); ++i) {
    const auto tensor = checkpoint->Load(i);
    REQUIRE(tensor);
    REQUIRE(EncodeTensor(decls[i].name, tensor->view(), decls[i].dtype, {}, &pool,
                         [&](std::span<const std::byte> bytes) { return writer->Write(bytes); }));
  }
  REQUIRE(writer->Finish());
}

std::unique_ptr<Model> MustLoadModel(const std::string& path) {
  auto checkpoint = Checkpoint::Open(path);
  REQUIRE_MESSAGE(checkpoint, (checkpoint ? "" : checkpoint.error().message));
  ThreadPool pool(2);
  auto model = Model::Load(*std::move(checkpoint), &pool);
  REQUIRE_MESSAGE(model, (model ? "" : model.error().message));
  return *std::move(model);
}

std::vector<float> Logits(const Model& model) {
  ThreadPool pool(2);
  auto cache = KvCache::Create(model.spec(), 24, kernels::KvFormat::kF32);
  REQUIRE(cache);
  ForwardPass pass(model, &pool);
  const std::vector<int32_t> tokens = TinyTokens(24, model.spec().vocab_size);
  std::vector<float> logits(tokens.size() * model.spec().vocab_size);
  REQUIRE(pass.Run(tokens, &*cache, 0, logits));
  return logits;
}

// Packs `plain`, runs both, unpacks, packs again. Returns what packing counted.
PackingCount CheckRoundTrip(const std::string& plain, const std::string& folder) {
  const std::string packed = folder + "/packed.gguf", back = folder + "/back.gguf";
  PackOptions options;
  options.overwrite = true;
  const ConvertSummary summary = Must(Pack(plain, packed, options, nullptr));
  CHECK(summary.bytes == std::filesystem::file_size(packed));
  Must(Unpack(packed, back, options, nullptr));
  const GgufFile a = MustOpen(plain), b = MustOpen(packed), c = MustOpen(back);
  size_t marked = 0;
  for (const NamedTensor& tensor : a.tensors().all()) {
    CAPTURE(tensor.name);
    const TensorView &from = tensor.view, &other = *b.tensors().Find(tensor.name),
                     &to = *c.tensors().Find(tensor.name);
    CHECK(to.layout == TensorLayout::kRows);
    CHECK(to.dtype == from.dtype);
    CHECK(std::ranges::equal(to.as_bytes(), from.as_bytes()));
    if (other.layout == TensorLayout::kPacked) ++marked;
    std::vector<std::byte> blocks(from.bytes);
    other.CopyBlocks(0, from.shape.elements(), blocks.data());
    CHECK(std::ranges::equal(blocks, from.as_bytes()));
  }
  CHECK(marked == summary.packing.packed);
  CHECK(c.metadata().GetUint("general.file_type", 99).value_or(98) ==
        a.metadata().GetUint("general.file_type", 99).value_or(97));

  const auto rows = MustLoadModel(plain), model = MustLoadModel(packed);
  CHECK((model->copied_bytes() == 0) == (summary.packing.left == 0));
  CHECK(rows->copied_bytes() > 0);
  CHECK(Logits(*model) == Logits(*rows));
  return summary.packing;
}

TEST_CASE("every block format: packed files run the same, copy nothing and unpack to the bytes") {
  for (const char* preset :
       {"q2_k", "q3_k_m", "q4_k_m", "q5_k_m", "q6_k", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1",
        "iq4_nl", "iq4_xs", "s24_q4", "s24_q8", "bm_q4", "bm_q8"}) {
    CAPTURE(preset);
    TemporaryFolder folder;
    QuantizeOwn(preset, folder / "plain.gguf");
    const PackingCount count = CheckRoundTrip(folder / "plain.gguf", folder.path());
    CHECK(count.packed == 4 * 7 + 1);  // the embedding is tied
    CHECK(count.left == 0);
  }
}

TEST_CASE("rows that are no multiple of 16, and an embedding that is looked up only") {
  TemporaryFolder folder;
  TinySizes sizes;
  sizes.dim = 64;
  sizes.head_dim = 8;
  sizes.ffn = 96;
  const TinyModel tiny = TinyWeights(TinyConfig("LlamaForCausalLM", "llama", sizes), sizes, {}, 4);
  WriteTiny(tiny, DType::kQ5_0, folder / "hf", folder / "plain.gguf");
  const PackingCount count = CheckRoundTrip(folder / "plain.gguf", folder.path());
  CHECK(count.packed == 3 * 7 + 1);
  CHECK(count.left == 0);
  const GgufFile packed = MustOpen(folder / "packed.gguf");
  CHECK(packed.tensors().Find("token_embd.weight")->layout == TensorLayout::kRows);
  const TensorView& head = *packed.tensors().Find("output.weight");  // 37 rows
  CHECK(head.layout == TensorLayout::kPacked);
  CHECK(head.bytes == PackedBytes(DType::kQ5_0, 37, 64));
}

TinyModel TinyPhi3(const TinySizes& sizes) {
  Json config = TinyConfig("Phi3ForCausalLM", "phi3", sizes);
  return TinyWeights(config, sizes, {.fused = true}, 5);
}

TEST_CASE("fused tensors are packed where every layer in them begins at a multiple of 16 rows") {
  TinySizes sizes;
  sizes.dim = 64;
  sizes.heads = 4;
  sizes.kv_heads = 2;
  sizes.head_dim = 16;
  sizes.ffn = 96;
  SUBCASE("all of them do") {
    TemporaryFolder folder;
    WriteTiny(TinyPhi3(sizes), DType::kQ8_0, folder / "hf", folder / "plain.gguf");
    const PackingCount count = CheckRoundTrip(folder / "plain.gguf", folder.path());
    CHECK(count.packed == 3 * 4 + 1);
    CHECK(count.left == 0);
  }
  SUBCASE("one does not: it stays in rows") {
    TemporaryFolder folder;
    sizes.ffn = 104;  // feed-forward rows of 104 values are stored in F32
    WriteTiny(TinyPhi3(sizes), DType::kQ8_0, folder / "hf", folder / "plain.gguf");
    const PackingCount count = CheckRoundTrip(folder / "plain.gguf", folder.path());
    CHECK(count.packed == 3 * 2 + 1);
    CHECK(count.left == 3);
    const ConvertSummary summary =
        Must(Pack(folder / "plain.gguf", folder / "again.gguf", {}, nullptr));
    for (const ConvertedTensor& tensor : summary.tensors) {
      if (tensor.name.ends_with("ffn_up.weight")) {
        CHECK(tensor.layout == TensorLayout::kRows);
        CHECK(tensor.reason.find("row 104") != std::string::npos);
      }
    }
  }
}

TEST_CASE("quantize packs at once, and treats a packed file as the plain one") {
  TemporaryFolder folder;
  QuantizeOwn("q8_0", folder / "plain.gguf");
  QuantizeOwn("q8_0", folder / "direct.gguf", true);
  Must(Pack(folder / "plain.gguf", folder / "packed.gguf", {}, nullptr));
  QuantizeOptions options;
  options.preset = "q4_0";
  options.allow_requantize = true;
  Must(Quantize(folder / "plain.gguf", folder / "a.gguf", options, nullptr));
  Must(Quantize(folder / "packed.gguf", folder / "b.gguf", options, nullptr));
  Must(Convert(folder / "plain.gguf", folder / "c.gguf", {}, nullptr));
  Must(Convert(folder / "packed.gguf", folder / "d.gguf", {}, nullptr));
  const auto same = [&](const char* x, const char* y) {
    const GgufFile one = MustOpen(folder / x), two = MustOpen(folder / y);
    for (const NamedTensor& tensor : one.tensors().all()) {
      const TensorView& other = *two.tensors().Find(tensor.name);
      CHECK(other.dtype == tensor.view.dtype);
      CHECK(other.layout == tensor.view.layout);
      CHECK(std::ranges::equal(other.as_bytes(), tensor.view.as_bytes()));
    }
  };
  same("packed.gguf", "direct.gguf");
  same("a.gguf", "b.gguf");
  same("c.gguf", "d.gguf");
  options.allow_requantize = false;
  const auto refused = Quantize(folder / "packed.gguf", folder / "e.gguf", options, nullptr);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message.find("--allow-requantize") != std::string::npos);
}

TEST_CASE("what cannot be packed or unpacked is refused, and nothing is written") {
  TemporaryFolder folder;
  const std::string own = SourcePath("models/edgewise-stories-3M"), out = folder / "out.gguf";
  Must(Convert(own, folder / "half.gguf", {}, nullptr));
  QuantizeOwn("q4_0", folder / "packed.gguf", true);
  const auto refused = [&](const Result<ConvertSummary>& result, const char* part) {
    REQUIRE_FALSE(result);
    CAPTURE(result.error().message);
    CHECK(result.error().code == Code::kInvalidArgument);
    CHECK(result.error().message.find(part) != std::string::npos);
    CHECK_FALSE(std::filesystem::exists(out));
  };
  refused(Pack(own, out, {}, nullptr), "not a GGUF");
  refused(Pack(folder / "half.gguf", out, {}, nullptr), "nothing to pack");
  refused(Pack(folder / "packed.gguf", out, {}, nullptr), "packed already");
  refused(Unpack(folder / "half.gguf", out, {}, nullptr), "nothing in it is packed");
  QuantizeOptions options;
  options.preset = "f16";
  options.pack = true;
  refused(Quantize(own, out, options, nullptr), "nothing to pack");
}

TEST_CASE("a packed file whose layers begin inside 16 rows is refused when it is loaded") {
  TemporaryFolder folder;
  TinySizes sizes;
  sizes.dim = 64;
  sizes.head_dim = 8;
  WriteTiny(TinyPhi3(sizes), DType::kQ8_0, folder / "hf", folder / "plain.gguf");
  const GgufFile plain = MustOpen(folder / "plain.gguf");
  std::vector<GgufTensorDecl> decls;
  for (const NamedTensor& tensor : plain.tensors().all()) {
    const bool fused = tensor.name.ends_with("ffn_up.weight");
    decls.push_back({tensor.name, tensor.view.dtype, tensor.view.shape,
                     fused ? TensorLayout::kPacked : TensorLayout::kRows});
  }
  auto writer = GgufWriter::Create(folder / "bad.gguf", false, plain.metadata(), decls);
  REQUIRE(writer);
  for (const NamedTensor& tensor : plain.tensors().all()) {
    REQUIRE(writer->Write(tensor.view.as_bytes()));  // 80 rows: no padding
  }
  REQUIRE(writer->Finish());
  auto checkpoint = Checkpoint::Open(folder / "bad.gguf");
  REQUIRE(checkpoint);
  ThreadPool pool(1);
  const auto model = Model::Load(*std::move(checkpoint), &pool);
  REQUIRE_FALSE(model);
  CHECK(model.error().code == Code::kBadData);
  CHECK(model.error().message.find("row 40") != std::string::npos);
}

TEST_CASE("rows come in pieces of any size") {
  const size_t columns = 64, row_bytes = Info(DType::kQ4_1).RowBytes(columns);
  std::vector<std::byte> rows(37 * row_bytes);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::byte>(i * 31);
  std::vector<std::byte> expected(PackedBytes(DType::kQ4_1, 37, columns));
  for (size_t r = 0; r < 37; r += 16) {
    PackGroup(DType::kQ4_1, rows.data() + r * row_bytes, row_bytes, std::min<size_t>(16, 37 - r),
              columns, expected.data() + r * row_bytes);
  }
  for (const size_t piece : {size_t{1}, size_t{7}, row_bytes, 20 * row_bytes, rows.size()}) {
    std::vector<std::byte> out;
    const auto sink = [&](std::span<const std::byte> bytes) -> Status {
      out.insert(out.end(), bytes.begin(), bytes.end());
      return Ok{};
    };
    RowPacker packer(DType::kQ4_1, {37, columns});
    for (size_t at = 0; at < rows.size(); at += piece) {
      const size_t size = std::min(piece, rows.size() - at);
      REQUIRE(packer.Write(std::span(rows).subspan(at, size), sink));
    }
    REQUIRE(packer.Finish(sink));
    CHECK(out == expected);
  }
}

}  // namespace
}  // namespace edgewise
