// Calibrating from a text file, in parts that a stopped run can go on from.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/progress.h"
#include "base/result.h"
#include "calibrate/calibration.h"
#include "model/checkpoint.h"
#include "pipeline/calibration_text.h"
#include "pipeline/source_hash.h"

namespace edgewise {

struct RunCalibrationOptions {
  CalibrationText text;
  bool hessians = true;
  uint64_t part_tokens = 16384;  // after as many the sums so far are kept in "OUT.part"
  bool resume = false;           // goes on from "OUT.part"
  std::string tokenizer_path;
  int threads = 0;  // 0: all CPUs
  bool overwrite = false;
  const SourceHash* source = nullptr;  // of the model's files, where it is known already
};

struct CalibrationSummary {
  std::string output;
  CalibrationOrigin origin;
  uint64_t resumed_tokens = 0;  // of them from the stopped run
  size_t weights = 0;
  bool hessians = false;
  uint64_t bytes = 0;
  double seconds = 0;
  uint64_t peak_rss_bytes = 0;
};

// Writes the calibration of `model_path` by the text to `out_path`. The sums are the same whether a
// run was stopped and resumed or not. Errors: those of Checkpoint::Open, ReadCalibrationText and
// Calibrate; kInvalidArgument (output exists; nothing to resume; "OUT.part" is of another model or
// text).
Result<CalibrationSummary> RunCalibration(const std::string& model_path,
                                          const std::string& out_path,
                                          const RunCalibrationOptions& options, Progress* progress);

// The same for a model that may be changed on its way (Checkpoint::Changed).
Result<CalibrationSummary> RunCalibration(const Checkpoint& model, const std::string& out_path,
                                          const RunCalibrationOptions& options, Progress* progress);

// The file that keeps the sums of an unfinished run, "OUT.part".
std::string CalibrationPartPath(const std::string& out_path);

// Adds up the calibrations `paths`. Errors: those of MergeCalibrations.
Result<CalibrationSummary> RunMerge(const std::vector<std::string>& paths,
                                    const std::string& out_path, bool overwrite);

// The members of `edgewise calibrate --json`.
Json ToJson(const CalibrationSummary& summary);

}  // namespace edgewise
