#include "pipeline/train_job.h"

#include <algorithm>
#include <filesystem>

#include "base/file.h"
#include "base/strings.h"
#include "compress/quantize/presets.h"
#include "pipeline/output_path.h"
#include "pipeline/run_journal.h"
#include "quant/scale_fields.h"
#include "train/loss.h"

namespace edgewise {
namespace {

constexpr size_t kMaxBatch = 1u << 24;
constexpr uint64_t kMaxSteps = uint64_t{1} << 32;
constexpr uint64_t kMaxKeptModels = 100000;

// An adapter is a GGUF or a folder.
Status CheckAdapterOutput(const TrainJob& job, const std::string& path, bool overwrite) {
  if (path == job.out) {
    return MakeError(Code::kInvalidArgument, "%s: the model and its adapter need a path each",
                     path.c_str());
  }
  if (path.ends_with(".gguf")) return CheckOutput(job.model, path, overwrite);
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return Ok{};
  if (!IsDirectory(path)) {
    return MakeError(Code::kInvalidArgument,
                     "%s: is a file; an adapter is written to a folder, or to a name that ends in "
                     ".gguf",
                     path.c_str());
  }
  if (overwrite) return Ok{};
  return MakeError(Code::kInvalidArgument, "%s: exists already; pass --force to replace it",
                   path.c_str());
}

// What a student can learn from a running teacher alone.
Status CheckLiveTeacher(const TrainJob& job) {
  EW_TRY(train::CheckMatch(job.match));
  if (job.match.any() && job.teacher.empty()) {
    return MakeError(Code::kInvalidArgument,
                     "matching hidden states or attention takes the teacher itself: a cache keeps "
                     "its probabilities alone; name the teacher, or leave the matching out");
  }
  if (job.match.any() && job.teacher_engine != TeacherEngine::kFloats) {
    return MakeError(Code::kInvalidArgument,
                     "matching hidden states or attention takes a teacher in floats: the runtime "
                     "does not keep them; choose that engine, or leave the matching out");
  }
  if (job.match.any() && job.scales_only) {
    return MakeError(Code::kInvalidArgument,
                     "scales alone learn from probabilities; leave matching out, or train all "
                     "weights");
  }
  if (job.trainer.on_policy.fraction == 0) return Ok{};
  if (job.teacher.empty()) {
    return MakeError(Code::kInvalidArgument,
                     "what the student writes has to be read by a teacher: a cache knows the "
                     "data's tokens alone; name the teacher, or let the student write nothing");
  }
  if (job.loss.alpha == 0) {
    return MakeError(Code::kInvalidArgument,
                     "of what the student writes only the teacher's share of the loss is learned, "
                     "and alpha 0 leaves none; give a larger one");
  }
  return Ok{};
}

bool GoesOn(const TrainJob& job) { return job.resume && FileExists(JournalFolder(job.out)); }

Status CheckPaths(const TrainJob& job, const std::vector<std::string>& outputs) {
  for (const std::string* input :
       {&job.model, &job.teacher, &job.cache, &job.data, &job.held_out}) {
    if (input->empty()) continue;
    for (const std::string& output : outputs) {
      EW_TRY(CheckOutput(*input, output, job.overwrite || GoesOn(job)));
    }
  }
  return Ok{};
}

// What a layer by itself has no use for.
Status CheckLayerwiseJob(const TrainJob& job) {
  const train::TrainerOptions& trainer = job.trainer;
  if (job.teacher.empty()) {
    return MakeError(Code::kInvalidArgument,
                     "learning layer by layer needs the layers of a teacher: name that, not a "
                     "cache");
  }
  if (job.student == nullptr && IsModelConfig(job.model)) {
    return MakeError(Code::kInvalidArgument,
                     "%s: a config.json has no layers to begin from; give a model, or learn it as "
                     "a whole",
                     job.model.c_str());
  }
  if (train::OrAlone(trainer.processes).size() > 1) {
    return MakeError(Code::kUnsupported, "learning layer by layer is work for one process");
  }
  if (LearnsLora(job) || job.draft || job.keep_every > 0 || trainer.ema > 0 ||
      trainer.patience > 0 || trainer.accumulation > 1 || trainer.network.dropout > 0) {
    return MakeError(Code::kInvalidArgument,
                     "layer by layer there are no adapters, averaged weights, patience, "
                     "accumulated batches, dropout, drafts and models on the way; leave them out");
  }
  return Ok{};
}

}  // namespace

bool IsModelConfig(const std::string& path) { return path.ends_with(".json"); }
bool Distils(const TrainJob& job) { return !job.teacher.empty() || !job.cache.empty(); }
bool LearnsLora(const TrainJob& job) { return job.trainer.network.lora.rank > 0; }

std::string KeptModelPath(const std::string& out, uint64_t step) {
  const std::string stem = out.ends_with(".gguf") ? out.substr(0, out.size() - 5) : out;
  return stem + ".step-" + std::to_string(step) + ".gguf";
}

std::vector<std::string> KeptModelPaths(const TrainJob& job, uint64_t steps) {
  std::vector<std::string> paths;
  if (job.keep_every == 0) return paths;
  const uint64_t count = (steps - 1) / job.keep_every;  // the last step's is the output
  const uint64_t kept = job.keep_last > 0 ? std::min(job.keep_last, count) : count;
  for (uint64_t i = count - kept + 1; i <= count; ++i) {
    paths.push_back(KeptModelPath(job.out, i * job.keep_every));
  }
  return paths;
}

std::string TrainLogPath(const std::string& out) { return out + ".log.jsonl"; }
std::string TrainPagePath(const std::string& out) { return out + ".log.html"; }

Status CheckTrainJob(const TrainJob& job) {
  if (job.steps == 0 && !(job.epochs > 0 && job.epochs <= 10000)) {
    return MakeError(Code::kInvalidArgument, "epochs must be above 0 and at most 10000, not %g",
                     job.epochs);
  }
  if (!(job.warmup >= 0 && job.warmup <= 1) || job.steps > kMaxSteps) {
    return MakeError(Code::kInvalidArgument,
                     "the warm-up must be from 0 to 1 of the steps, and these at most %llu",
                     static_cast<unsigned long long>(kMaxSteps));
  }
  const train::BatchOptions& batch = job.trainer.batch;
  if (batch.tokens < 2 || batch.tokens > kMaxBatch || job.trainer.accumulation > kMaxBatch ||
      batch.sequence < 2) {
    return MakeError(Code::kInvalidArgument,
                     "batches have from 2 to %zu tokens in sequences of at least 2, and a step at "
                     "most as many batches",
                     kMaxBatch);
  }
  train::TrainerOptions options = job.trainer;
  options.schedule.steps = std::max<uint64_t>(job.steps, 1);
  options.schedule.warmup = 0;
  if (!job.teacher.empty() && !job.cache.empty()) {
    return MakeError(Code::kInvalidArgument,
                     "a cache stands in place of a teacher: give one of %s and %s",
                     job.teacher.c_str(), job.cache.c_str());
  }
  if (Distils(job)) EW_TRY(train::CheckLoss(job.loss));
  EW_TRY(CheckLiveTeacher(job));
  if (job.draft && job.teacher.empty()) {
    return MakeError(Code::kInvalidArgument,
                     "a draft model is measured with its teacher: name that, not a cache");
  }
  if (!job.lora_out.empty() && !LearnsLora(job)) {
    return MakeError(Code::kInvalidArgument, "%s: without a rank there is no adapter to write",
                     job.lora_out.front().c_str());
  }
  if (!job.lora_out.empty() && job.trainer.network.keep_zeros) {
    return MakeError(Code::kInvalidArgument,
                     "%s: an adapter cannot say which weights stay zero, so that merging it would "
                     "fill them; leave it out, the model that is written has the zeros",
                     job.lora_out.front().c_str());
  }
  if (LearnsLora(job) && job.student == nullptr && IsModelConfig(job.model)) {
    return MakeError(Code::kInvalidArgument,
                     "%s: a config.json has no weights for adapters to act on; give a model, or "
                     "leave out the adapters",
                     job.model.c_str());
  }
  if (LearnsLora(job) && !job.qat.empty()) {
    return MakeError(Code::kInvalidArgument,
                     "adapters and training through a quantizer exclude each other: adapters leave "
                     "the weights as they are; give one of the two");
  }
  if (job.scales_only && (LearnsLora(job) || !job.qat.empty() || job.layerwise)) {
    return MakeError(Code::kInvalidArgument,
                     "scales alone are learned, or adapters, or weights through a quantizer or "
                     "layer by layer: give one of them");
  }
  if (job.learn_scales) {
    if (job.qat.empty()) {
      return MakeError(Code::kInvalidArgument,
                       "scales are learned beside the weights of a format that is trained through: "
                       "name that, or learn the scales of a quantized model alone");
    }
    EW_TRY(const Preset* preset, FindPreset(job.qat));
    if (ScaleFieldsOf(preset->type).empty()) {
      return MakeError(Code::kInvalidArgument, "%s has no blocks, so there are no scales to learn",
                       preset->name);
    }
  }
  if (job.keep_last > 0 && job.keep_every == 0) {
    return MakeError(Code::kInvalidArgument,
                     "of no models on the way the last ones cannot be kept: say after how many "
                     "steps one is written");
  }
  if (job.layerwise) EW_TRY(CheckLayerwiseJob(job));
  return train::CheckTrainer(options);
}

Status CheckTrainOutputs(const TrainJob& job) {
  const bool going_on = GoesOn(job);
  EW_TRY(CheckPaths(job, {job.out, TrainLogPath(job.out), TrainPagePath(job.out)}));
  for (const std::string& path : job.lora_out) {
    EW_TRY(CheckAdapterOutput(job, path, job.overwrite || going_on));
  }
  return Ok{};
}

Status CheckKeptModels(const TrainJob& job, uint64_t steps) {
  if (job.keep_every > 0 && (steps - 1) / job.keep_every > kMaxKeptModels) {
    return MakeError(Code::kInvalidArgument,
                     "a model after every %llu of %llu steps makes more than %llu: write fewer",
                     static_cast<unsigned long long>(job.keep_every),
                     static_cast<unsigned long long>(steps),
                     static_cast<unsigned long long>(kMaxKeptModels));
  }
  TrainJob all = job;
  all.keep_last = 0;
  return CheckPaths(job, KeptModelPaths(all, steps));
}

Result<PlanOptions> OutputPlan(const TrainJob& job) {
  PlanOptions plan;
  if (job.scales_only) return plan;
  EW_TRY(plan.preset, FindPreset(job.qat.empty() ? Info(job.to).name : job.qat));
  plan.allow_requantize = true;  // a quantized beginning is decoded, and its end encoded anew
  return plan;
}

TeacherOptions TeacherOptionsOf(const TrainJob& job, const train::TrainerOptions& trainer) {
  return {job.teacher_engine, trainer.precision, trainer.batch};
}

}  // namespace edgewise
