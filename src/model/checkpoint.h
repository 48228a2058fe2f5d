// Checkpoint: any model we read (GGUF, Hugging Face folder, llama2.c), seen through GGUF's names,
// layout and metadata. `convert` writes exactly this; the runtime, calibration and compression read
// weights through it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "formats/metadata.h"
#include "model/spec.h"
#include "tensor/tensor.h"

namespace edgewise {

enum class CheckpointKind : uint8_t {
  kGguf,
  kHfFolder,
  kLlama2c,
  kConfig,  // a config.json alone
};

struct CheckpointTensor {
  std::string name;  // GGUF name: "blk.0.attn_q.weight"
  DType dtype;       // of what Load returns: as stored, but F32 for norms that Load adds 1 to and
                     // for matrices that GPTQ, AWQ or bitsandbytes quantized
  Shape shape;       // in GGUF row order (q and k rows permuted for architectures whose RoPE is
                     // interleaved)
  TensorLayout layout = TensorLayout::kRows;  // as stored
  std::string stored_as = {};  // where another tool quantized it: "gptq-4bit"; else empty
  uint64_t stored_bytes = 0;   // then: of all its parts
};

// Changes the values of a tensor, (rows, columns), on their way out of a checkpoint. Thread-safe.
using TensorChange = std::function<void(std::span<float> values)>;
// Makes `second` of what `first` made; `first` may be empty.
TensorChange Then(TensorChange first, TensorChange second);

// A tensor of a smaller model: the rows and columns that stay of one before, by rising index;
// empty: all. The elements of a tensor of rank 1 are its rows.
struct TensorPart {
  size_t source = 0;  // index in Checkpoint::tensors()
  std::string name;   // in the smaller model
  std::vector<uint32_t> rows, columns;
};

// Immutable, so thread-safe. Copies share the maps and cost nothing.
class Checkpoint {
 public:
  // Recognises the kind from the path and the bytes. Errors: kNotFound, kIo, kBadData (broken file;
  // a tensor missing or of the wrong shape, named), kUnsupported (an architecture, a variant or a
  // quantization we lack, named).
  static Result<Checkpoint> Open(const std::string& path);

  // A model that has no weights yet: what the config.json `path` describes, with matrices and
  // vectors of zeros in F32. Errors: kNotFound, kIo, kBadData, kUnsupported.
  static Result<Checkpoint> FromConfig(const std::string& path);

  CheckpointKind kind() const;
  const std::string& path() const;
  const ModelSpec& spec() const;
  // general.* and <architecture>.* keys as llama.cpp's converter writes them; for a GGUF all keys
  // of the file, tokenizer included. A folder's tokenizer is read by engine/vocab_metadata.h.
  const Metadata& metadata() const;
  // In the order in which convert writes them.
  std::span<const CheckpointTensor> tensors() const;
  std::optional<size_t> Find(std::string_view name) const;

  // Returns tensor `index`, borrowed from the map where the source stores it as is, else built anew
  // (permuted, decoded). A borrowed one lives as long as this checkpoint or a copy of it.
  Result<Tensor> Load(size_t index) const;
  // Returns a copy whose Load gives the tensors named by index as F32, changed; after the changes
  // that this one makes already.
  Checkpoint Changed(std::unordered_map<size_t, TensorChange> changes) const;
  // Returns a copy that shows the smaller model of this `spec`, whose tensors are these parts of
  // floats, cut as they are loaded. Its metadata tells the new sizes.
  Checkpoint Cut(const ModelSpec& spec, std::vector<TensorPart> parts) const;
  // Tells the kernel that the pages of this tensor are not needed soon.
  void DropPages(size_t index) const;

 private:
  struct Impl;
  struct Changes;
  struct CutModel;
  explicit Checkpoint(std::shared_ptr<const Impl> impl);
  Result<Tensor> LoadStored(size_t index) const;
  std::shared_ptr<const Impl> impl_;
  std::shared_ptr<const CutModel> cut_;     // null: the model as stored
  std::shared_ptr<const Changes> changes_;  // after the cut; null: none
};

}  // namespace edgewise
