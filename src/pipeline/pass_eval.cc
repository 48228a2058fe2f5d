#include "pipeline/pass_eval.h"

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/strings.h"
#include "formats/gguf_header.h"
#include "pipeline/compress.h"
#include "pipeline/estimate.h"
#include "pipeline/pass_arguments.h"
#include "pipeline/quality_card.h"

namespace edgewise {
namespace {

constexpr uint64_t kMaxCardBytes = 1u << 20;

// Tensor bytes in bits for each parameter.
double BitsPerWeight(const std::vector<ConvertedTensor>& tensors) {
  uint64_t bytes = 0, parameters = 0;
  for (const ConvertedTensor& tensor : tensors) {
    bytes += tensor.bytes;
    parameters += tensor.shape.elements();
  }
  return 8.0 * static_cast<double>(bytes) / static_cast<double>(parameters);
}

bool WithDense(const Json& arguments, const Recipe& recipe) {
  return FindStep(recipe, "prune") != nullptr && FlagOr(arguments, "dense", true);
}

// Makes the model of the recipe without pruning, in the formats that cost least in the bytes that
// the recipe's output takes.
Recipe DenseRecipe(const PassContext& context, const PassState& state) {
  uint64_t bytes = context.header_bytes;
  for (const ConvertedTensor& tensor : state.tensors) {
    bytes += AlignUp(tensor.bytes, kGgufDefaultAlignment);
  }
  Recipe recipe = context.recipe;
  // The journal is not there in a dry run.
  if (!context.dry_run) recipe.output = context.stem + "-dense.gguf";
  recipe.pass_files.clear();
  recipe.passes.clear();
  Json quantize;
  quantize.Set("target_bytes", bytes).Set("method", "gptq");
  Json passes{JsonArray{}};
  passes.Append("calibrate").Append(Json().Set("quantize", quantize)).Append("eval");
  recipe.json.Set("passes", std::move(passes));
  recipe.passes.push_back({FindPass("calibrate"), Json{JsonObject{}}});
  recipe.passes.push_back({FindPass("quantize"), std::move(quantize)});
  recipe.passes.push_back({FindPass("eval"), Json{JsonObject{}}});
  return recipe;
}

// The plan of the dense model, or nothing where no mixture of formats takes so many bytes.
Result<std::optional<CompressSummary>> PlanDense(const Recipe& recipe, const PassContext& context,
                                                 bool estimate) {
  auto plan = PlanCompression(recipe, context.threads, estimate, context.progress);
  if (plan) return std::optional(*std::move(plan));
  if (plan.error().code == Code::kInvalidArgument) return std::optional<CompressSummary>();
  return std::move(plan).error();
}

Status MeasureDense(const PassContext& context, PassState* state) {
  const Recipe recipe = DenseRecipe(context, *state);
  EW_TRY(const auto plan, PlanDense(recipe, context, false));
  if (!plan) {
    SetDenseCard(Json(), 0, &state->card);
    return Ok{};
  }
  CompressOptions options;
  options.threads = context.threads;
  options.resume = options.overwrite = true;
  EW_TRY(const CompressSummary dense, Compress(recipe, options, context.progress).In("dense"));
  SetDenseCard(dense.card, dense.bytes, &state->card);
  std::error_code ignored;
  std::filesystem::remove(recipe.output, ignored);
  return Ok{};
}

Status PlanEval(const CardRequest& request, bool dense, const PassContext& context,
                PassState* state) {
  state->card = PlaceholderCard(context.recipe.evaluation, dense);
  if (!context.estimate) return Ok{};
  EW_TRY(const Cost cost, EstimateCard(request, state->tensors));
  state->cost = Then(state->cost, cost);
  if (!dense) return Ok{};
  EW_TRY(const auto plan, PlanDense(DenseRecipe(context, *state), context, true));
  if (plan) state->cost = Then(state->cost, *plan->estimate);
  return Ok{};
}

}  // namespace

Status CheckEval(const Json& arguments, const Recipe& recipe, SectionUse* use) {
  if (recipe.evaluation.path.empty()) {
    return MakeError(Code::kBadData, "the recipe has no evaluation text");
  }
  use->evaluation = true;
  if (FindStep(recipe, "prune") == nullptr) {
    if (arguments.Find("dense") == nullptr) return Ok{};
    return MakeError(Code::kBadData, "dense has no use without prune");
  }
  if (!WithDense(arguments, recipe)) return Ok{};
  if (recipe.calibration.path.empty()) {
    return MakeError(Code::kBadData,
                     "a pruned model is compared with the dense one in as many bytes, which takes "
                     "a calibration text: give one, or `eval: {dense: false}`");
  }
  use->calibration = true;
  return Ok{};
}

Status RunEval(const Json& arguments, const PassContext& context, PassState* state) {
  const Recipe& recipe = context.recipe;
  const bool dense = WithDense(arguments, recipe);
  CardRequest request;
  request.base_path = recipe.model;
  request.model_path = state->model.path();
  request.tokenizer_path = recipe.tokenizer;
  request.text = &recipe.evaluation;
  request.bits_per_weight = BitsPerWeight(state->tensors);
  request.threads = context.threads;
  if (context.dry_run) return PlanEval(request, dense, context, state);
  const std::string path = context.stem + ".json";
  if (FileExists(path)) {
    EW_TRY(const std::string text, ReadFile(path, kMaxCardBytes));
    EW_TRY(state->card, ParseJson(text).In(path));
    return Ok{};
  }
  EW_TRY(state->card, MeasureCard(request, context.progress));
  if (dense) EW_TRY(MeasureDense(context, state));
  EW_TRY(AtomicFile file, AtomicFile::Create(path, true));
  EW_TRY(file.Write(state->card.Dump()));
  return file.Commit();
}

}  // namespace edgewise
