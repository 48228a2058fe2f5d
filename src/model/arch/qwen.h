// What Qwen 2 and Qwen 3 share.
#pragma once

#include "model/arch/config.h"
#include "model/arch/keys.h"
#include "model/arch/sliding.h"

namespace edgewise {

// Errors: kBadData, kUnsupported.
inline Result<ModelSpec> ReadQwenConfig(const ConfigReader& config) {
  EW_TRY(ModelSpec spec, ReadCommonConfig(config, {.context_length = 32768}));
  spec.rope.kind = RopeKind::kNeox;
  EW_TRY(ExpectActivation(config, "hidden_act", "silu"));
  EW_TRY(const bool slides, config.Bool("use_sliding_window", false));
  if (!slides) return spec;
  EW_TRY(const uint32_t window, config.Uint("sliding_window", 4096));
  EW_TRY(const uint32_t full_layers, config.Uint("max_window_layers", 28));
  if (config.Find("layer_types")) {
    EW_TRY(ReadLayerTypes(config, window, 1, &spec));
    return spec;
  }
  std::vector<bool> pattern;
  for (uint32_t layer = 0; layer < spec.n_layers; ++layer) pattern.push_back(layer >= full_layers);
  EW_TRY(SetSlidingPattern(pattern, window, 1, &spec));
  return spec;
}

// Errors: kBadData, kUnsupported.
inline Result<ModelSpec> ReadQwenKeys(const ArchKeys& keys, const TensorIndex& tensors) {
  EW_TRY(ModelSpec spec, ReadCommonKeys(keys, tensors));
  spec.rope.kind = RopeKind::kNeox;
  spec.fused_gate_up = false;
  EW_TRY(ReadSlidingKeys(keys, 0, 1, &spec));
  return spec;
}

}  // namespace edgewise
