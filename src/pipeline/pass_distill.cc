#include "pipeline/pass_distill.h"

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>

#include "base/file.h"
#include "base/strings.h"
#include "compress/prune/prune.h"
#include "compress/quantize/presets.h"
#include "pipeline/pass_arguments.h"
#include "pipeline/train_model.h"
#include "pipeline/write_model.h"
#include "quant/encodable.h"
#include "quant/scale_fields.h"

namespace edgewise {
namespace {

constexpr const char* kFormat = "f16";  // of what this pass writes

Result<train::LoraOptions> ReadLora(const Json& arguments) {
  train::LoraOptions lora;
  lora.rank = static_cast<uint32_t>(CountOr(arguments, "lora_rank", 0));
  lora.alpha = NumberOr(arguments, "lora_alpha", lora.alpha);
  lora.dropout = NumberOr(arguments, "lora_dropout", lora.dropout);
  if (const Json* targets = arguments.Find("lora_targets")) {
    for (const Json& target : *targets->AsArray()) lora.targets.push_back(*target.AsString());
  }
  for (const char* key : {"lora_alpha", "lora_dropout", "lora_targets"}) {
    if (lora.rank == 0 && arguments.Find(key)) {
      return MakeError(Code::kBadData, "%s needs lora_rank", key);
    }
  }
  return lora;
}

// What all passes have.
Result<TrainJob> ReadTraining(const Json& arguments, const Recipe& recipe, double learning_rate) {
  if (arguments.Find("steps") && arguments.Find("epochs")) {
    return MakeError(Code::kBadData, "give steps or epochs");
  }
  TrainJob job;
  job.tokenizer_path = recipe.tokenizer;
  job.data = TextOr(arguments, "data", "");
  job.held_out = TextOr(arguments, "held_out", "");
  job.steps = CountOr(arguments, "steps", 0);
  job.epochs = NumberOr(arguments, "epochs", 1);
  job.warmup = NumberOr(arguments, "warmup", 0.05);
  job.qat = TextOr(arguments, "qat", "");
  train::TrainerOptions& trainer = job.trainer;
  EW_TRY(trainer.schedule.kind, train::ParseSchedule(TextOr(arguments, "schedule", "cosine")));
  trainer.schedule.peak = NumberOr(arguments, "learning_rate", learning_rate);
  trainer.schedule.last = NumberOr(arguments, "final", trainer.schedule.last);
  trainer.weight_decay = NumberOr(arguments, "weight_decay", trainer.weight_decay);
  trainer.batch.tokens = CountOr(arguments, "batch_tokens", 4096);
  trainer.batch.sequence = CountOr(arguments, "sequence", 256);
  trainer.seed = trainer.batch.seed = CountOr(arguments, "seed", 1);
  trainer.network.keep_zeros = LeavesZeros(recipe);
  trainer.network.recompute = FlagOr(arguments, "recompute", false);
  EW_TRY(trainer.network.lora, ReadLora(arguments));
  EW_TRY(trainer.precision, train::ParsePrecision(TextOr(arguments, "precision", "bf16")));
  EW_TRY(trainer.moments,
         train::ParseMomentFormat(TextOr(arguments, "moments", "f32")).In("moments"));
  job.learn_scales = FlagOr(arguments, "learn_scales", false);
  job.format.strict = true;  // nobody would see which rows were left out
  return job;
}

// What passes with a teacher have.
Result<TrainJob> ReadTeaching(const Json& arguments, const Recipe& recipe) {
  EW_TRY(TrainJob job, ReadTraining(arguments, recipe, 1e-3));
  job.cache = TextOr(arguments, "cache", "");
  if (job.cache.empty()) job.teacher = recipe.model;
  if (!job.cache.empty() && arguments.Find("teacher_engine")) {
    return MakeError(Code::kBadData, "teacher_engine has no use with cache; leave one of them out");
  }
  EW_TRY(job.teacher_engine,
         ParseTeacherEngine(TextOr(arguments, "teacher_engine", "floats")).In("teacher_engine"));
  job.loss.alpha = NumberOr(arguments, "alpha", 1);
  job.loss.temperature = NumberOr(arguments, "temperature", 1);
  EW_TRY(job.loss.divergence, train::ParseDivergence(TextOr(arguments, "divergence", "kl")));
  return job;
}

Result<TrainJob> ReadDistill(const Json& arguments, const Recipe& recipe) {
  EW_TRY(TrainJob job, ReadTeaching(arguments, recipe));
  job.match.hidden = NumberOr(arguments, "match_hidden", 0);
  job.match.attention = NumberOr(arguments, "match_attention", 0);
  train::OnPolicyOptions& written = job.trainer.on_policy;
  written.fraction = NumberOr(arguments, "on_policy", 0);
  written.tokens = static_cast<uint32_t>(CountOr(arguments, "on_policy_tokens", written.tokens));
  if (arguments.Find("on_policy_tokens") && !arguments.Find("on_policy")) {
    return MakeError(Code::kBadData, "on_policy_tokens needs on_policy");
  }
  job.layerwise = FlagOr(arguments, "layerwise", false);
  for (const char* key :
       {"alpha", "temperature", "divergence", "cache", "teacher_engine", "lora_rank", "recompute",
        "match_hidden", "match_attention", "on_policy"}) {
    if (job.layerwise && arguments.Find(key)) {
      return MakeError(Code::kBadData, "layerwise: layers learn outputs, without %s; give one",
                       key);
    }
  }
  EW_TRY(CheckTrainJob(job));
  return job;
}

Result<TrainJob> ReadFinetune(const Json& arguments, const Recipe& recipe) {
  EW_TRY(TrainJob job, ReadTraining(arguments, recipe, 1e-4));
  EW_TRY(CheckTrainJob(job));
  return job;
}

Result<TrainJob> ReadScales(const Json& arguments, const Recipe& recipe) {
  EW_TRY(TrainJob job, ReadTeaching(arguments, recipe));
  job.trainer.network.keep_zeros = false;  // codes stay, and zeros with them
  job.scales_only = true;
  EW_TRY(CheckTrainJob(job));
  return job;
}

const char* OutputFormat(const TrainJob& job) {
  return job.qat.empty() ? kFormat : job.qat.c_str();
}

Error LosesZeros(const std::string& what) {
  return MakeError(Code::kBadData,
                   "qat: %s does not keep the zeros of a pruned model; sparse formats, q8_0, q6_k, "
                   "q5_0, q4_0 and q3_k_s do",
                   what.c_str());
}

// What pruning set to zero stays so in every format of the plan.
Status CheckZeros(const ConvertSummary& plan, const Checkpoint& model) {
  for (const ConvertedTensor& tensor : plan.tensors) {
    const auto index = model.Find(tensor.name);
    if (!index || !IsPrunable(model.tensors()[*index]) || KeepsZeros(tensor.to)) continue;
    return LosesZeros(Format("%s, the format of %s,", Info(tensor.to).name, tensor.name.c_str()));
  }
  return Ok{};
}

bool SameFile(const std::string& a, const std::string& b) {
  std::error_code ignored;
  return std::filesystem::equivalent(a, b, ignored);
}

Status CheckTexts(const TrainJob& job, const Recipe& recipe) {
  if (recipe.evaluation.path.empty() || !SameFile(job.data, recipe.evaluation.path)) return Ok{};
  return MakeError(Code::kBadData,
                   "the evaluation text is learned, so that its measurement "
                   "would flatter; give another");
}

Status CheckPlace(const TrainJob& job, const char* pass, const Recipe& recipe) {
  EW_TRY(const Preset* preset, FindPreset(OutputFormat(job)).In("qat"));
  if (job.trainer.network.keep_zeros && !KeepsZeros(preset->type)) return LosesZeros(preset->name);
  EW_TRY(CheckTexts(job, recipe));
  for (const RecipeStep& step : recipe.passes) {
    if (step.pass->name == std::string_view("calibrate")) {
      return MakeError(Code::kBadData, "put %s before calibrate, which sees what was learned",
                       pass);
    }
  }
  return Ok{};
}

void Place(const PassContext& context, PassState* state, TrainJob* job) {
  job->student = &state->model;
  job->model = state->model.path();
  job->threads = context.threads;
  job->source = &context.source;
  job->out = context.stem + ".gguf";
  job->dry_run = context.dry_run;
  job->resume = !context.dry_run;
}

Status Estimate(const TrainJob& job, const PassContext& context, PassState* state) {
  if (!context.estimate) return Ok{};
  EW_TRY(const TrainSummary trial, TrainModel(job, context.progress));
  state->cost = Then(state->cost, Cost{.seconds = trial.seconds, .bytes = trial.memory_bytes});
  return Ok{};
}

Status Learn(const TrainJob& job, const PassContext& context, PassState* state) {
  if (!FileExists(job.out)) EW_TRY(TrainModel(job, context.progress));
  return TakeFile(job.out, state);
}

Status Run(TrainJob job, const PassContext& context, PassState* state) {
  Place(context, state, &job);
  if (context.dry_run) {
    WriteJob write;
    EW_TRY(write.plan.preset, FindPreset(OutputFormat(job)));
    write.plan.allow_requantize = true;  // its values are decoded
    write.tokenizer_path = job.tokenizer_path;
    write.source = &context.source;
    write.dry_run = true;
    EW_TRY(ConvertSummary plan,
           WriteModel(state->model, context.recipe.output, write, context.progress));
    if (job.trainer.network.keep_zeros) EW_TRY(CheckZeros(plan, state->model));
    TakePlan(std::move(plan), state);
    return Estimate(job, context, state);
  }
  return Learn(job, context, state);
}

}  // namespace

ModelStage TrainingGives(const Json& arguments) {
  return arguments.Find("qat") ? kQuantizedModel : ModelStage{};
}

Status CheckDistill(const Json& arguments, const Recipe& recipe, SectionUse*) {
  EW_TRY(const TrainJob job, ReadDistill(arguments, recipe));
  return CheckPlace(job, "distill", recipe);
}

Status RunDistill(const Json& arguments, const PassContext& context, PassState* state) {
  EW_TRY(TrainJob job, ReadDistill(arguments, context.recipe));
  return Run(std::move(job), context, state);
}

Status CheckFinetune(const Json& arguments, const Recipe& recipe, SectionUse*) {
  EW_TRY(const TrainJob job, ReadFinetune(arguments, recipe));
  return CheckPlace(job, "finetune", recipe);
}

Status RunFinetune(const Json& arguments, const PassContext& context, PassState* state) {
  EW_TRY(TrainJob job, ReadFinetune(arguments, context.recipe));
  return Run(std::move(job), context, state);
}

Status CheckScales(const Json& arguments, const Recipe& recipe, SectionUse*) {
  EW_TRY(const TrainJob job, ReadScales(arguments, recipe));
  if (FindStep(recipe, "eval") != nullptr) {
    return MakeError(Code::kBadData,
                     "put scales before eval, whose measurement would be of another model");
  }
  return CheckTexts(job, recipe);
}

Status RunScales(const Json& arguments, const PassContext& context, PassState* state) {
  EW_TRY(TrainJob job, ReadScales(arguments, context.recipe));
  Place(context, state, &job);
  if (!context.dry_run) return Learn(job, context, state);
  const auto has_scales = [](const ConvertedTensor& t) { return !ScaleFieldsOf(t.to).empty(); };
  if (std::none_of(state->tensors.begin(), state->tensors.end(), has_scales)) {
    return MakeError(Code::kInvalidArgument,
                     "no tensor will be in a block format, so there are no scales to learn");
  }
  // The model is not quantized yet: learning all of its weights takes as long, and more memory.
  job.scales_only = false;
  return Estimate(job, context, state);
}

}  // namespace edgewise
