// Export of floats: any model that we read as a Hugging Face folder, as transformers loads it.
#pragma once

#include <string>
#include <string_view>

#include "base/progress.h"
#include "base/result.h"
#include "pipeline/export.h"

namespace edgewise {

// "f32", "f16", "bf16".
bool IsFloatExport(std::string_view to);

// Writes summary->output: all tensors in the format of options.to, quantized ones decoded, one at a
// time in memory; the config.json, whose shapes and numbers must be the model's, with another
// torch_dtype; the tokenizer's files. Errors: those of Checkpoint::Open and SafetensorsWriter;
// kInvalidArgument (no config.json or tokenizer, or one of another model; an output that exists),
// kBadData (a value that the format cannot hold; the tensor is named), kCancelled.
Status ExportFloats(const std::string& in_path, const ExportOptions& options, Progress* progress,
                    ExportSummary* summary);

}  // namespace edgewise
