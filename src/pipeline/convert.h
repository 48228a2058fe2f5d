// Convert, quantize, pack: any checkpoint to a GGUF file, streamed through one writer. Stock
// llama.cpp loads the file unless it is packed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/cost.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/result.h"
#include "calibrate/cost.h"
#include "compress/prune/prune.h"
#include "compress/prune/structured.h"
#include "compress/quantize/quantize.h"
#include "compress/quantize/scale.h"
#include "formats/metadata.h"
#include "model/checkpoint.h"
#include "pipeline/calibration_text.h"
#include "pipeline/packing.h"
#include "pipeline/source_hash.h"

namespace edgewise {

struct ConvertOptions {
  // F32, F16, BF16 or Q8_0 for the matrices; empty: F16 or BF16 as the source has it, F16 for
  // anything else.
  std::optional<DType> to = DType::kF16;
  bool rotate = false;         // compress/quantize/rotate.h
  std::string lora;            // adapter to merge first (model/lora_file.h); empty: none
  std::string tokenizer_path;  // for sources that keep it apart (llama2.c)
  int threads = 0;             // 0: all CPUs
  bool overwrite = false;
  bool dry_run = false;   // plan and exact size only
  bool estimate = false;  // in a dry run: time and memory too, by short trials
};

// How the values of a matrix are chosen.
enum class QuantizeMethod : uint8_t {
  kRoundToNearest,  // "rtn": least squares of the weights themselves
  kImatrix,         // "imatrix": weighted by the mean square of each input column
  kGptq,            // "gptq": compress/quantize/feedback.h
};

struct QuantizeOptions {
  std::string preset = "q4_k_m";  // a name of presets.h; empty: a target
  // Instead of a preset, the size of the whole file, at most: the formats that cost least by a
  // calibration file (compress/quantize/allocate.h).
  uint64_t target_bytes = 0;
  double target_bpw = 0;  // bytes * 8 / parameters
  // What the file that the size is meant for takes beside its tensors. 0: as much as this one.
  uint64_t target_header_bytes = 0;
  std::vector<TypeOverride> overrides;  // --tensor-type
  std::optional<DType> output_type;     // --output-tensor-type
  std::optional<DType> embedding_type;  // --token-embedding-type
  bool leave_output = false;            // --leave-output-tensor
  bool pure = false;
  bool allow_requantize = false;
  bool pack = false;  // as Pack does
  QuantizeMethod method = QuantizeMethod::kRoundToNearest;
  bool rotate = false;                     // before anything else; a calibration is then a text
  ScaleMethod scale = ScaleMethod::kNone;  // by the calibration, which is then a file
  // What the other methods know of the inputs: a calibration file, or for gptq a text. A text runs
  // through the layers quantized so far, and so costs time but no file of second moments.
  CalibrationText calibration;
  std::string tokenizer_path;
  int threads = 0;  // 0: all CPUs
  bool overwrite = false;
  bool dry_run = false;
  bool estimate = false;  // in a dry run: time and memory too, by short trials
  // In a dry run: `calibration` is the text that a calibration file will be made from, as the trial
  // tells where an estimate is wanted. Formats for a size stay open then.
  bool calibration_planned = false;
  const LayerTrial* planned_calibration = nullptr;
  // What the provenance names as the source, where it is known already: the model's files, or those
  // that it was made from. Null: the model's files are hashed.
  const SourceHash* source = nullptr;
  // A TensorJournal that finished tensors are kept in, and taken from where an earlier run with the
  // same model and options wrote them. Empty: none. Not with `pack`.
  std::string journal_path;
};

// The name of `method`, `rotate` and `scale` together, as --method takes it.
std::string MethodName(const QuantizeOptions& options);
// Sets these three. Errors: kInvalidArgument, listing the names.
Status ParseMethod(std::string_view name, QuantizeOptions* options);

struct PackOptions {
  int threads = 0;  // 0: all CPUs
  bool overwrite = false;
  bool dry_run = false;
  bool estimate = false;  // in a dry run: time and memory too, by short trials
};

struct ConvertedTensor {
  std::string name;
  Shape shape;
  DType from;
  DType to;
  TensorLayout layout = TensorLayout::kRows;  // of the output
  uint64_t bytes = 0;
  double output_error = 0;   // predicted: |change of the output| / |output|, where inputs are known
  double rmse = 0;           // of the new values against the source's; 0 in a dry run
  double relative_rmse = 0;  // over the root mean square of the values
  std::string reason;        // why this tensor differs from the rest; empty otherwise
  double predicted_kl = 0;   // nats per token, with a target
  double density = 1;        // share of weights that pruning left
};

// What structured pruning removed, or is to remove.
struct StructureSummary {
  StructureSizes before, after;
  std::vector<std::string> notes;  // of shares that were rounded
  std::vector<uint32_t> removed_layers;
  double channel_score = 0;       // share of the scores that went with channels
  std::vector<LayerLoss> layers;  // those kept; empty in a plan without trials
};

struct ConvertSummary {
  std::string output;         // path
  uint64_t bytes = 0;         // of the whole file; exact in a dry run
  uint64_t source_bytes = 0;  // of all tensors as stored in the source
  uint64_t parameters = 0;
  double bits_per_weight = 0;  // tensor bytes * 8 / parameters
  double seconds = 0;
  uint64_t peak_rss_bytes = 0;  // of this process so far
  std::string source_sha256;    // empty in a dry run
  std::string rotated;          // "residual+values" or "values"; empty: nothing
  size_t scaled_inputs = 0;     // of linear layers
  double predicted_kl = 0;      // nats per token, with a target
  uint64_t target_bytes = 0;    // of the whole file, at most; 0: no target
  double density = 1;           // of all pruned matrices together
  std::optional<StructureSummary> structure;
  std::optional<Cost> estimate;  // of a dry run that was asked for it
  PackingCount packing;
  std::vector<ConvertedTensor> tensors;
  Metadata metadata;  // of the file
};
using QuantizeSummary = ConvertSummary;

// Writes `in_path` (anything Checkpoint::Open reads) to `out_path` as GGUF. Memory does not grow
// with the model. The same inputs and options give the same bytes for any number of threads.
// Errors: those of Checkpoint::Open, LoadVocab and GgufWriter; kInvalidArgument (output exists, is
// the input, a format that convert does not offer); kBadData (NaN or infinity in a weight, overflow
// of F16; the tensor is named); kCancelled.
Result<ConvertSummary> Convert(const std::string& in_path, const std::string& out_path,
                               const ConvertOptions& options, Progress* progress);

// The same, with each tensor in the format its preset, overrides and row length give it.
// Errors: those of Convert, FindPreset and PlanQuantization.
Result<QuantizeSummary> Quantize(const std::string& in_path, const std::string& out_path,
                                 const QuantizeOptions& options, Progress* progress);

// The same for a model that may be changed on its way (Checkpoint::Changed).
Result<QuantizeSummary> Quantize(const Checkpoint& model, const std::string& out_path,
                                 const QuantizeOptions& options, Progress* progress);

struct PruneJobOptions {
  PruneOptions prune;                         // of single weights
  std::optional<StructureOptions> structure;  // in place of `prune`: a smaller model
  // Of `prune` with PruneMethod::kMask, which come from here: mask files or pruned models.
  std::vector<std::string> masks;
  std::string save_mask;  // with `prune`: mask file to write as well; empty: none
  // For the methods that need it: a calibration file, or a text that runs through the layers pruned
  // so far. To remove structure only a text will do.
  CalibrationText calibration;
  std::string tokenizer_path;
  int threads = 0;  // 0: all CPUs
  bool overwrite = false;
  bool dry_run = false;
  bool estimate = false;  // as in QuantizeOptions; of structure also what would go
  bool predict = false;   // in a dry run: what would go of single weights (PredictPruned)
  const SourceHash* source = nullptr;  // as in QuantizeOptions
  std::string journal_path;            // as in QuantizeOptions; not with `structure`
};

// Writes `in_path`, whose tensors are floats, with pruned weights set to zero, or without the
// structure that is removed; formats stay as they are. A dry run with an estimate does all of
// structured pruning but the writing, and so tells what goes. Errors: those of Convert,
// PruneByCalibration, PruneLayerwise, PlanStructure and PruneStructure; kInvalidArgument (a
// calibration is missing or has no use).
Result<ConvertSummary> Prune(const std::string& in_path, const std::string& out_path,
                             const PruneJobOptions& options, Progress* progress);

// The same for a model that may be changed on its way (Checkpoint::Changed).
Result<ConvertSummary> Prune(const Checkpoint& model, const std::string& out_path,
                             const PruneJobOptions& options, Progress* progress);

// Writes the GGUF `in_path` with the matrices in block formats of its linear layers packed as the
// kernels read them, so that loading it copies nothing. Errors: those of Convert; kInvalidArgument
// (not a GGUF, packed already, no matrix to pack).
Result<ConvertSummary> Pack(const std::string& in_path, const std::string& out_path,
                            const PackOptions& options, Progress* progress);

// Writes a packed GGUF with every tensor in rows again: the bytes of the tensors are those from
// before. Errors: those of Convert; kInvalidArgument (nothing is packed).
Result<ConvertSummary> Unpack(const std::string& in_path, const std::string& out_path,
                              const PackOptions& options, Progress* progress);

// The summary as the JSON keys of `edgewise quantize --json`: output, bytes, bits_per_weight,
// seconds, peak_rss_bytes, ...
Json SummaryToJson(const ConvertSummary& summary);

}  // namespace edgewise
