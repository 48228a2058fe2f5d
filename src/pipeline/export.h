// Export: a Hugging Face folder with its linear layers quantized as GPTQ, AWQ or bitsandbytes store
// them, for the runtimes that read those, or with any model's floats.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/json.h"
#include "base/progress.h"
#include "base/result.h"
#include "tensor/tensor.h"

namespace edgewise {

struct ExportOptions {
  std::string to;            // "gptq", "awq", "bnb-nf4", "bnb-int8", "f16", "bf16" or "f32"
  uint32_t bits = 4;         // gptq: 2, 3, 4 or 8; 4 otherwise
  int64_t group_size = 128;  // gptq, awq: columns that share a scale; -1: all
  bool asymmetric = false;   // gptq: fit zero points; awq always does
  // Importance of each column by GGUF tensor name ("blk.0.attn_q.weight"), finite and not negative;
  // layers without an entry weigh all columns alike.
  std::unordered_map<std::string, std::vector<float>> importance;
  // Of floats: the config.json, or the folder with it, and the folder with the tokenizer's files;
  // empty: those of the model, which is a folder itself.
  std::string config, tokenizer;
  int threads = 0;  // 0: all CPUs
  bool overwrite = false;
};

struct ExportedLayer {
  std::string name;  // in the folder, without ".weight"
  Shape shape;       // (rows, columns)
  uint64_t bytes = 0;
  double relative_rmse = 0;  // of the decoded values, over the root mean square of the source's
};

struct ExportSummary {
  std::string output;          // path of the folder
  uint64_t bytes = 0;          // of model.safetensors
  uint64_t parameters = 0;     // of the model
  double bits_per_weight = 0;  // of the quantized layers, or of all floats
  double seconds = 0;
  uint64_t peak_rss_bytes = 0;  // of this process so far
  std::vector<ExportedLayer> layers;
};

// Writes the folder `out_path`. In floats it holds any model that we read (export_floats.h).
// Else it is made from the Hugging Face folder `in_path`: model.safetensors with the
// linear layers of all blocks quantized and the other tensors as they are, the source's tokenizer
// files, and its config.json with a "quantization_config", last. One layer is in memory at a time.
// The same inputs and options give the same bytes for any number of threads. Errors: those of
// Checkpoint::Open and SafetensorsWriter; kInvalidArgument (an unknown target or option, an output
// that exists), kUnsupported (a source that is no folder, a shape that the layout cannot hold),
// kBadData (NaN or infinity in a weight; the tensor is named), kCancelled.
Result<ExportSummary> Export(const std::string& in_path, const std::string& out_path,
                             const ExportOptions& options, Progress* progress);

// The summary as the JSON keys of `edgewise export --json`.
Json SummaryToJson(const ExportSummary& summary);

}  // namespace edgewise
