// Formats for a size: what a WriteJob without a preset asks for.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/cost.h"
#include "base/progress.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "calibrate/calibration.h"
#include "compress/quantize/quantize.h"
#include "formats/metadata.h"
#include "model/checkpoint.h"
#include "pipeline/write_model.h"

namespace edgewise {

bool HasTarget(const WriteJob& job);
// The size of the whole file that `job` asks for.
uint64_t TargetBytes(const WriteJob& job, std::span<const TensorPlan> plan);

// Errors: kInvalidArgument (no mixture of formats of `plan` gives the size).
Status CheckTarget(const WriteJob& job, const Metadata& metadata, std::span<const TensorPlan> plan);

// Gives `plan` the formats that come to the size asked for and cost least on `weights`. A job with
// a journal keeps its choice beside it, and takes the one that is there. Errors: those above and of
// MeasureSensitivity; kBadData (the kept choice is damaged).
Status ChooseFormats(const Checkpoint& weights, const WriteJob& job,
                     const CalibrationFile& calibration, ThreadPool* pool, Progress* progress,
                     Metadata* metadata, std::vector<TensorPlan>* plan);

// Where that choice is kept.
std::string ChosenFormatsPath(const std::string& journal_path);

// What measuring takes where the calibration is only planned. Errors: those of the work.
Result<Cost> ChoosingCost(const Checkpoint& weights, const WriteJob& job,
                          std::span<const TensorPlan> plan, ThreadPool* pool);

}  // namespace edgewise
