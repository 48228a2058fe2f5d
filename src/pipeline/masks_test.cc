// Masks from and to files, predictions, orders of channels, schedules and resumed jobs of pruning.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <string>

#include "compress/prune/mask_file.h"
#include "formats/gguf.h"
#include "pipeline/pruned_stories.h"
#include "pipeline/write_pruned.h"

namespace edgewise {
namespace {

PruneJobOptions ByMasks(std::vector<std::string> masks) {
  PruneJobOptions options;
  options.prune.method = PruneMethod::kMask;
  options.masks = std::move(masks);
  options.overwrite = true;
  return options;
}

// Checks that two files hold the same tensors.
void CheckSameTensors(const std::string& one, const std::string& two) {
  const auto a = GgufFile::Open(one), b = GgufFile::Open(two);
  REQUIRE((a && b));
  for (const NamedTensor& tensor : a->tensors().all()) {
    CAPTURE(tensor.name);
    const TensorView* other = b->tensors().Find(tensor.name);
    REQUIRE(other);
    CHECK(std::ranges::equal(tensor.view.as_bytes(), other->as_bytes()));
  }
}

TEST_CASE("a mask file and the zeros of a model say the same") {
  const TemporaryFolder folder;
  const std::string sparse = folder / "sparse.gguf", mask = folder / "mask.gguf",
                    out = folder / "out.gguf";
  PruneJobOptions options = By("ria", "2:4");
  options.save_mask = mask;
  MustPrune(sparse, options);
  const auto opened = GgufFile::Open(mask);
  REQUIRE((opened && MaskFile::Is(opened->metadata())));
  CHECK(std::filesystem::file_size(mask) < std::filesystem::file_size(sparse) / 16);
  for (const std::string& source : {mask, sparse}) {
    CAPTURE(source);
    const ConvertSummary summary = MustPrune(out, ByMasks({source}));
    CHECK(summary.density == doctest::Approx(0.5).epsilon(1e-3));
    CheckSameTensors(sparse, out);
  }
}

TEST_CASE("of several masks a weight stays where all keep it") {
  const TemporaryFolder folder;
  MustPrune(folder / "a.gguf", By("ria", "50%"));
  MustPrune(folder / "b.gguf", By("magnitude", "50%"));
  const ConvertSummary both =
      MustPrune(folder / "out.gguf", ByMasks({folder / "a.gguf", folder / "b.gguf"}));
  CHECK(both.density < 0.5);
  CHECK(both.density > 0.25);
  const auto a = Checkpoint::Open(folder / "a.gguf"), b = Checkpoint::Open(folder / "b.gguf"),
             out = Checkpoint::Open(folder / "out.gguf");
  REQUIRE((a && b && out));
  for (const CheckpointTensor& tensor : out->tensors()) {
    if (!IsPrunable(tensor)) continue;
    const auto values = [&](const Checkpoint& model) {
      const auto loaded = model.Load(*model.Find(tensor.name));
      REQUIRE(loaded);
      std::vector<float> floats(tensor.shape.elements());
      loaded->view().Decode(0, floats.size(), floats.data());
      return Mask::OfValues(floats, tensor.shape.columns());
    };
    Mask expected = values(*a);
    expected &= values(*b);
    CHECK(expected == values(*out));
  }
}

TEST_CASE("masks that do not fit") {
  const TemporaryFolder folder;
  const std::string out = folder / "out.gguf";
  CheckRefused(kModel, out, ByMasks({}), "needs --mask FILE");
  PruneJobOptions options = By("magnitude", "50%");
  options.masks = {kModel};
  CheckRefused(kModel, out, options, "--mask goes with --method mask only");
  CheckRefused(kModel, out, ByMasks({kModel}), "keep every weight");
  PruneJobOptions smaller;
  smaller.structure = StructureOptions{.method = StructureMethod::kMagnitude,
                                       .request = {.ffn = *Amount::Parse("25%")},
                                       .repair = false};
  smaller.overwrite = true;
  MustPrune(folder / "small.gguf", smaller);
  CheckRefused(kModel, out, ByMasks({folder / "small.gguf"}),
               "is for 576 x 256 weights and the matrix has 768 x 256");
  options = By("magnitude", "50%");
  options.save_mask = folder / "mask.gguf";
  MustPrune(out, options);
  std::filesystem::remove(out);
  options.overwrite = false;
  CheckRefused(kModel, out, options, "mask.gguf");  // exists
  options.save_mask = out;
  options.overwrite = true;
  CheckRefused(kModel, out, options, "would replace the model");
}

TEST_CASE("a dry run predicts what goes and the error of each output") {
  const TemporaryFolder folder;
  struct Row {
    const char* method;
    bool text;
    double tolerance;  // of the weights' error, against the real one
  };
  for (const Row& row :
       {Row{"ria", false, 1e-3}, Row{"sparsegpt", false, 0.15}, Row{"wanda", true, 0.05},
        Row{"wanda+dsnot", true, 0.3}, Row{"sparsegpt", true, 0.2}}) {
    CAPTURE(std::string(row.method));
    CAPTURE(row.text);
    PruneJobOptions options = By(row.method, "50%", row.text ? Stories().text() : "");
    options.dry_run = options.predict = true;
    const ConvertSummary plan = MustPrune(folder / "out.gguf", options);
    CHECK(std::filesystem::is_empty(folder.path()));
    options.dry_run = options.predict = false;
    const ConvertSummary done = MustPrune(folder / "out.gguf", options);
    CHECK(plan.density == doctest::Approx(done.density).epsilon(1e-2));
    for (size_t i = 0; i < done.tensors.size(); ++i) {
      const ConvertedTensor &planned = plan.tensors[i], &real = done.tensors[i];
      CAPTURE(real.name);
      CHECK(planned.density == doctest::Approx(real.density).epsilon(2e-2));
      if (real.density == 1) continue;
      CHECK(planned.relative_rmse == doctest::Approx(real.relative_rmse).epsilon(row.tolerance));
      CHECK(planned.output_error > 0.02);
      CHECK(planned.output_error < 0.8);
    }
    std::filesystem::remove(folder / "out.gguf");
  }
}

TEST_CASE("an order of channels keeps the pattern, and needs the text") {
  const TemporaryFolder folder;
  const std::string out = folder / "out.gguf";
  PruneJobOptions options = By("ria", "2:4", Stories().text());
  MustPrune(out, options);
  const double plain = Divergence(out);
  options.prune.permute = true;
  const ConvertSummary summary = MustPrune(out, options);
  CHECK(summary.density == doctest::Approx(0.5).epsilon(1e-3));
  const double permuted = Divergence(out);
  MESSAGE("2:4 ria: mean KL divergence " << plain << ", permuted " << permuted);
  CHECK(permuted != plain);
  CHECK(permuted < 1.1 * plain);
  std::filesystem::remove(out);
  options.calibration.path = Stories().calibration();
  CheckRefused(kModel, out, options, "give the text");
  options = By("ria", "50%", Stories().text());
  options.prune.permute = true;
  CheckRefused(kModel, out, options, "helps N:M sparsity");
}

TEST_CASE("several steps end at the sparsity asked for") {
  const TemporaryFolder folder;
  const std::string out = folder / "out.gguf";
  for (const auto& [method, sparsity] :
       {std::pair("wanda", "62.5%"), {"sparsegpt", "62.5%"}, {"alps", "2:4"}}) {
    CAPTURE(std::string(method));
    PruneJobOptions options = By(method, sparsity, Stories().text());
    MustPrune(out, options);
    const double at_once = Divergence(out);
    options.prune.steps = 3;
    MustPrune(out, options);
    CheckPruned(out, options.prune.sparsity);
    MESSAGE(std::string(sparsity) << " " << std::string(method) << ": mean KL divergence "
                                  << at_once << ", in steps " << Divergence(out));
    std::filesystem::remove(out);
    CHECK(std::filesystem::is_empty(folder.path()));
  }
  PruneJobOptions options = By("magnitude", "62.5%");
  options.prune.steps = 2;
  CheckRefused(kModel, out, options, "not with magnitude");
  options = By("wanda", "62.5%");
  options.prune.steps = 2;
  CheckRefused(kModel, out, options, "give the text");
}

TEST_CASE("a job that was stopped goes on with the first tensor that is not pruned") {
  const TemporaryFolder folder;
  const std::string out = folder / "out.gguf", journal = folder / "journal";
  struct Row {
    const char *method, *sparsity;
    bool text;
    uint32_t steps;
  };
  for (const Row& row : {Row{"sparsegpt", "2:4", false, 1}, Row{"sparsegpt", "50%", true, 1},
                         Row{"global-magnitude", "50%", false, 1}, Row{"wanda", "2:4", true, 2}}) {
    CAPTURE(std::string(row.method));
    PruneJobOptions options =
        By(row.method, row.sparsity, row.text ? Stories().text() : std::string());
    options.prune.steps = row.steps;
    const ConvertSummary whole = MustPrune(folder / "whole.gguf", options);
    options.journal_path = journal;
    MustPrune(out, options);
    CHECK(ReadWhole(out) == ReadWhole(folder / "whole.gguf"));
    const uint64_t bytes = std::filesystem::file_size(journal);
    for (const double share : {0.0, 0.3, 0.77, 1.0}) {
      CAPTURE(share);
      std::filesystem::resize_file(journal,
                                   static_cast<uint64_t>(share * static_cast<double>(bytes)));
      if (row.steps > 1) {
        std::filesystem::resize_file(StepPath(journal, 0), static_cast<uint64_t>(2e6 * share));
      }
      const ConvertSummary resumed = MustPrune(out, options);
      CHECK(ReadWhole(out) == ReadWhole(folder / "whole.gguf"));
      CHECK(std::filesystem::file_size(journal) == bytes);
      CHECK(resumed.density == doctest::Approx(whole.density).epsilon(1e-12));
      for (size_t i = 0; i < whole.tensors.size(); ++i) {
        CHECK(resumed.tensors[i].relative_rmse ==
              doctest::Approx(whole.tensors[i].relative_rmse).epsilon(1e-6));
      }
    }
    std::filesystem::remove(journal);
    std::filesystem::remove(StepPath(journal, 0));
  }
}

}  // namespace
}  // namespace edgewise
