// Quantization: which format each tensor gets, and the encoding of its rows. Files are written by
// pipeline/convert.h.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "compress/quantize/presets.h"
#include "model/checkpoint.h"
#include "quant/encodable.h"
#include "tensor/tensor.h"

namespace edgewise {

// One `--tensor-type PATTERN=FORMAT`.
struct TypeOverride {
  std::string pattern;  // searched anywhere in the tensor's name; the syntax is that of pattern.h
  DType type;
};

// The format that `name` names, if tensors can be written in it. Errors: kInvalidArgument, listing
// those that can.
Result<DType> ParseFormat(std::string_view name);

// Parses "PATTERN=FORMAT"; the last '=' separates. Errors: kInvalidArgument.
Result<TypeOverride> ParseTypeOverride(std::string_view text);

struct PlanOptions {
  const Preset* preset = nullptr;       // never null
  std::vector<TypeOverride> overrides;  // the first that matches a tensor decides
  std::optional<DType> output_type;     // of output.weight
  std::optional<DType> embedding_type;  // of token_embd.weight
  bool leave_output = false;            // do not quantize output.weight
  bool pure = false;                    // preset->type for every matrix, no mixture
  bool allow_requantize = false;        // decode an input that is quantized already
  bool has_importance =
      false;  // importance weights will be given (changes a few rules of the mixtures)
};

// One tensor of the output.
struct TensorPlan {
  size_t source = 0;  // index in Checkpoint::tensors()
  std::string name;
  Shape shape;
  DType from;
  DType to;
  std::string reason;  // why not simply preset->type: "1-D", "tied output", "row of 172 does not
                       // fit q4_k", ...; empty otherwise
  TensorLayout layout = TensorLayout::kRows;  // of the output
  double predicted_kl = 0;                    // nats per token, where the format was chosen by it
};

// Chooses the format of every tensor. `tensors` and `spec` are the checkpoint's; `source_is_gguf`
// keeps the stored type of a tensor that is never quantized (other sources give F32, as llama.cpp's
// converter does). Errors: kInvalidArgument (an override that matches no tensor or whose pattern is
// malformed, a format we cannot write, an input that is quantized already without
// allow_requantize).
Result<std::vector<TensorPlan>> PlanQuantization(std::span<const CheckpointTensor> tensors,
                                                 const ModelSpec& spec, bool source_is_gguf,
                                                 const PlanOptions& options);

// general.file_type of a file without a preset: that of the preset whose format most weights have.
uint32_t FileTypeOf(std::span<const TensorPlan> plan);

// What encoding cost, over all values of one tensor.
struct EncodeError {
  double squared_error = 0;
  double squared_value = 0;
  uint64_t values = 0;
  double rmse() const;           // 0 for no values
  double relative_rmse() const;  // rmse over root mean square of the values
};

// Of tensor `name` with rows of `columns`, whose values `problem`, counted from the first of them,
// keeps from becoming `to`: kInvalidArgument (EncodeFault::kDense) or kBadData, with the place.
Error EncodingError(std::string_view name, uint64_t columns, DType to,
                    const EncodeProblem& problem);

// Encodes the rows of `source` as `to` and hands the bytes to `sink` in order, a bounded piece at a
// time; at most about 32 MiB is held. `importance` (columns; empty = 1 each) weighs the squared
// error. `name` is for messages. The bytes and the error do not depend on the number of threads.
// Errors: kBadData (NaN or infinity; overflow of the half format: the message advises bf16 or f32);
// kInvalidArgument (a sparse format for weights that are not pruned); those of `sink`.
Result<EncodeError> EncodeTensor(std::string_view name, const TensorView& source, DType to,
                                 std::span<const float> importance, ThreadPool* pool,
                                 FunctionRef<Status(std::span<const std::byte> bytes)> sink);

// Of EncodeTensor at its peak, with the pages of `source` that it reads at once.
uint64_t EncodingBytes(const TensorView& source, DType to, int threads);

}  // namespace edgewise
