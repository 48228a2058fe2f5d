// Session: one KV timeline on an engine: feed tokens, generate text.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/drafter.h"
#include "engine/engine.h"
#include "engine/sampler.h"
#include "model/model.h"

namespace edgewise {

class TextEmitter;

struct SessionOptions {
  uint32_t context = 0;  // positions; 0: the trained context, at most 4096
  kernels::KvFormat kv_format = kernels::KvFormat::kF16;
};

struct GenerateOptions {
  SamplerOptions sampler;
  uint32_t max_tokens = 256;
  std::vector<std::string> stop;  // generation ends before the first of these in the text
  bool ignore_eos = false;        // end-of-generation tokens are never chosen
  const std::atomic<bool>* cancel =
      nullptr;                 // looked at before each step and each part of the prompt
  Drafter* drafter = nullptr;  // guesses tokens ahead; the text stays the same
  uint32_t max_draft = 16;     // tokens to guess at a time, at most kMaxDraft
};
inline constexpr uint32_t kMaxDraft = 64;

enum class StopReason : uint8_t { kEndOfText, kStopString, kMaxTokens, kContextFull, kCancelled };

struct Generation {
  std::string text;  // exactly what on_text got: whole characters, nothing of a stop string
  std::vector<int32_t>
      ids;  // of every token kept in the session, a stop string's too; no end-of-generation token
  StopReason reason = StopReason::kMaxTokens;
  double prefill_seconds = 0;  // what was pending, up to its logits
  std::vector<double>
      token_seconds;      // wall time from one token to the next, for each token but the first
  uint64_t drafted = 0;   // tokens guessed
  uint64_t accepted = 0;  // of them, those that were chosen
};

// Not thread-safe; the engine must outlive it, and one session of it runs at a time.
class Session {
 public:
  // Errors: kInvalidArgument (a context larger than the model was trained for), kOutOfMemory.
  static Result<Session> Create(Engine* engine, const SessionOptions& options);

  // Appends prompt tokens without computing anything yet. Errors: kInvalidArgument when an id is
  // not in the vocabulary or they do not fit, with the counts; nothing is truncated.
  Status Append(std::span<const int32_t> ids);
  // Makes `ids` the whole timeline: what it shares with the present one at its start stays cached,
  // the rest is pending. Returns how many tokens stay cached. For a chat: encode all messages anew
  // and hand them over. Errors: as Append, and then nothing changes.
  Result<size_t> Replace(std::span<const int32_t> ids);

  // Generates after what was appended. `on_text` gets whole characters as they are ready; returning
  // false cancels. The text of one engine, prompt and seed is the same for any number of threads.
  // After it the session holds the prompt and Generation::ids; an end-of-generation token is not
  // kept, so append it (or Replace) before the next turn. Errors: kInvalidArgument (nothing to
  // continue, sampler options, max_draft, an empty or ill-formed stop string), those of
  // ForwardPass::Run, Sampler::Sample and the drafter.
  Result<Generation> Generate(const GenerateOptions& options,
                              const std::function<bool(std::string_view text)>& on_text = {});

  // The tokens whose keys are cached or pending.
  std::span<const int32_t> tokens() const { return tokens_; }
  uint32_t cached() const { return cache_.size(); }
  uint32_t context() const { return cache_.capacity(); }
  uint64_t kv_bytes() const { return cache_.bytes(); }
  void Clear();

 private:
  Session(Engine* engine, KvCache cache);
  Status CheckAppend(std::span<const int32_t> ids, size_t present) const;
  bool full() const { return tokens_.size() >= cache_.capacity(); }
  // Computes what is pending; logits_ are then those after the last token. False: cancelled.
  Result<bool> Prefill(const std::atomic<bool>* cancel);
  Result<Sampler> MakeSampler(const GenerateOptions& options) const;
  Result<StopReason> Decode(const GenerateOptions& options, Sampler* sampler, TextEmitter* emitter,
                            Generation* generation);
  Result<std::vector<int32_t>> Guess(const GenerateOptions& options, const Sampler& sampler,
                                     size_t count, const Generation& generation);
  // Computes the logits after the last token and, row by row, after each of `draft`.
  Status Step(std::span<const int32_t> draft);
  std::span<const float> Logits(size_t row) const;

  Engine* engine_;
  KvCache cache_;
  ForwardPass forward_;
  std::vector<int32_t> tokens_;  // cached ones first, then pending
  std::vector<float> logits_;    // (rows, vocab_size)
};

}  // namespace edgewise
