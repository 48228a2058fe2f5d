// Pruning our own model: every method, what it leaves, and what it costs.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "engine/drafter.h"
#include "engine/session.h"
#include "pipeline/pruned_stories.h"

namespace edgewise {
namespace {

Amount Of(const char* text) {
  const auto amount = Amount::Parse(text);
  REQUIRE(amount);
  return *amount;
}

PruneJobOptions Without(const char* method, const StructureRequest& request, bool repair = true) {
  PruneJobOptions options;
  const auto parsed = ParseStructureMethod(method);
  REQUIRE(parsed);
  options.structure = StructureOptions{.method = *parsed, .request = request, .repair = repair};
  if (NeedsText(*options.structure)) options.calibration.path = Stories().text();
  options.overwrite = true;
  return options;
}

TEST_CASE("every method prunes what was asked for, and better ones lose less") {
  const TemporaryFolder folder;
  for (const char* sparsity : {"50%", "2:4", "4:8"}) {
    std::map<std::string, double> kl;
    for (const char* method : {"random", "magnitude", "wanda", "ria", "sparsegpt", "alps"}) {
      CAPTURE(std::string(method));
      CAPTURE(std::string(sparsity));
      const std::string out = folder / "out.gguf";
      const PruneJobOptions options = By(method, sparsity);
      const ConvertSummary summary = MustPrune(out, options);
      CHECK(summary.density == doctest::Approx(0.5).epsilon(0.001));
      CHECK(summary.bytes == std::filesystem::file_size(out));
      CheckPruned(out, options.prune.sparsity);
      kl[method] = Divergence(out);
      MESSAGE(std::string(sparsity)
              << " " << std::string(method) << ": mean KL divergence " << kl[method]);
    }
    CHECK(kl["alps"] < kl["sparsegpt"]);
    CHECK(kl["sparsegpt"] < kl["wanda"]);
    CHECK(kl["wanda"] < kl["magnitude"]);
    CHECK(kl["ria"] < kl["magnitude"]);
    CHECK(kl["magnitude"] < kl["random"]);
  }
}

// The density of each layer's matrices together.
std::map<std::string, double> LayerDensities(const ConvertSummary& summary) {
  std::map<std::string, double> kept, all;
  for (const ConvertedTensor& tensor : summary.tensors) {
    if (!tensor.name.starts_with("blk.") || tensor.shape.rank() != 2) continue;
    const std::string layer = tensor.name.substr(0, tensor.name.find('.', 4));
    const auto weights = static_cast<double>(tensor.shape.elements());
    kept[layer] += tensor.density * weights;
    all[layer] += weights;
  }
  for (auto& [layer, density] : kept) density /= all[layer];
  return kept;
}

TEST_CASE("a global threshold parts the weights of all matrices") {
  const TemporaryFolder folder;
  const std::string out = folder / "out.gguf";
  const ConvertSummary summary = MustPrune(out, By("global-magnitude", "50%"));
  CHECK(summary.density == doctest::Approx(0.5).epsilon(1e-4));
  const auto before = Checkpoint::Open(kModel), after = Checkpoint::Open(out);
  REQUIRE((before && after));
  float most_pruned = 0, least_kept = 1e9f;
  for (const CheckpointTensor& tensor : after->tensors()) {
    if (!IsPrunable(tensor)) continue;
    const auto mine = after->Load(*after->Find(tensor.name));
    const auto source = before->Load(*before->Find(tensor.name));
    REQUIRE((mine && source));
    std::vector<float> row(tensor.shape.columns()), old(tensor.shape.columns());
    for (size_t r = 0; r < tensor.shape.rows(); ++r) {
      mine->view().DecodeRow(r, row.data());
      source->view().DecodeRow(r, old.data());
      for (size_t c = 0; c < row.size(); ++c) {
        float& edge = row[c] == 0 ? most_pruned : least_kept;
        edge = row[c] == 0 ? std::max(edge, std::fabs(old[c])) : std::min(edge, std::fabs(old[c]));
      }
    }
  }
  CHECK(most_pruned <= least_kept);
  const auto densities = LayerDensities(summary);
  CHECK(densities.begin()->second != doctest::Approx(densities.rbegin()->second).epsilon(1e-3));
}

TEST_CASE("OWL gives each layer a share of its own with the mean asked for") {
  const TemporaryFolder folder;
  PruneJobOptions options = By("wanda", "60%");
  options.prune.owl = true;
  const auto by_file = LayerDensities(MustPrune(folder / "file.gguf", options));
  options.calibration.path = Stories().text();
  const auto by_text = LayerDensities(MustPrune(folder / "text.gguf", options));
  double mean = 0, least = 1, most = 0;
  for (const auto& [layer, density] : by_file) {
    CHECK(by_text.at(layer) == doctest::Approx(density).epsilon(1e-3));
    mean += density / static_cast<double>(by_file.size());
    least = std::min(least, density);
    most = std::max(most, density);
  }
  CHECK(mean == doctest::Approx(0.4).epsilon(2e-3));
  CHECK(most - least == doctest::Approx(0.16).epsilon(2e-2));
  MESSAGE("60% wanda with OWL: mean KL divergence " << Divergence(folder / "file.gguf"));
  MustPrune(folder / "even.gguf", By("wanda", "60%"));
  MESSAGE("60% wanda: mean KL divergence " << Divergence(folder / "even.gguf"));
}

TEST_CASE("DSnoT swaps weights, and keeps as many") {
  const TemporaryFolder folder;
  std::map<std::string, double> kl;
  for (const char* method : {"magnitude", "magnitude+dsnot", "wanda", "wanda+dsnot"}) {
    CAPTURE(std::string(method));
    PruneJobOptions options = By(method, "50%");
    if (NeedsCalibration(options.prune.method)) options.calibration.path = Stories().text();
    const ConvertSummary summary = MustPrune(folder / "out.gguf", options);
    CHECK(summary.density == doctest::Approx(0.5).epsilon(1e-3));
    CheckPruned(folder / "out.gguf", options.prune.sparsity);
    kl[method] = Divergence(folder / "out.gguf");
    MESSAGE("50% " << std::string(method) << ": mean KL divergence " << kl[method]);
  }
  CHECK(kl["magnitude+dsnot"] != kl["magnitude"]);
  CHECK(kl["wanda+dsnot"] != kl["wanda"]);
}

TEST_CASE("what does not go with OWL, global thresholds and DSnoT") {
  const TemporaryFolder folder;
  const auto message = [&](const PruneJobOptions& options) {
    const auto result = Prune(kModel, folder / "out.gguf", options, nullptr);
    return result ? std::string("pruned") : result.error().message;
  };
  PruneJobOptions options = By("wanda", "2:4");
  options.prune.owl = true;
  CHECK(message(options).find("OWL spreads a share of the weights") != std::string::npos);
  options = By("magnitude", "50%");
  options.prune.owl = true;
  CHECK(message(options).find("not with magnitude") != std::string::npos);
  CHECK(message(By("global-magnitude", "2:4")).find("global-magnitude spreads") !=
        std::string::npos);
  CHECK(message(By("wanda+dsnot", "50%")).find("has no means of inputs") != std::string::npos);
}

TEST_CASE("a text prunes layer by layer; any number of threads gives the same bytes") {
  const TemporaryFolder folder;
  PruneJobOptions options = By("sparsegpt", "2:4", Stories().text());
  MustPrune(folder / "two", options);
  CheckPruned(folder / "two", options.prune.sparsity);
  options.threads = 1;
  MustPrune(folder / "one", options);
  CHECK(ReadWhole(folder / "one") == ReadWhole(folder / "two"));
  MustPrune(folder / "file", By("sparsegpt", "2:4"));
  CHECK(Divergence(folder / "two") < 1.1 * Divergence(folder / "file"));
}

TEST_CASE("pruning and rounding in one sweep beats one after the other") {
  const TemporaryFolder folder;
  const std::string sparse = folder / "sparse.gguf", out = folder / "out.gguf";
  MustPrune(sparse, By("sparsegpt", "2:4"));
  QuantizeOptions options;
  options.preset = "s24_q4";
  REQUIRE(Quantize(sparse, out, options, nullptr));
  const double one_by_one = Divergence(out);
  const auto bytes = std::filesystem::file_size(out);
  options.method = QuantizeMethod::kGptq;
  options.calibration.path = Stories().calibration();
  options.overwrite = true;
  REQUIRE(Quantize(kModel, out, options, nullptr));
  const double together = Divergence(out);
  MESSAGE("sparsegpt, then s24_q4: mean KL divergence " << one_by_one << "; gptq onto s24_q4 "
                                                        << together);
  CHECK(together < 0.9 * one_by_one);
  // The metadata tells of the calibration too.
  CHECK(std::filesystem::file_size(out) < bytes + 1000);
}

TEST_CASE("a bitmask holds what 2:4 cannot, in as many bytes, and comes back dense") {
  const TemporaryFolder folder;
  const std::string sparse = folder / "sparse.gguf", out = folder / "out.gguf",
                    dense = folder / "dense.gguf";
  const PruneJobOptions half = By("wanda", "32:64");
  MustPrune(sparse, half);
  const auto quantize = [&](const std::string& from, const char* to, QuantizeMethod method) {
    QuantizeOptions options;
    options.preset = to;
    options.method = method;
    if (method == QuantizeMethod::kGptq) options.calibration.path = Stories().calibration();
    options.overwrite = true;
    return Quantize(from, out, options, nullptr);
  };
  const QuantizeMethod rtn = QuantizeMethod::kRoundToNearest, gptq = QuantizeMethod::kGptq;
  const auto refused = quantize(sparse, "s24_q8", rtn);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message.find("more than 2 weights") != std::string::npos);
  CHECK(refused.error().message.find("--sparsity 2:4") != std::string::npos);
  const auto whole = quantize(kModel, "bm_q4", rtn);
  REQUIRE_FALSE(whole);
  CHECK(whole.error().message.find("more than 32 weights") != std::string::npos);
  CHECK(whole.error().message.find("--sparsity 32:64") != std::string::npos);

  REQUIRE(quantize(sparse, "bm_q8", rtn));
  CHECK(Divergence(out) < Divergence(sparse) + 0.02);
  ConvertOptions back;
  REQUIRE(Convert(out, dense, back, nullptr));
  const auto zeros = Checkpoint::Open(dense);
  REQUIRE(zeros);
  CHECK(zeros->tensors()[*zeros->Find("blk.0.attn_q.weight")].dtype == DType::kF16);
  CHECK(Divergence(dense) < Divergence(sparse) + 0.02);

  REQUIRE(quantize(kModel, "bm_q4", gptq));
  const double bitmask = Divergence(out);
  const auto bytes = std::filesystem::file_size(out);
  REQUIRE(quantize(kModel, "s24_q4", gptq));
  const double pairs = Divergence(out);
  MESSAGE("gptq onto bm_q4: mean KL divergence " << bitmask << "; onto s24_q4 " << pairs);
  CHECK(bitmask < 0.8 * pairs);
  CHECK(bytes <= std::filesystem::file_size(out) + 100);
}

TEST_CASE("2:4 in halves is the pruned model bit for bit, and comes back") {
  const TemporaryFolder folder;
  const std::string sparse = folder / "sparse.gguf", small = folder / "small.gguf",
                    dense = folder / "dense.gguf";
  MustPrune(sparse, By("magnitude", "2:4"));
  ConvertOptions to;
  to.to = DType::kS24_F16;
  REQUIRE(Convert(sparse, small, to, nullptr));
  CHECK(Divergence(small) == Divergence(sparse));
  REQUIRE(Convert(small, dense, ConvertOptions(), nullptr));
  const auto before = Checkpoint::Open(sparse), after = Checkpoint::Open(dense),
             held = Checkpoint::Open(small);
  REQUIRE((before && after && held));
  for (const CheckpointTensor& tensor : before->tensors()) {
    CAPTURE(tensor.name);
    CHECK((held->tensors()[*held->Find(tensor.name)].dtype == DType::kS24_F16) ==
          IsPrunable(tensor));
    const auto mine = before->Load(*before->Find(tensor.name));
    const auto its = after->Load(*after->Find(tensor.name));
    REQUIRE((mine && its));
    REQUIRE(mine->view().bytes == its->view().bytes);
    CHECK(std::memcmp(mine->view().data, its->view().data, mine->view().bytes) == 0);
  }
  ConvertOptions refused = to;
  refused.overwrite = true;
  const auto whole = Convert(kModel, small, refused, nullptr);
  REQUIRE_FALSE(whole);
  CHECK(whole.error().message.find("--sparsity 2:4") != std::string::npos);
  CHECK(whole.error().message.find("gptq") == std::string::npos);
}

TEST_CASE("what cannot be pruned") {
  const TemporaryFolder folder;
  const auto fails = [&](const std::string& model, const PruneJobOptions& options,
                         const char* part) {
    CheckRefused(model, folder / "out.gguf", options, part);
  };
  PruneJobOptions options = By("wanda", "2:4");
  options.calibration.path.clear();
  fails(kModel, options, "needs --calibration");
  options = By("magnitude", "2:4");
  options.calibration.path = Stories().text();
  fails(kModel, options, "has no use");
  fails(kModel, By("magnitude", "3:7"), "7");
  fails(kModel, By("magnitude", "0%"), "prunes nothing");
  options = By("magnitude", "50%");
  MustPrune(folder / "sparse.gguf", options);
  fails(folder / "sparse.gguf", options, "pruned already");
  QuantizeOptions to;
  REQUIRE(Quantize(kModel, folder / "q4.gguf", to, nullptr));
  fails(folder / "q4.gguf", options, "quantized already");
}

TEST_CASE("structure goes from every layer alike, the file is exact, and repair pays") {
  const TemporaryFolder folder;
  const std::string out = folder / "out.gguf";
  struct Row {
    const char* name;
    StructureRequest request;
    uint32_t layers, dim, heads, ffn;
  };
  const Row rows[] = {
      {"ffn 25%", {.ffn = Of("25%")}, 4, 256, 8, 576},
      {"heads 25%", {.heads = Of("25%")}, 4, 256, 6, 768},
      {"width 25%", {.width = Of("25%")}, 4, 192, 8, 768},
      {"one layer", {.layers = Of("1")}, 3, 256, 8, 768},
      {"all", {Of("640"), Of("7"), Of("224"), Of("25%")}, 3, 224, 7, 640},
  };
  for (const Row& row : rows) {
    CAPTURE(std::string(row.name));
    std::map<std::string, double> kl;
    for (const char* method : {"random", "magnitude", "minitron", "flap"}) {
      CAPTURE(std::string(method));
      const PruneJobOptions options = Without(method, row.request);
      const ConvertSummary summary = MustPrune(out, options);
      CHECK(summary.bytes == std::filesystem::file_size(out));
      REQUIRE(summary.structure);
      CHECK(summary.structure->notes.empty());
      const auto child = Checkpoint::Open(out);
      REQUIRE_MESSAGE(child, (child ? "" : child.error().message));
      CHECK(child->spec().n_layers == row.layers);
      CHECK(child->spec().dim == row.dim);
      CHECK(child->spec().n_heads == row.heads);
      CHECK(child->spec().n_kv_heads == row.heads);
      CHECK(child->spec().head_dim == 32);
      CHECK(child->spec().rope.rotary_dim == 32);
      CHECK(child->spec().ffn_dim == row.ffn);
      kl[method] = Divergence(out);
      MESSAGE(std::string(row.name)
              << ", " << std::string(method) << ": mean KL divergence " << kl[method]);
    }
    CHECK(kl["flap"] <= kl["random"]);  // chance may find the same layer
    if (std::string_view(row.name) == "one layer") continue;
    std::map<bool, double> repaired;
    for (const bool repair : {false, true}) {
      PruneJobOptions options = Without("flap", row.request, repair);
      options.calibration.path = Stories().long_text();
      MustPrune(out, options);
      repaired[repair] = Divergence(out);
      MESSAGE(std::string(row.name)
              << ", repair " << repair << ": mean KL divergence " << repaired[repair]);
    }
    CHECK(repaired[true] < 0.9 * repaired[false]);
  }
}

TEST_CASE("a dry run tells what goes, and any number of threads gives the same bytes") {
  const TemporaryFolder folder;
  PruneJobOptions options = Without(
      "flap", {.ffn = Of("20%"), .heads = Of("25%"), .width = Of("25%"), .layers = Of("1")});
  options.dry_run = options.estimate = true;
  const ConvertSummary plan = MustPrune(folder / "one", options);
  CHECK_FALSE(std::filesystem::exists(folder / "one"));
  CHECK(plan.estimate->seconds > 0);
  options.dry_run = options.estimate = false;
  options.threads = 1;
  const ConvertSummary done = MustPrune(folder / "one", options);
  options.threads = 2;
  MustPrune(folder / "two", options);
  CHECK(ReadWhole(folder / "one") == ReadWhole(folder / "two"));
  CHECK(plan.bytes == done.bytes);
  REQUIRE((plan.structure && done.structure));
  CHECK(plan.structure->notes.size() == 1);  // 20 % of 768 is no multiple of 32
  CHECK(plan.structure->removed_layers == done.structure->removed_layers);
  REQUIRE(plan.structure->layers.size() == 3);
  for (size_t i = 0; i < 3; ++i) {
    const LayerLoss &planned = plan.structure->layers[i], &lost = done.structure->layers[i];
    CHECK(planned.ffn.removed == lost.ffn.removed);
    CHECK(planned.ffn.error == lost.ffn.error);
    CHECK(lost.ffn.error > 0);
    CHECK(lost.ffn.error < 0.5);
    CHECK(lost.heads.score > 0);
  }
}

TEST_CASE("what is left can be pruned again, and quantized") {
  const TemporaryFolder folder;
  const std::string once = folder / "once.gguf", twice = folder / "twice.gguf",
                    sparse = folder / "sparse.gguf", small = folder / "small.gguf";
  MustPrune(once, Without("flap", {.ffn = Of("25%")}));
  REQUIRE(Prune(once, twice, Without("flap", {.heads = Of("25%")}), nullptr));
  REQUIRE(Prune(twice, sparse, By("sparsegpt", "2:4", Stories().text()), nullptr));
  QuantizeOptions options;
  options.preset = "s24_q8";
  REQUIRE(Quantize(sparse, small, options, nullptr));
  const auto child = Checkpoint::Open(small);
  REQUIRE(child);
  CHECK(child->spec().ffn_dim == 576);
  CHECK(child->spec().n_heads == 6);
  CHECK(Divergence(small) < 2);
}

TEST_CASE("a smaller child drafts for its parent, whose text stays the same") {
  const TemporaryFolder folder;
  const std::string path = folder / "child.gguf";
  MustPrune(path, Without("flap", {.ffn = Of("50%"), .heads = Of("25%"), .width = Of("25%")}));
  const auto parent = Engine::Load(kModel);
  REQUIRE(parent);
  auto child = Engine::Load(path);
  REQUIRE(child);
  const auto drafter = DraftModel::Create(*std::move(child), parent->get(), 128);
  REQUIRE(drafter);
  const auto prompt = (*parent)->tokenizer().Encode("One day, a little girl", {});
  REQUIRE(prompt);
  const auto write = [&](Drafter* with) {
    auto session = Session::Create(parent->get(), {.context = 128});
    REQUIRE(session);
    REQUIRE(session->Append(*prompt));
    GenerateOptions options;
    options.sampler.temperature = 0;
    options.max_tokens = 80;
    options.drafter = with;
    auto text = session->Generate(options);
    REQUIRE(text);
    return *std::move(text);
  };
  const Generation alone = write(nullptr), drafted = write(drafter->get());
  CHECK(drafted.ids == alone.ids);
  MESSAGE("accepted " << drafted.accepted << " of " << drafted.drafted);
  CHECK(drafted.accepted > 10);
}

TEST_CASE("structure that cannot be removed") {
  const TemporaryFolder folder;
  const auto fails = [&](const std::string& model, const PruneJobOptions& options,
                         const char* part) {
    CheckRefused(model, folder / "out.gguf", options, part);
  };
  PruneJobOptions options = Without("flap", {.ffn = Of("25%")});
  options.calibration.path.clear();
  fails(kModel, options, "--method flap needs --calibration");
  options.calibration.path = Stories().calibration();
  fails(kModel, options, "give the text");
  options = Without("magnitude", {.layers = Of("1")});
  options.calibration.path = Stories().text();
  fails(kModel, options, "has no use");
  fails(kModel, Without("flap", {.layers = Of("1")}, false), "leave nothing to repair");
  fails(kModel, Without("flap", {.ffn = Of("99.9%")}), "leaves 0 of 768");
  fails(kModel, Without("flap", {.layers = Of("4")}), "--layers 4 leaves 0 of 4 layers");
  fails(kModel, Without("flap", {.ffn = Of("512"), .multiple = 256}), "--multiple rounds");
  const std::string sparse = folder / "sparse.gguf";
  MustPrune(sparse, By("magnitude", "2:4"));
  fails(sparse, Without("flap", {.ffn = Of("25%")}), "remove structure first");
  QuantizeOptions to;
  REQUIRE(Quantize(kModel, folder / "q4.gguf", to, nullptr));
  fails(folder / "q4.gguf", Without("flap", {.ffn = Of("25%")}), "quantized already");
}

}  // namespace
}  // namespace edgewise
