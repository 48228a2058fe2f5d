// llama2.c checkpoints (karpathy/llama2.c run.c, runq.c export): version 0 float32 without magic,
// version 2 ("ak42") Q8_0 groups.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/file.h"
#include "base/result.h"
#include "tensor/tensor.h"

namespace edgewise {

struct Llama2cConfig {
  uint32_t dim = 0, hidden_dim = 0, n_layers = 0, n_heads = 0, n_kv_heads = 0, vocab_size = 0,
           seq_len = 0;
  bool shared_classifier = false;  // tied embeddings
  uint32_t version = 0;            // 0 or 2
  uint32_t group_size = 0;         // version 2: values per scale
};

// Tensors are named as in HF ("model.layers.0.self_attn.q_proj.weight"); q and k rows are in
// llama2.c order, which is the interleaved RoPE order that GGUF uses (no permutation needed).
// Version 2 is decoded to F32 on open.
class Llama2cFile {
 public:
  // Errors: kNotFound, kIo, kBadData (a header whose sizes do not give exactly this file length),
  // kUnsupported.
  static Result<Llama2cFile> Open(const std::string& path);
  static Result<Llama2cFile> Parse(std::span<const std::byte> bytes);
  // True when the bytes look like one of these checkpoints (magic, or a header that explains the
  // length).
  static bool Matches(std::span<const std::byte> bytes);

  const Llama2cConfig& config() const { return config_; }
  const TensorIndex& tensors() const { return tensors_; }

 private:
  std::shared_ptr<MappedFile> map_;
  std::vector<Tensor> owned_;
  Llama2cConfig config_;
  TensorIndex tensors_;
};

}  // namespace edgewise
