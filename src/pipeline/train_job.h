// What a training job is: its files and options, and what of them cannot be.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "compress/quantize/quantize.h"
#include "model/checkpoint.h"
#include "pipeline/live_teacher.h"
#include "pipeline/source_hash.h"
#include "quant/dtype.h"
#include "train/dataset.h"
#include "train/feature_match.h"
#include "train/trainer.h"

namespace edgewise {

// True for the path of a config.json: a model without weights.
bool IsModelConfig(const std::string& path);

struct TrainJob {
  std::string model;  // to begin from: a checkpoint, or a config.json for random weights
  const Checkpoint* student = nullptr;  // in place of opening `model`
  std::string teacher;                  // a checkpoint; empty: none, the text or a cache alone
  TeacherEngine teacher_engine = TeacherEngine::kFloats;
  std::string cache;     // of a teacher's probabilities, in place of one; empty: none
  std::string data;      // train/dataset.h
  std::string held_out;  // likewise; empty: the last fiftieth of the documents of `data`
  train::DatasetOptions format;
  std::string out;                    // GGUF
  std::vector<std::string> lora_out;  // where the adapters go too, each a path of WriteAdapter
  std::string tokenizer_path;
  DType to = DType::kF16;
  // A preset's name: its formats are trained through, and written in place of `to`. Empty: none.
  std::string qat;
  bool learn_scales = false;  // with qat: those of its blocks, beside the weights
  bool scales_only = false;  // learn the scales of a quantized model's blocks, and keep its formats
  double epochs = 1;         // over the data, where steps are 0
  uint64_t steps = 0;
  double warmup = 0.05;           // share of the steps
  uint64_t save_every = 100;      // steps
  uint64_t keep_every = 0;        // steps after which the model is written too; 0: at the end only
  uint64_t keep_last = 0;         // of these models; 0: all
  train::DistillationLoss loss;   // with a teacher
  train::MatchOptions match;      // with a live teacher in floats
  train::TrainerOptions trainer;  // its steps and warm-up are set from the above
  int threads = 0;
  bool resume = false;
  bool overwrite = false;
  bool dry_run = false;
  bool layerwise = false;              // each layer by itself, from the teacher's (train_layers.h)
  bool draft = false;                  // measure the result as the drafter of `teacher`
  const SourceHash* source = nullptr;  // as in QuantizeOptions
};

bool Distils(const TrainJob& job);     // from a teacher or its cache
bool LearnsLora(const TrainJob& job);  // adapters, and nothing else

// "OUT.log.jsonl" and "OUT.log.html".
std::string TrainLogPath(const std::string& out);
std::string TrainPagePath(const std::string& out);

// "NAME.step-N.gguf" for the model of step N on the way to "NAME.gguf".
std::string KeptModelPath(const std::string& out, uint64_t step);
// Those that are left of a run of so many steps, in the order of their steps.
std::vector<std::string> KeptModelPaths(const TrainJob& job, uint64_t steps);

// Finds what of the job cannot be, whatever the data. Errors: kInvalidArgument.
Status CheckTrainJob(const TrainJob& job);
// The outputs are none of the files that are read, and replace one only where that is wanted.
// Errors: those of CheckOutput; kInvalidArgument (an adapter's path that is no place for one).
Status CheckTrainOutputs(const TrainJob& job);
// The same of the models that a run of so many steps writes on its way. Errors: kInvalidArgument
// (more than 100,000).
Status CheckKeptModels(const TrainJob& job, uint64_t steps);

// The formats of the output; without a preset those of the model. Errors: those of FindPreset.
Result<PlanOptions> OutputPlan(const TrainJob& job);

// The options of the job's teacher when it trains as `trainer` says.
TeacherOptions TeacherOptionsOf(const TrainJob& job, const train::TrainerOptions& trainer);

}  // namespace edgewise
