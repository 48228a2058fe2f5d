// Training a model from files: pretraining, fine-tuning and distillation are one job.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/progress.h"
#include "base/result.h"
#include "pipeline/measure_draft.h"
#include "pipeline/train_job.h"

namespace edgewise {

struct TrainSummary {
  std::string output, log, page;      // paths
  uint64_t bytes = 0;                 // of the output
  uint64_t parameters = 0;            // of the model
  uint64_t trainable_parameters = 0;  // that are learned: these, or those of the adapters
  std::string format;                 // of the data
  uint64_t documents = 0, held_out_documents = 0;
  uint64_t bad_row_count = 0;         // of both, left out
  std::vector<std::string> bad_rows;  // the first of them: "FILE, line N: problem"
  uint64_t tokens = 0;                // that a pass over the data learns
  uint64_t steps = 0, resumed_steps = 0;
  double first_loss = 0;     // held-out, in nats, before the first step; 0: not of a new run
  double held_out_loss = 0;  // of the weights that are written
  std::optional<double> first_kl, held_out_kl;  // the same of KL(teacher | student)
  double teacher_loss = 0;                      // 0: no teacher
  uint64_t skipped_steps = 0;
  JsonArray layers;         // layer by layer: the log's lines; steps are those of each
  uint64_t disk_bytes = 0;  // then: of the layers' inputs and of the journal
  std::optional<DraftReport> draft;
  std::vector<std::string> kept;  // models of steps on the way that are there
  double tokens_per_s = 0;        // of this process; in a dry run of a trial
  double seconds = 0;             // in a dry run as predicted
  // At the peak, as planned: what the process has when data and model are open, weights, gradients,
  // moments, activations, the teacher.
  uint64_t memory_bytes = 0;
  uint64_t peak_rss_bytes = 0;
};

// Trains `job.model`, or with `job.trainer.network.lora` adapters of it, which are merged into it
// then, and writes it to `job.out`, with "OUT.log.jsonl" beside it: a line for each
// step, and "OUT.log.html", its curves. The state is kept in the folder "OUT.journal", so that a
// run that was stopped or killed goes on with `resume`; the same job gives the same bytes for any
// number of threads and processes (trainer.processes, all of which call this; rank 0 writes),
// stopped or not. With a cache no sequence is cut by a batch's end (BatchOptions::whole). A dry run
// plans the memory and tells the time by a trial step. The weights that the last
// measurement saw are those that the file decodes to. With `layerwise` it is TrainLayers
// (train_layers.h). Errors: kInvalidArgument (output exists, an
// option out of range, teacher and model have different vocabularies: the first token that differs
// is named), those of FindPreset, CheckFormats, ReadTrainInputs, RunTraining and Convert.
Result<TrainSummary> TrainModel(const TrainJob& job, Progress* progress);

// The members of `edgewise distill --json`.
Json ToJson(const TrainSummary& summary);

}  // namespace edgewise
