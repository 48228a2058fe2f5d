// Drafters: cheap guesses at the next tokens, which the model checks together in one step
// (speculative decoding, Leviathan et al. 2023).
//
// Every token is still chosen by the session's sampler from the model's own logits; a guess only
// decides whether the logits after it are there already. So the text is the one that the seed gives
// without a drafter, bit for bit, whatever the sampling. Guesses are chosen with the same random
// numbers, which makes them agree more often than independent draws (Daliri et al. 2024).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "engine/sampler.h"
#include "model/model.h"

namespace edgewise {

class Drafter {
 public:
  virtual ~Drafter() = default;
  // Guesses at most `max` tokens that follow `tokens`; fewer or none where it has nothing to say.
  // `sampler` is the state of the one that will choose. Not thread-safe.
  virtual Result<std::vector<int32_t>> Draft(std::span<const int32_t> tokens,
                                             const Sampler& sampler, size_t max) = 0;
};

// Guesses that what followed the longest earlier occurrence of the text's end follows it again
// (prompt lookup, Saxena 2023). Costs nothing; pays where the text repeats its prompt.
class PromptLookup : public Drafter {
 public:
  Result<std::vector<int32_t>> Draft(std::span<const int32_t> tokens, const Sampler& sampler,
                                     size_t max) override;
};

// Guesses what a smaller model with the same vocabulary would write.
class DraftModel : public Drafter {
 public:
  // `target` lends its threads and must outlive it; `context`: positions of its session. Errors:
  // kInvalidArgument (another vocabulary; the message names the first token that differs), those of
  // KvCache::Create.
  static Result<std::unique_ptr<DraftModel>> Create(std::unique_ptr<Engine> draft, Engine* target,
                                                    uint32_t context);
  Result<std::vector<int32_t>> Draft(std::span<const int32_t> tokens, const Sampler& sampler,
                                     size_t max) override;

 private:
  DraftModel(std::unique_ptr<Engine> draft, ThreadPool* pool, KvCache cache);
  std::unique_ptr<Engine> engine_;
  KvCache cache_;
  ForwardPass forward_;
  std::vector<int32_t> cached_;  // the tokens in the cache
  std::vector<float> logits_;    // (vocab_size)
};

// How many tokens to guess at a time: more while guesses are right, fewer or for some steps none
// when they are wrong, so that a useless drafter costs little.
class DraftLength {
 public:
  explicit DraftLength(size_t max) : max_(max), length_(max < 4 ? max : 4) {}
  // Begins a step: returns how many to guess.
  size_t Next();
  // Of `drafted` guesses the first `accepted` were right.
  void Report(size_t drafted, size_t accepted);

 private:
  size_t max_, length_;
  size_t pause_ = 1;  // steps without guesses after the next failure
  size_t rest_ = 0;   // of such steps, left
};

}  // namespace edgewise
