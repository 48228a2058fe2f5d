// Session: one KV timeline on an engine: feed tokens, generate text.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "engine/sampler.h"
#include "model/model.h"

namespace edgewise {

struct SessionOptions {
  uint32_t context = 0;  // positions; 0: the trained context, at most 4096
  kernels::KvFormat kv_format = kernels::KvFormat::kF16;
};

struct GenerateOptions {
  SamplerOptions sampler;
  uint32_t max_tokens = 256;
  std::vector<std::string> stop;  // generation ends before the first of these in the text
  bool ignore_eos = false;
};

enum class StopReason : uint8_t { kEndOfText, kStopString, kMaxTokens, kContextFull, kCancelled };

struct Generation {
  std::string text;
  std::vector<int32_t> ids;
  StopReason reason = StopReason::kMaxTokens;
  double prefill_seconds = 0;
  std::vector<double> token_seconds;  // wall time of each decode step
};

// Not thread-safe; the engine must outlive it.
class Session {
 public:
  // Errors: kInvalidArgument (a context larger than the model was trained for), kOutOfMemory.
  static Result<Session> Create(Engine* engine, const SessionOptions& options);

  // Appends prompt tokens without computing logits for them yet. Errors: kInvalidArgument when they do not fit, with the
  // counts; nothing is truncated.
  Status Append(std::span<const int32_t> ids);
  // Generates after what was appended. `on_text` gets whole characters as they are ready; returning false cancels.
  Result<Generation> Generate(const GenerateOptions& options,
                              const std::function<bool(std::string_view text)>& on_text = {});
  // The tokens whose keys are cached or pending.
  std::span<const int32_t> tokens() const { return tokens_; }
  uint32_t context() const { return cache_.capacity(); }
  void Clear();

 private:
  Session(Engine* engine, KvCache cache);
  Engine* engine_;
  KvCache cache_;
  ForwardPass forward_;
  std::vector<int32_t> tokens_;  // cached ones first, then pending
};

}  // namespace edgewise
