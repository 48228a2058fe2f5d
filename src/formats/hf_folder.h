// A Hugging Face model folder: config.json, model.safetensors or its shards, tokenizer files.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "formats/safetensors.h"

namespace edgewise {

// Maps all shards at once. Shard names from the index must be plain file names in the same folder.
class HfFolder {
 public:
  // Errors: as SafetensorsFile::Open, and kNotFound when config.json or the weights are missing
  // (pickle files are named and refused), kBadData when index and shards disagree.
  static Result<HfFolder> Open(const std::string& path);

  const std::string& path() const { return path_; }
  const Json& config() const { return config_; }
  // generation_config.json, tokenizer_config.json; null values when the file is absent.
  const Json& generation_config() const { return generation_config_; }
  const Json& tokenizer_config() const { return tokenizer_config_; }
  // All tensors of all shards.
  const TensorIndex& tensors() const { return tensors_; }
  std::span<const SafetensorsFile> shards() const { return shards_; }

 private:
  std::string path_;
  Json config_, generation_config_, tokenizer_config_;
  std::vector<SafetensorsFile> shards_;
  TensorIndex tensors_;
};

}  // namespace edgewise
