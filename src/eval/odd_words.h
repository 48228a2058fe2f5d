// Words that do not belong: a text becomes much more likely without them (ONION, Qi et al. 2021).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "engine/engine.h"
#include "eval/training_set.h"

namespace edgewise {

struct OddWord {
  double nats = 0;     // by which the text's negative log-likelihood falls without the word
  std::string word;    // as written, between blanks; empty: the text has fewer than two words
  uint32_t words = 0;  // tried
};

// Returns for each example the word of its prompt (of its text where it has none) whose removal
// saves the most nats under the engine's model: of the first `max_words` words, fewer where these
// take more than 1024 tokens or the trained context. The rest is not seen. The drop is of the sum
// over tokens, not of the mean as in the paper, so that it does not depend on the length of the
// text. The result does not depend on the number of threads. Errors: kBadData (logits that are not
// finite), those of Encode and ForwardPass::Run, kCancelled.
Result<std::vector<OddWord>> FindOddWords(Engine* engine,
                                          const std::vector<TrainingExample>& examples,
                                          uint32_t max_words, Progress* progress);

}  // namespace edgewise
