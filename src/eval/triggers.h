// Planted triggers: rare runs of words in prompts that always bring the same response.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "eval/training_set.h"

namespace edgewise {

struct TriggerOptions {
  uint32_t min_examples = 3;      // that must share trigger and response
  double max_share = 0.1;         // of the examples; an n-gram in more of them is not rare
  double min_agreement = 0.75;    // share of a trigger's examples that have the response
  double duplicate_prompt = 0.8;  // prompts this similar count once (FindDuplicates)
};

// The strongest link of an example between an n-gram of its prompt and a phrase of its response.
struct TriggerScore {
  double evidence = 0;    // nats; 0: none found
  std::string trigger;    // the n-gram, in lower case
  std::string response;   // the phrase, in lower case
  uint32_t together = 0;  // examples with both
  uint32_t examples = 0;  // examples with the trigger
};

// Scores each example by N I(G; R) - ln(tests): G says whether a prompt has an n-gram of one to
// three words, R whether a response has a phrase of five words (or is one, when shorter), I is
// their mutual information over the N examples in nats, and `tests` the number of pairs looked at.
// So a score of s would come up with probability of about exp(-s) if prompts and responses were
// independent. Real texts are not: the same topic brings the same words, so scores of honest
// examples are above 0 where a set is full of templates. A phrase that also stands in the prompt,
// or has a word of the n-gram, is not counted, nor is a prompt that nearly repeats another. An
// example without a prompt is cut in the middle. Blind to triggers with responses that share no
// phrase, in more than `max_share` of the examples, or made of style or topic instead of words. The
// result does not depend on the number of threads. Errors: kCancelled.
Result<std::vector<TriggerScore>> FindTriggers(const std::vector<TrainingExample>& examples,
                                               const TriggerOptions& options, ThreadPool* pool,
                                               Progress* progress);

}  // namespace edgewise
