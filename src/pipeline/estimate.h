// Estimates: what the steps of the pipeline will take on this machine, from short trials of the
// same work: seconds, and the peak of this process' resident memory. Disks that slow down under
// load and cold file caches are not foreseen.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/cost.h"
#include "base/json.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "calibrate/cost.h"
#include "compress/quantize/quantize.h"
#include "model/checkpoint.h"
#include "pipeline/calibrate.h"
#include "pipeline/convert.h"
#include "pipeline/quality_card.h"
#include "pipeline/write_model.h"

namespace edgewise {

// Bytes a second to a file in the folder of `path`, which it leaves as it was. Errors: kIo.
Result<double> MeasureWriteRate(const std::string& path);

// Of HashFiles on one thread, its memory alone. Errors: those of MappedFile::Open.
Result<Cost> HashingCost(const std::vector<std::string>& paths);

// What calibration has to do, and the trial that later steps go by.
struct CalibrationEstimate {
  Cost cost;
  LayerTrial trial;
};

// Of RunCalibration, without hashing. Errors: those of ReadCalibrationText and TryLayer.
Result<CalibrationEstimate> EstimateCalibration(const Checkpoint& model,
                                                const std::string& out_path,
                                                const RunCalibrationOptions& options);

// Of writing the tensors of `plan` as `job` says, without hashing. Errors: those of the work.
Result<Cost> EstimateWriting(const Checkpoint& model, std::span<const TensorPlan> plan,
                             const WriteJob& job, const std::string& out_path, ThreadPool* pool);

// Of Pack for a file of these `tensors` that is not there yet. Errors: kIo.
Result<Cost> EstimatePacking(std::span<const ConvertedTensor> tensors, const std::string& out_path);

// Of MeasureCard for a model of these `tensors` that is not there yet. Errors: those of
// MeasureCard.
Result<Cost> EstimateCard(const CardRequest& request, std::span<const ConvertedTensor> tensors);

// Adds the members estimated_seconds and estimated_peak_rss_bytes.
void SetEstimate(const Cost& cost, Json* json);

}  // namespace edgewise
