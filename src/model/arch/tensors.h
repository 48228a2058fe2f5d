// The tensors that a ModelSpec needs: GGUF name, Hugging Face name, shape.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/spec.h"
#include "tensor/tensor.h"

namespace edgewise {

struct NeededTensor {
  std::string name;     // GGUF: "blk.0.attn_q.weight"
  std::string hf_name;  // "model.layers.0.self_attn.q_proj.weight"; empty: made from config.json
  Shape shape;
  // Heads whose rows Hugging Face keeps as two halves and interleaved RoPE as pairs; 0: same order.
  uint32_t permuted_heads = 0;
  // True for the weights of linear layers; those of several layers in one tensor begin at row 0 and
  // at `cuts`.
  bool linear = false;
  std::vector<uint64_t> cuts = {};
};

// In the order in which llama.cpp's converter writes them. `spec` has passed CheckSpec.
std::vector<NeededTensor> NeededTensors(const ModelSpec& spec);

// True for tensors of a Hugging Face folder that hold nothing learned or nothing needed: RoPE
// buffers, causal masks, and the output head of a model whose config ties it to the embedding.
bool IsIgnoredHfTensor(const ModelSpec& spec, std::string_view hf_name);
// The same for a GGUF.
bool IsIgnoredGgufTensor(std::string_view name);

}  // namespace edgewise
