// Files of adapters: a folder as PEFT writes it, or a GGUF as llama.cpp reads it.
//
// PEFT (huggingface.co/docs/peft, "PEFT checkpoint format"): adapter_config.json with r and
// lora_alpha, and adapter_model.safetensors with
//   base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight  (rank, in)
//   base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight  (out, rank)
// in the row order of Hugging Face.
//
// GGUF (llama.cpp, src/llama-adapter.cpp): general.type "adapter", general.architecture that of the
// base, adapter.type "lora", adapter.lora.alpha (f32), and NAME.lora_a (rank, in), NAME.lora_b
// (out, rank) for a tensor NAME of the base, in its row order.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "model/lora_adapter.h"
#include "model/spec.h"

namespace edgewise {

// Reads the adapter at `path`, a folder of PEFT or a GGUF, for models of this `spec`. Its values
// may be stored in any format that we decode. Errors: kNotFound, kIo, kBadData (a broken file, a
// matrix with one of its two parts, a value that is not finite), kInvalidArgument (of another
// model: an architecture, a tensor or a shape that this one does not have), kUnsupported (a variant
// of LoRA that we lack, named).
Result<LoraAdapter> ReadAdapter(const std::string& path, const ModelSpec& spec);

// The files of an adapter.
std::vector<std::string> AdapterFiles(const std::string& path);

// The same as ReadAdapter from files that are open. Errors: as above.
Result<LoraAdapter> ParsePeftAdapter(const Json& config, const SafetensorsFile& file,
                                     const ModelSpec& spec);
Result<LoraAdapter> ParseGgufAdapter(const GgufFile& file, const ModelSpec& spec);

// Write in F32, each file complete or not at all. A path that ends in ".gguf" is a GGUF, any other
// a folder, which is made where it is missing. Errors: kInvalidArgument (exists, without
// `overwrite`), those of the writers.
Status WriteAdapter(const LoraAdapter& adapter, const ModelSpec& spec, const std::string& path,
                    bool overwrite);

}  // namespace edgewise
