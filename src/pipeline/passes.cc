#include <algorithm>
#include <filesystem>
#include <iterator>
#include <unordered_map>
#include <utility>

#include "base/file.h"
#include "base/strings.h"
#include "compress/quantize/presets.h"
#include "formats/gguf.h"
#include "pipeline/calibrate.h"
#include "pipeline/estimate.h"
#include "pipeline/packing.h"
#include "pipeline/pass.h"
#include "pipeline/pass_distill.h"
#include "pipeline/quality_card.h"
#include "pipeline/target.h"
#include "pipeline/write_model.h"
#include "pipeline/write_pruned.h"

namespace edgewise {
namespace {

constexpr uint64_t kMaxCardBytes = 1u << 20;

const RecipeStep* FindStep(const Recipe& recipe, std::string_view name) {
  for (const RecipeStep& step : recipe.passes) {
    if (step.pass->name == name) return &step;
  }
  return nullptr;
}

bool Flag(const Json& arguments, const char* key) {
  const Json* value = arguments.Find(key);
  return value && *value->AsBool();
}

std::string Text(const Json& arguments, const char* key) {
  const Json* value = arguments.Find(key);
  return value ? *value->AsString() : "";
}

// Tensor bytes in bits for each parameter.
double BitsPerWeight(const std::vector<ConvertedTensor>& tensors) {
  uint64_t bytes = 0, parameters = 0;
  for (const ConvertedTensor& tensor : tensors) {
    bytes += tensor.bytes;
    parameters += tensor.shape.elements();
  }
  return 8.0 * static_cast<double>(bytes) / static_cast<double>(parameters);
}

void TakePlan(ConvertSummary summary, PassState* state) {
  if (summary.estimate) state->cost = Then(state->cost, *summary.estimate);
  state->tensors = std::move(summary.tensors);
  state->metadata = std::move(summary.metadata);
}

constexpr const char* kStructureKeys[] = {"ffn", "heads", "width", "layers"};

bool RemovesStructure(const Json& arguments) {
  return std::any_of(std::begin(kStructureKeys), std::end(kStructureKeys),
                     [&](const char* key) { return arguments.Find(key) != nullptr; });
}

// Rotation: nothing is written; the tensors are rotated as they are loaded.

Status CheckRotate(const Json&, const Recipe& recipe, SectionUse*) {
  if (!LeavesZeros(recipe)) return Ok{};
  return MakeError(Code::kBadData, "put rotate before prune: a rotation would fill the zeros");
}

Status RunRotate(const Json&, const PassContext& context, PassState* state) {
  EW_TRY(RotateSource(false, &state->model).In(context.recipe.model));
  return Ok{};
}

constexpr uint64_t kMaxPruneSteps = 64;

constexpr RecipeKey kPruneKeys[] = {
    {"method", KeyType::kText,
     "magnitude, global-magnitude, random, wanda, ria, magnitude+dsnot, wanda+dsnot, sparsegpt, "
     "alps or mask; of structure flap, minitron, magnitude or random",
     true},
    {"sparsity", KeyType::kText, "share of the weights to set to zero (\"50%\"), or N:M (\"2:4\")"},
    {"mask", KeyType::kPath, "with method mask: a mask file, or a pruned model as one GGUF"},
    {"permute", KeyType::kFlag, "with N:M: order channels first so that more is kept"},
    {"steps", KeyType::kCount, "to the sparsity, each on the model pruned so far (default 1)",
     false, 1, kMaxPruneSteps},
    {"ffn", KeyType::kAmount, "neurons: share to remove (\"25%\"), or number to keep"},
    {"heads", KeyType::kAmount, "query heads: share to remove, or number to keep"},
    {"width", KeyType::kAmount, "channels: share to remove, or number to keep"},
    {"layers", KeyType::kAmount, "layers: share or number to remove"},
    {"multiple", KeyType::kCount, "of columns, to which shares are rounded", false, 1, 1u << 16},
    {"repair", KeyType::kFlag, "fit what reads the structure that is left (default true)"},
    {"owl", KeyType::kFlag, "with sparsity: layers with more outliers keep more (default false)"},
    {"seed", KeyType::kCount, "of method random (default 1)"},
};

Result<Amount> ReadAmount(const Json& arguments, const char* key) {
  const Json* value = arguments.Find(key);
  if (!value) return Amount();
  const std::string* text = value->AsString();
  return Amount::Parse(text ? *text : std::to_string(*value->AsUint())).In(key);
}

Result<StructureOptions> ReadStructure(const Json& arguments) {
  StructureOptions options;
  EW_TRY(options.method, ParseStructureMethod(Text(arguments, "method")));
  EW_TRY(options.request.ffn, ReadAmount(arguments, "ffn"));
  EW_TRY(options.request.heads, ReadAmount(arguments, "heads"));
  EW_TRY(options.request.width, ReadAmount(arguments, "width"));
  EW_TRY(options.request.layers, ReadAmount(arguments, "layers"));
  if (const Json* multiple = arguments.Find("multiple")) {
    options.request.multiple = *multiple->AsUint();
  }
  options.repair = !arguments.Find("repair") || Flag(arguments, "repair");
  if (const Json* seed = arguments.Find("seed")) options.seed = *seed->AsUint();
  return options;
}

// Fills in what is pruned. Returns whether it needs the calibration text.
Result<bool> ReadPrune(const Json& arguments, PruneJobOptions* options) {
  const bool weights = arguments.Find("sparsity") || arguments.Find("mask");
  if (weights == RemovesStructure(arguments)) {
    return MakeError(
        Code::kBadData, "%s",
        weights ? "sparsity, mask and the structure keys do not go together; use two passes"
                : "give sparsity, mask, or any of ffn, heads, width and layers");
  }
  if (!weights) {
    for (const char* key : {"owl", "permute", "steps"}) {
      if (!arguments.Find(key)) continue;
      return MakeError(Code::kBadData, "%s goes with sparsity only", key);
    }
    EW_TRY(options->structure, ReadStructure(arguments));
    return NeedsText(*options->structure);
  }
  for (const char* key : {"multiple", "repair"}) {
    if (arguments.Find(key)) {
      return MakeError(Code::kBadData, "%s has no use with %s", key,
                       arguments.Find("mask") ? "mask" : "sparsity");
    }
  }
  PruneOptions& prune = options->prune;
  EW_TRY(prune.method, ParsePruneMethod(Text(arguments, "method")));
  if (arguments.Find("mask") || prune.method == PruneMethod::kMask) {
    if (arguments.AsObject()->size() != 2 || !arguments.Find("mask") ||
        prune.method != PruneMethod::kMask) {
      return MakeError(Code::kBadData, "method mask takes mask, and no other key");
    }
    options->masks = {Text(arguments, "mask")};
    return false;
  }
  EW_TRY(prune.sparsity, Sparsity::Parse(Text(arguments, "sparsity")).In("sparsity"));
  if (const Json* seed = arguments.Find("seed")) prune.seed = *seed->AsUint();
  prune.owl = Flag(arguments, "owl");
  prune.permute = Flag(arguments, "permute");
  if (const Json* steps = arguments.Find("steps")) {
    prune.steps = static_cast<uint32_t>(*steps->AsUint());
  }
  return NeedsCalibration(prune.method);
}

Status CheckPrune(const Json& arguments, const Recipe& recipe, SectionUse* use) {
  PruneJobOptions options;
  EW_TRY(const bool calibrated, ReadPrune(arguments, &options));
  if (FindStep(recipe, "calibrate")) {
    return MakeError(Code::kBadData,
                     "put prune before calibrate, which sees the pruned model then");
  }
  if (LeavesZeros(recipe)) {
    return MakeError(Code::kBadData,
                     options.structure ? "remove structure first: fitting what is left would fill "
                                         "the zeros"
                                       : "the weights are pruned already");
  }
  if (!calibrated) return Ok{};
  if (recipe.calibration.path.empty()) {
    return MakeError(Code::kBadData, "method %s needs a calibration text",
                     Text(arguments, "method").c_str());
  }
  use->calibration = true;
  return Ok{};
}

// Stands in for the pruned model in plans: formats that hold N of M weights refuse the dense one.
Checkpoint WithZeros(const Checkpoint& model, const Sparsity& sparsity) {
  std::unordered_map<size_t, TensorChange> changes;
  const auto zero = [sparsity](std::span<float> values) {
    for (size_t i = 0; i < values.size(); ++i) {
      if (i % sparsity.group >= sparsity.keep) values[i] = 0;
    }
  };
  for (size_t i = 0; i < model.tensors().size(); ++i) {
    if (IsPrunable(model.tensors()[i])) changes.emplace(i, zero);
  }
  return model.Changed(std::move(changes));
}

// The same for masks, which are known.
Result<Checkpoint> WithMasks(const Checkpoint& model, const std::vector<std::string>& paths) {
  EW_TRY(const MaskSet masks, MaskSet::Open(paths));
  std::unordered_map<size_t, TensorChange> changes;
  for (size_t i = 0; i < model.tensors().size(); ++i) {
    const CheckpointTensor& tensor = model.tensors()[i];
    if (!IsPrunable(tensor)) continue;
    EW_TRY(Mask mask, masks.Load({tensor.name, tensor.shape.rows(), tensor.shape.columns()}));
    changes.emplace(i, [mask = std::move(mask)](std::span<float> values) { mask.Apply(values); });
  }
  return model.Changed(std::move(changes));
}

Status RunPrune(const Json& arguments, const PassContext& context, PassState* state) {
  PruneJobOptions options;
  EW_TRY(const bool calibrated, ReadPrune(arguments, &options));
  if (calibrated) options.calibration = context.recipe.calibration;
  options.tokenizer_path = context.recipe.tokenizer;
  options.threads = context.threads;
  options.source = &context.source;
  if (context.dry_run) {
    options.dry_run = true;
    options.estimate = context.estimate;
    EW_TRY(ConvertSummary plan,
           Prune(state->model, context.recipe.output, options, context.progress));
    TakePlan(std::move(plan), state);
    if (options.structure) {
      EW_TRY(const StructurePlan sizes,
             PlanStructure(state->model.spec(), options.structure->request));
      state->model = CutModel(state->model, Structure::First(sizes.kept));
    } else if (options.prune.sparsity.structured()) {
      state->model = WithZeros(state->model, options.prune.sparsity);
    } else if (!options.masks.empty()) {
      EW_TRY(state->model, WithMasks(state->model, options.masks));
    }
    return Ok{};
  }
  const std::string path = context.stem + ".gguf", journal = context.stem + ".tensors";
  if (!FileExists(path)) {
    if (!options.structure) options.journal_path = journal;
    EW_TRY(Prune(state->model, path, options, context.progress));
  }
  std::error_code ignored;
  std::filesystem::remove(journal, ignored);
  for (size_t step = 0; step < options.prune.steps; ++step) {
    std::filesystem::remove(StepPath(journal, step), ignored);
  }
  return TakeFile(path, state);
}

constexpr RecipeKey kCalibrateKeys[] = {
    {"hessians", KeyType::kFlag, "second moments too, which gptq needs (default true)"},
};

bool WithHessians(const Json& arguments) {
  return !arguments.Find("hessians") || Flag(arguments, "hessians");
}

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
    EW_TRY(type, ParseFormat(Text(arguments, key)).In(key));
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
  if (arguments.Find("method")) EW_TRY(ParseMethod(Text(arguments, "method"), &options));
  if (options.rotate) {
    return MakeError(Code::kBadData, "method %s: rotation is a pass of its own; put rotate before",
                     Quote(Text(arguments, "method")).c_str());
  }
  if (const Json* types = arguments.Find("tensor_types")) {
    for (const Json& item : *types->AsArray()) {
      EW_TRY(TypeOverride parsed, ParseTypeOverride(*item.AsString()).In("tensor_types"));
      options.overrides.push_back(std::move(parsed));
    }
  }
  EW_TRY(options.output_type, ReadFormat(arguments, "output_type"));
  EW_TRY(options.embedding_type, ReadFormat(arguments, "embedding_type"));
  options.leave_output = Flag(arguments, "leave_output");
  options.pure = Flag(arguments, "pure");
  if (options.pure && to == nullptr) {
    return MakeError(Code::kBadData, "pure has no use with a target size");
  }
  options.allow_requantize = Flag(arguments, "allow_requantize");
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
  const std::string method = Text(arguments, "method");
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
  if (UsesInputs(Text(arguments, "method")) || HasTarget(options)) {
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

Status CheckPack(const Json&, const Recipe&, SectionUse*) { return Ok{}; }

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

Status CheckEval(const Json&, const Recipe& recipe, SectionUse* use) {
  if (recipe.evaluation.path.empty()) {
    return MakeError(Code::kBadData, "the recipe has no evaluation text");
  }
  use->evaluation = true;
  return Ok{};
}

Status RunEval(const Json&, const PassContext& context, PassState* state) {
  const Recipe& recipe = context.recipe;
  CardRequest request;
  request.base_path = recipe.model;
  request.model_path = state->model.path();
  request.tokenizer_path = recipe.tokenizer;
  request.text = &recipe.evaluation;
  request.bits_per_weight = BitsPerWeight(state->tensors);
  request.threads = context.threads;
  if (context.dry_run) {
    state->card = PlaceholderCard(recipe.evaluation);
    if (!context.estimate) return Ok{};
    EW_TRY(const Cost cost, EstimateCard(request, state->tensors));
    state->cost = Then(state->cost, cost);
    return Ok{};
  }
  const std::string path = context.stem + ".json";
  if (FileExists(path)) {
    EW_TRY(const std::string text, ReadFile(path, kMaxCardBytes));
    EW_TRY(state->card, ParseJson(text).In(path));
    return Ok{};
  }
  EW_TRY(state->card, MeasureCard(request, context.progress));
  EW_TRY(AtomicFile file, AtomicFile::Create(path, true));
  EW_TRY(file.Write(state->card.Dump()));
  return file.Commit();
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
     "learn again from the model what pruning cost; zeros stay",
     kDistillKeys,
     kFloatModel,
     {},
     true,
     CheckDistill,
     RunDistill},
    {"calibrate",
     "run the calibration text and keep what the layers see",
     kCalibrateKeys,
     kFloatModel,
     {},
     false,
     CheckCalibrate,
     RunCalibrate},
    {"quantize", "write every tensor in the format of a preset", kQuantizeKeys, kFloatModel,
     kQuantizedModel, false, CheckQuantize, RunQuantize},
    {"pack",
     "lay matrices out as the kernels read them: loads at once, in Edgewise only",
     {},
     kQuantizedModel,
     kPackedModel,
     false,
     CheckPack,
     RunPack},
    {"eval",
     "measure KL, top-1 and perplexity against the model: the quality card",
     {},
     kQuantizedModel | kPackedModel,
     {},
     false,
     CheckEval,
     RunEval},
};

}  // namespace

bool LeavesZeros(const Recipe& recipe) {
  return std::any_of(recipe.passes.begin(), recipe.passes.end(), [](const RecipeStep& step) {
    return step.pass->name == std::string_view("prune") && !RemovesStructure(step.arguments);
  });
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
