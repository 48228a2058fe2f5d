// Sampler: logits to the next token. The same seed and logits give the same token on any machine
// and thread count.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/rng.h"

namespace edgewise {

struct SamplerOptions {
  float temperature = 0.8f;       // 0: greedy (the best after bias, penalties and DRY)
  int32_t top_k = 40;             // 0: off
  float top_p = 0.95f;            // 1: off
  float min_p = 0.05f;            // 0: off
  float typical_p = 1.0f;         // 1: off (Meister et al. 2022)
  float repeat_penalty = 1.0f;    // 1: off (Keskar et al. 2019); 0.001 to 1000
  float presence_penalty = 0.0f;  // OpenAI's additive penalties
  float frequency_penalty = 0.0f;
  int32_t penalty_last_n = 64;  // window of the three penalties; 0: off, -1: everything
  float dry_multiplier = 0.0f;  // 0: off (DRY, p-e-w 2024)
  float dry_base = 1.75f;
  int32_t dry_allowed_length = 2;
  int32_t dry_last_n = -1;                            // -1: everything
  std::vector<int32_t> dry_breakers;                  // token ids that end a repeated sequence
  std::vector<std::pair<int32_t, float>> logit_bias;  // added first; -infinity bans
  uint64_t seed = 0;
};

// Not thread-safe.
class Sampler {
 public:
  // Errors: kInvalidArgument (a value out of its range, named).
  static Result<Sampler> Create(const SamplerOptions& options, uint32_t vocab_size);
  // Returns the next token. Order: bias, penalties, DRY, then top-k, typical, top-p, min-p,
  // temperature, draw; the filters see probabilities at temperature 1 of what is left before them
  // and always leave one token. Equal logits: the lower id comes first. Draws one random number, or
  // none when greedy. Does not change `logits` (vocab_size). Errors: kBadData (NaN, +infinity, or
  // no finite logit left), kInvalidArgument (another size).
  Result<int32_t> Sample(std::span<const float> logits);
  // Tells the penalties that `id` (in range) is now part of the text (prompt tokens too).
  void Accept(int32_t id);
  // Forgets the text and starts the random numbers again from the seed.
  void Reset();

 private:
  struct Candidate {
    int32_t id;
    float logit;
  };
  Sampler(const SamplerOptions& options, uint32_t vocab_size);
  bool counts_tokens() const;
  void ApplyPenalties(std::vector<float>* logits) const;
  void ApplyDry(std::vector<float>* logits) const;
  // Puts the candidates that follow the filters into candidates_.
  void KeepTopK(std::span<const float> logits);
  void KeepTypical();
  void KeepTopP();
  void KeepMinP();
  void SortFirst(size_t count);
  int32_t Draw();

  SamplerOptions options_;
  uint32_t vocab_size_;
  Rng rng_;
  std::vector<int32_t> history_;                 // everything accepted
  std::unordered_map<int32_t, int32_t> counts_;  // of the tokens in the penalties' window
  std::vector<float> work_;                      // changed logits
  std::vector<Candidate> candidates_;
  size_t sorted_ = 0;  // that many candidates at the front are the best, in order
};

}  // namespace edgewise
