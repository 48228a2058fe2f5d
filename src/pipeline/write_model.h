// Writing a model: the one path by which convert, quantize, pack and unpack (convert.h) make a
// GGUF.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/progress.h"
#include "base/result.h"
#include "compress/prune/prune.h"
#include "compress/prune/structured.h"
#include "compress/quantize/quantize.h"
#include "compress/quantize/scale.h"
#include "formats/gguf.h"
#include "model/checkpoint.h"
#include "pipeline/calibration_text.h"
#include "pipeline/convert.h"

namespace edgewise {

// What is to be written.
struct WriteJob {
  PlanOptions plan;  // without a preset every tensor keeps its format
  bool pack = false;
  QuantizeMethod method = QuantizeMethod::kRoundToNearest;
  CalibrationText calibration;
  bool calibration_file = false;  // not a text
  bool rotate = false;
  ScaleMethod scale = ScaleMethod::kNone;
  // Of float models; at most one of them, and no other change.
  std::optional<PruneOptions> prune;
  std::optional<StructureOptions> structure;
  bool predict = false;       // in a dry run of `prune`: what would go
  std::string save_mask;      // with `prune`: mask file to write as well; empty: none
  uint64_t target_bytes = 0;  // 0: the formats are the preset's
  double target_bpw = 0;
  uint64_t target_header_bytes = 0;
  Json recipe;  // what decides the output, and nothing else: no paths, no thread count
  std::string tokenizer_path;
  std::string journal_path;
  int threads = 0;
  bool overwrite = false;
  bool dry_run = false;
  bool estimate = false;
  bool calibration_planned = false;
  const LayerTrial* planned_calibration = nullptr;
  const SourceHash* source = nullptr;
};

// The formats that the options give a model's tensors; without a preset each keeps its own. Errors:
// those of PlanQuantization.
Result<std::vector<TensorPlan>> PlanFormats(const Checkpoint& model, const PlanOptions& options);

std::vector<GgufTensorDecl> Declare(std::span<const TensorPlan> plan);

// Turns `model` into its rotated self, whose tensors are computed when loaded. Returns what of it
// is rotated: "residual+values", ... Errors: those of Rotate; kInvalidArgument (a tensor is
// quantized, without `allow_quantized`).
Result<std::string> RotateSource(bool allow_quantized, Checkpoint* model);

// Writes `checkpoint` to `out_path`, or plans it. Errors: those of Convert and Quantize.
Result<ConvertSummary> WriteModel(Checkpoint checkpoint, const std::string& out_path, WriteJob job,
                                  Progress* progress);

}  // namespace edgewise
