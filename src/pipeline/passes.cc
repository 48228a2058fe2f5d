#include <algorithm>
#include <filesystem>
#include <utility>

#include "base/file.h"
#include "base/strings.h"
#include "compress/quantize/presets.h"
#include "formats/gguf.h"
#include "pipeline/calibrate.h"
#include "pipeline/estimate.h"
#include "pipeline/packing.h"
#include "pipeline/pass.h"
#include "pipeline/pass_arguments.h"
#include "pipeline/pass_distill.h"
#include "pipeline/pass_eval.h"
#include "pipeline/pass_prune.h"
#include "pipeline/target.h"
#include "pipeline/write_model.h"

namespace edgewise {
namespace {

// Rotation: nothing is written; the tensors are rotated as they are loaded.

Status CheckRotate(const Json&, const Recipe& recipe, SectionUse*) {
  if (!LeavesZeros(recipe)) return Ok{};
  return MakeError(Code::kBadData, "put rotate before prune: a rotation would fill the zeros");
}

Status RunRotate(const Json&, const PassContext& context, PassState* state) {
  EW_TRY(RotateSource(false, &state->model).In(context.recipe.model));
  return Ok{};
}

constexpr RecipeKey kCalibrateKeys[] = {
    {"hessians", KeyType::kFlag, "second moments too, which gptq needs (default true)"},
};

bool WithHessians(const Json& arguments) { return FlagOr(arguments, "hessians", true); }

Status CheckCalibrate(const Json&, const Recipe& recipe, SectionUse* use) {
  if (recipe.calibration.path.empty()) {
    return MakeError(Code::kBadData, "the recipe has no calibration text");
  }
  use->calibration = true;
  return Ok{};
}

Status RunCalibrate(const Json& arguments, const PassContext& context, PassState* state) {
  const std::string path = context.stem + ".gguf";
  RunCalibrationOptions options;
  options.text = context.recipe.calibration;
  options.hessians = WithHessians(arguments);
  options.tokenizer_path = context.recipe.tokenizer;
  options.threads = context.threads;
  options.source = &context.source;
  if (context.dry_run) {
    if (!context.estimate) return Ok{};
    EW_TRY(auto estimate, EstimateCalibration(state->model, context.recipe.output, options));
    state->cost = Then(state->cost, estimate.cost);
    state->planned_calibration = std::move(estimate.trial);
    return Ok{};
  }
  state->calibration = path;
  if (FileExists(path)) return Ok{};
  options.resume = FileExists(CalibrationPartPath(path));
  EW_TRY(RunCalibration(state->model, path, options, context.progress));
  return Ok{};
}

constexpr RecipeKey kQuantizeKeys[] = {
    {"to", KeyType::kText, "mixture of formats: q4_k_m, q4_0, ..."},
    {"target_bytes", KeyType::kCount,
     "in place of to: the formats that cost least in an output of so many bytes", false, 1},
    {"target_bpw", KeyType::kNumber, "the same in bits for each weight: bytes * 8 / weights"},
    {"method", KeyType::kText, "how values are chosen (default rtn)"},
    {"tensor_types", KeyType::kTexts, "REGEX=FORMAT for the tensors whose name matches"},
    {"output_type", KeyType::kText, "format of output.weight"},
    {"embedding_type", KeyType::kText, "format of token_embd.weight"},
    {"leave_output", KeyType::kFlag, "do not quantize output.weight"},
    {"pure", KeyType::kFlag, "one format for every matrix, no mixture"},
    {"allow_requantize", KeyType::kFlag, "accept a model that is quantized already"},
};

Result<std::optional<DType>> ReadFormat(const Json& arguments, const char* key) {
  std::optional<DType> type;
  if (arguments.Find(key)) {
    EW_TRY(type, ParseFormat(TextOr(arguments, key, "")).In(key));
  }
  return type;
}

Result<QuantizeOptions> ReadQuantize(const Json& arguments) {
  QuantizeOptions options;
  const Json *to = arguments.Find("to"), *bytes = arguments.Find("target_bytes"),
             *bpw = arguments.Find("target_bpw");
  if ((to != nullptr) + (bytes != nullptr) + (bpw != nullptr) != 1) {
    return MakeError(Code::kBadData, "give one of to, target_bytes and target_bpw");
  }
  options.preset.clear();
  if (to != nullptr) {
    EW_TRY(const Preset* preset, FindPreset(*to->AsString()));
    options.preset = preset->name;
  }
  if (bytes != nullptr) options.target_bytes = *bytes->AsUint();
  if (bpw != nullptr) {
    options.target_bpw = *bpw->AsDouble();
    if (!(options.target_bpw > 0 && options.target_bpw <= 32)) {
      return MakeError(Code::kBadData, "target_bpw must be above 0 and at most 32");
    }
  }
  if (arguments.Find("method")) EW_TRY(ParseMethod(TextOr(arguments, "method", ""), &options));
  if (options.rotate) {
    return MakeError(Code::kBadData, "method %s: rotation is a pass of its own; put rotate before",
                     Quote(TextOr(arguments, "method", "")).c_str());
  }
  if (const Json* types = arguments.Find("tensor_types")) {
    for (const Json& item : *types->AsArray()) {
      EW_TRY(TypeOverride parsed, ParseTypeOverride(*item.AsString()).In("tensor_types"));
      options.overrides.push_back(std::move(parsed));
    }
  }
  EW_TRY(options.output_type, ReadFormat(arguments, "output_type"));
  EW_TRY(options.embedding_type, ReadFormat(arguments, "embedding_type"));
  options.leave_output = FlagOr(arguments, "leave_output", false);
  options.pure = FlagOr(arguments, "pure", false);
  if (options.pure && to == nullptr) {
    return MakeError(Code::kBadData, "pure has no use with a target size");
  }
  options.allow_requantize = FlagOr(arguments, "allow_requantize", false);
  return options;
}

// True for the methods that look at what the layers see.
bool UsesInputs(const std::string& method) { return !method.empty() && method != "rtn"; }

bool HasTarget(const QuantizeOptions& options) { return options.preset.empty(); }

// True when weights that are 0 stay 0. Offsets, the grid of IQ4 and error feedback move them; an
// importance brings formats with offsets into the mixture of q4_0.
bool KeepsZeros(DType type, const std::string& method) {
  if (Info(type).sparse()) return true;
  switch (type) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      return true;
    case DType::kQ8_0:
    case DType::kQ6_K:
      return method != "gptq" && method != "awq+gptq";
    case DType::kQ4_0:
      return !UsesInputs(method);
    default:
      return false;
  }
}

Status CheckZeros(const QuantizeOptions& options, const std::string& method) {
  if (HasTarget(options)) {
    return MakeError(Code::kBadData,
                     "formats for a target size do not keep the zeros of a pruned model");
  }
  EW_TRY(const Preset* preset, FindPreset(options.preset));
  std::vector<DType> types = {preset->type};
  for (const TypeOverride& item : options.overrides) types.push_back(item.type);
  for (const DType type : types) {
    if (KeepsZeros(type, method)) continue;
    return MakeError(Code::kBadData,
                     "%s with method %s does not keep the zeros of a pruned model; s24_q4, s24_q8, "
                     "bm_q4 and bm_q8 do with any method, q8_0 and q6_k with rtn or imatrix, q4_0 "
                     "with rtn",
                     type == preset->type ? preset->name : Info(type).name,
                     method.empty() ? "rtn" : method.c_str());
  }
  return Ok{};
}

Status CheckQuantize(const Json& arguments, const Recipe& recipe, SectionUse* use) {
  EW_TRY(const QuantizeOptions options, ReadQuantize(arguments));
  const std::string method = TextOr(arguments, "method", "");
  if (LeavesZeros(recipe)) EW_TRY(CheckZeros(options, method));
  if (!UsesInputs(method) && !HasTarget(options)) return Ok{};
  const std::string who = HasTarget(options) ? "a target size" : "method " + method;
  if (const RecipeStep* sums = FindStep(recipe, "calibrate")) {
    if ((method == "imatrix" && !HasTarget(options)) || WithHessians(sums->arguments)) return Ok{};
    return MakeError(Code::kBadData, "%s needs the hessians that calibrate leaves out",
                     who.c_str());
  }
  if (method != "gptq" || HasTarget(options)) {
    return MakeError(Code::kBadData, "%s needs a calibrate pass before it", who.c_str());
  }
  if (recipe.calibration.path.empty()) {
    return MakeError(Code::kBadData, "method %s needs a calibration text", method.c_str());
  }
  use->calibration = true;
  return Ok{};
}

Status RunQuantize(const Json& arguments, const PassContext& context, PassState* state) {
  EW_TRY(QuantizeOptions options, ReadQuantize(arguments));
  if (UsesInputs(TextOr(arguments, "method", "")) || HasTarget(options)) {
    options.calibration = context.recipe.calibration;
    if (!state->calibration.empty()) options.calibration.path = state->calibration;
  }
  options.tokenizer_path = context.recipe.tokenizer;
  options.threads = context.threads;
  options.dry_run = context.dry_run;
  options.source = &context.source;
  options.target_header_bytes = context.header_bytes;
  const std::string path = context.stem + ".gguf", journal = context.stem + ".tensors";
  if (context.dry_run) {
    options.estimate = context.estimate;
    options.calibration_planned = FindStep(context.recipe, "calibrate") != nullptr;
    if (state->planned_calibration) options.planned_calibration = &*state->planned_calibration;
    EW_TRY(ConvertSummary plan,
           Quantize(state->model, context.recipe.output, options, context.progress));
    state->target_bytes = plan.target_bytes;
    TakePlan(std::move(plan), state);
    return Ok{};
  }
  if (!FileExists(path)) {
    options.journal_path = journal;
    EW_TRY(Quantize(state->model, path, options, context.progress));
  }
  std::error_code ignored;
  std::filesystem::remove(journal, ignored);
  std::filesystem::remove(ChosenFormatsPath(journal), ignored);
  return TakeFile(path, state);
}

ModelStage Quantized(const Json&) { return kQuantizedModel; }

Status CheckPack(const Json&, const Recipe&, SectionUse*) { return Ok{}; }

ModelStage Packed(const Json&) { return kPackedModel; }

// Lays out the tensors of the plan as Pack would.
Status PlanPack(const PassContext& context, PassState* state) {
  std::vector<TensorPlan> plan;
  for (const ConvertedTensor& tensor : state->tensors) {
    plan.push_back({0, tensor.name, tensor.shape, tensor.to, tensor.to, "", tensor.layout, 0});
  }
  if (PlanPacking(state->model.spec(), &plan).packed == 0) {
    return MakeError(Code::kInvalidArgument,
                     "there is nothing to pack: no matrix of a linear layer becomes a block format "
                     "that can be cut at a multiple of 16 rows");
  }
  for (size_t i = 0; i < plan.size(); ++i) {
    ConvertedTensor& tensor = state->tensors[i];
    tensor.layout = plan[i].layout;
    EW_TRY(tensor.bytes, TensorBytes(tensor.to, tensor.shape, tensor.layout).In(tensor.name));
  }
  if (!context.estimate) return Ok{};
  EW_TRY(const Cost cost, EstimatePacking(state->tensors, context.recipe.output));
  state->cost = Then(state->cost, cost);
  return Ok{};
}

Status RunPack(const Json&, const PassContext& context, PassState* state) {
  if (context.dry_run) return PlanPack(context, state);
  const std::string path = context.stem + ".gguf";
  PackOptions options;
  options.threads = context.threads;
  if (!FileExists(path)) {
    EW_TRY(Pack(state->model.path(), path, options, context.progress));
  }
  return TakeFile(path, state);
}

constexpr Pass kPasses[] = {
    {"rotate",
     "spread outliers over all columns: the same model, easier to quantize",
     {},
     kFloatModel,
     {},
     false,
     CheckRotate,
     RunRotate},
    {"prune",
     "set the weights that matter least to zero, or remove structure",
     kPruneKeys,
     kFloatModel,
     {},
     true,
     CheckPrune,
     RunPrune},
    {"distill",
     "learn again from the model what pruning cost, or what quantizing costs; zeros stay",
     kDistillKeys, kFloatModel, TrainingGives, true, CheckDistill, RunDistill},
    {"finetune", "learn from data that the model has not seen; zeros stay", kFinetuneKeys,
     kFloatModel, TrainingGives, true, CheckFinetune, RunFinetune},
    {"calibrate",
     "run the calibration text and keep what the layers see",
     kCalibrateKeys,
     kFloatModel,
     {},
     false,
     CheckCalibrate,
     RunCalibrate},
    {"quantize", "write every tensor in the format of a preset", kQuantizeKeys, kFloatModel,
     Quantized, false, CheckQuantize, RunQuantize},
    {"scales",
     "learn the scales of a quantized model's blocks from the model; codes and formats stay",
     kScalesKeys,
     kQuantizedModel,
     {},
     false,
     CheckScales,
     RunScales},
    {"pack",
     "lay matrices out as the kernels read them: loads at once, in Edgewise only",
     {},
     kQuantizedModel,
     Packed,
     false,
     CheckPack,
     RunPack},
    {"eval",
     "measure KL, top-1 and perplexity against the model: the quality card",
     kEvalKeys,
     kQuantizedModel | kPackedModel,
     {},
     false,
     CheckEval,
     RunEval},
};

}  // namespace

const RecipeStep* FindStep(const Recipe& recipe, std::string_view name) {
  for (const RecipeStep& step : recipe.passes) {
    if (step.pass->name == name) return &step;
  }
  return nullptr;
}

void TakePlan(ConvertSummary summary, PassState* state) {
  if (summary.estimate) state->cost = Then(state->cost, *summary.estimate);
  state->tensors = std::move(summary.tensors);
  state->metadata = std::move(summary.metadata);
}

Status TakeFile(const std::string& path, PassState* state) {
  EW_TRY(state->model, Checkpoint::Open(path));
  state->metadata = state->model.metadata();
  state->tensors.clear();
  for (const CheckpointTensor& tensor : state->model.tensors()) {
    ConvertedTensor row{.name = tensor.name,
                        .shape = tensor.shape,
                        .from = tensor.dtype,
                        .to = tensor.dtype,
                        .layout = tensor.layout,
                        .reason = {}};
    EW_TRY(row.bytes, TensorBytes(tensor.dtype, tensor.shape, tensor.layout).In(tensor.name));
    state->tensors.push_back(std::move(row));
  }
  return Ok{};
}

std::span<const Pass> AllPasses() { return kPasses; }

const Pass* FindPass(std::string_view name) {
  for (const Pass& pass : kPasses) {
    if (name == pass.name) return &pass;
  }
  return nullptr;
}

}  // namespace edgewise
