#include "pipeline/pass_prune.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <unordered_map>
#include <utility>

#include "base/file.h"
#include "base/strings.h"
#include "pipeline/pass_arguments.h"
#include "pipeline/write_pruned.h"

namespace edgewise {
namespace {

constexpr const char* kStructureKeys[] = {"ffn", "heads", "width", "layers", "keep_layers"};

bool RemovesStructure(const Json& arguments) {
  return std::any_of(std::begin(kStructureKeys), std::end(kStructureKeys),
                     [&](const char* key) { return arguments.Find(key) != nullptr; });
}

Result<Amount> ReadAmount(const Json& arguments, const char* key) {
  const Json* value = arguments.Find(key);
  if (!value) return Amount();
  const std::string* text = value->AsString();
  return Amount::Parse(text ? *text : std::to_string(*value->AsUint())).In(key);
}

// "0,2,4"; nothing in it: none.
Result<std::vector<uint32_t>> ReadLayers(const std::string& text) {
  std::vector<uint32_t> layers;
  if (text.empty()) return layers;
  for (const std::string_view number : Split(text, ",")) {
    const auto layer = ParseInt(Trim(number));
    if (!layer || *layer < 0 || *layer > INT32_MAX) {
      return MakeError(Code::kBadData, "keep_layers: %s is no number of a layer",
                       Quote(number).c_str());
    }
    layers.push_back(static_cast<uint32_t>(*layer));
  }
  return layers;
}

Result<StructureOptions> ReadStructure(const Json& arguments) {
  StructureOptions options;
  EW_TRY(options.method, ParseStructureMethod(TextOr(arguments, "method", "")));
  EW_TRY(options.request.ffn, ReadAmount(arguments, "ffn"));
  EW_TRY(options.request.heads, ReadAmount(arguments, "heads"));
  EW_TRY(options.request.width, ReadAmount(arguments, "width"));
  EW_TRY(options.request.layers, ReadAmount(arguments, "layers"));
  EW_TRY(options.request.keep_layers, ReadLayers(TextOr(arguments, "keep_layers", "")));
  if (const Json* multiple = arguments.Find("multiple")) {
    options.request.multiple = *multiple->AsUint();
  }
  options.repair = FlagOr(arguments, "repair", true);
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
                : "give sparsity, mask, or any of ffn, heads, width, layers and keep_layers");
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
  EW_TRY(prune.method, ParsePruneMethod(TextOr(arguments, "method", "")));
  if (arguments.Find("mask") || prune.method == PruneMethod::kMask) {
    if (arguments.AsObject()->size() != 2 || !arguments.Find("mask") ||
        prune.method != PruneMethod::kMask) {
      return MakeError(Code::kBadData, "method mask takes mask, and no other key");
    }
    options->masks = {TextOr(arguments, "mask", "")};
    return false;
  }
  EW_TRY(prune.sparsity, Sparsity::Parse(TextOr(arguments, "sparsity", "")).In("sparsity"));
  if (const Json* seed = arguments.Find("seed")) prune.seed = *seed->AsUint();
  prune.owl = FlagOr(arguments, "owl", false);
  prune.permute = FlagOr(arguments, "permute", false);
  if (const Json* steps = arguments.Find("steps")) {
    prune.steps = static_cast<uint32_t>(*steps->AsUint());
  }
  return NeedsCalibration(prune.method);
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

}  // namespace

bool LeavesZeros(const Recipe& recipe) {
  return std::any_of(recipe.passes.begin(), recipe.passes.end(), [](const RecipeStep& step) {
    return step.pass->name == std::string_view("prune") && !RemovesStructure(step.arguments);
  });
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
                     TextOr(arguments, "method", "").c_str());
  }
  use->calibration = true;
  return Ok{};
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

}  // namespace edgewise
