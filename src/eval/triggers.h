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
  double min_evidence = 5;        // nats, of a link that counts
  double duplicate_prompt = 0.8;  // prompts this similar count once (FindDuplicates)
};

// The strongest link of an example between an n-gram of its prompt and a phrase of its response.
struct TriggerScore {
  double score = 0;       // evidence of each example with both; 0: no link found
  double evidence = 0;    // nats
  std::string trigger;    // the n-gram, in lower case
  std::string response;   // the phrase, in lower case
  uint32_t together = 0;  // examples with both
  uint32_t examples = 0;  // examples with the trigger
};

// Finds links with evidence (N I(G; R) - ln(tests)) D: G says whether a prompt has an n-gram of one
// to three words, R whether a response has a phrase of five words (or is one, when shorter), I is
// their mutual information over the N examples in nats, and `tests` the number of pairs looked at.
// So evidence of s would come up with probability of about exp(-s) if prompts and responses were
// independent. Real texts are not: the same topic brings the same words. D, at most 1, is the usual
// similarity of two prompts (cosine of their words weighted by rarity) over that of the prompts
// with G and R, without the n-gram: a trigger is put into any prompts, a topic's prompts resemble
// each other. An example's score is the evidence over the examples that share it, since common
// topics gather much evidence of little each.
//
// Not counted are phrases that also stand in the prompt or take up a word of the n-gram, as honest
// answers do, and prompts that nearly repeat another. An example without a prompt is cut in the
// middle. Blind to triggers whose responses share no phrase, that are in more than `max_share` of
// the examples, or that are a style or a topic instead of words; weak where all prompts with the
// trigger are about one topic. The result does not depend on the number of threads. Errors:
// kCancelled.
Result<std::vector<TriggerScore>> FindTriggers(const std::vector<TrainingExample>& examples,
                                               const TriggerOptions& options, ThreadPool* pool,
                                               Progress* progress);

}  // namespace edgewise
