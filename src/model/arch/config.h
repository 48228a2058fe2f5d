// Reading a Hugging Face config.json into a ModelSpec: the parts that families share.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"
#include "model/spec.h"

namespace edgewise {

// Typed reads; a member that is null counts as absent. Messages name the key.
class ConfigReader {
 public:
  // `config` must outlive the reader.
  explicit ConfigReader(const Json& config) : config_(&config) {}

  const Json* Find(std::string_view key) const;
  // Errors: kBadData (absent without fallback, another type, out of range).
  Result<uint32_t> Uint(const char* key, std::optional<uint32_t> fallback = {}) const;
  Result<float> Float(const char* key, std::optional<float> fallback = {}) const;
  Result<bool> Bool(const char* key, bool fallback) const;
  Result<std::string> String(const char* key, std::string fallback) const;

 private:
  const Json* config_;
};

// What a family's configuration class assumes for keys that config.json leaves out.
struct ConfigDefaults {
  std::optional<uint32_t> n_heads = {};
  std::optional<uint32_t> n_kv_heads = {};
  std::optional<uint32_t> head_dim = {};
  std::optional<uint32_t> vocab_size = {};
  std::optional<uint32_t> context_length = {};
  float norm_eps = 1e-6f;
  float rope_base = 10000.0f;
  bool tied_embeddings = false;
};

// Reads sizes, norm, RoPE with its scaling and tying. Errors: kBadData, kUnsupported (weights
// quantized by another tool, a RoPE scaling or an activation that we lack).
Result<ModelSpec> ReadCommonConfig(const ConfigReader& config, const ConfigDefaults& defaults);

// Fails unless the activation under `key` is one of the two names (`other` may be null).
Status ExpectActivation(const ConfigReader& config, const char* key, const char* name,
                        const char* other = nullptr);
// Fails when the RoPE scaling is none of `kinds` (no scaling is always fine): llama.cpp lacks it.
Status ExpectScaling(const ModelSpec& spec, std::initializer_list<RopeScalingKind> kinds);
// Fails when the flag is set; `what` says what it would add.
Status ExpectFalse(const ConfigReader& config, const char* key, const char* what);

// Sets sliding_window and sliding_period of `spec` from "layer_types", or, where that is absent,
// from `default_period`. Errors: kUnsupported (a pattern without period).
Status ReadLayerTypes(const ConfigReader& config, uint32_t window, uint32_t default_period,
                      ModelSpec* spec);

}  // namespace edgewise
