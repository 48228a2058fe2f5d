#include "eval/triggers.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <span>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "base/strings.h"
#include "eval/duplicates.h"
#include "eval/words.h"

namespace edgewise {
namespace {

constexpr size_t kMaxTriggerWords = 3;
constexpr size_t kPhraseWords = 5;

// A run of words of one example, the first of its kind there.
struct Occurrence {
  uint64_t hash;
  uint32_t example;
  uint32_t begin;  // word
};

// The occurrences of one n-gram.
struct Run {
  size_t begin, size;
  size_t words;  // n
};

// A phrase of responses: how many have it, and one place where it stands.
struct Phrase {
  uint32_t count = 0;
  uint32_t example = 0, begin = 0;
};

// What an n-gram brings.
struct Link {
  double information = 0;  // N I(G; R), nats
  Occurrence trigger = {};
  size_t trigger_words = 0;
  uint64_t phrase = 0;
  uint32_t together = 0, examples = 0;
  double diversity = 1;  // of the prompts with both
};

double Term(double count, double total, double row, double column) {
  return count <= 0 ? 0 : count * std::log(count * total / (row * column));
}

// N times the mutual information of two events of `g` and `r` of `n` examples, `both` of them
// common.
double Information(double both, double g, double r, double n) {
  return Term(both, n, g, r) + Term(g - both, n, g, n - r) + Term(r - both, n, n - g, r) +
         Term(n - g - r + both, n, n - g, n - r);
}

class Search {
 public:
  Search(const std::vector<TrainingExample>& examples, const TriggerOptions& options,
         ThreadPool* pool, Progress* progress)
      : examples_(examples), options_(options), pool_(pool), progress_(progress) {}

  Result<std::vector<TriggerScore>> Find() {
    EW_TRY(Prepare());
    CountPhrases();
    CountWords();
    for (size_t n = 1; n <= kMaxTriggerWords; ++n) CollectTriggers(n);
    EW_TRY(const uint64_t tests, MeasureLinks());
    return BestOfExamples(std::log(static_cast<double>(std::max<uint64_t>(tests, 1))));
  }

 private:
  Status Prepare() {
    std::vector<std::string> texts;
    for (const TrainingExample& example : examples_) {
      std::vector<std::string> prompt = Words(example.prompt), response = Words(example.response);
      if (prompt.empty()) {
        const auto middle = response.begin() + static_cast<std::ptrdiff_t>(response.size() / 2);
        prompt.assign(response.begin(), middle);
        response.erase(response.begin(), middle);
      }
      texts.push_back(Join(prompt, " "));
      prompts_.push_back(std::move(prompt));
      responses_.push_back(std::move(response));
    }
    EW_TRY(const std::vector<Duplicate> duplicates,
           FindDuplicates(texts, options_.duplicate_prompt, pool_, progress_));
    for (size_t i = 0; i < examples_.size(); ++i) {
      counts_.push_back(duplicates[i].original == i ? 1 : 0);
      total_ += counts_.back();
    }
    return Ok{};
  }

  // Leaves in phrases_[i] the phrases of response i that enough examples have.
  void CountPhrases() {
    phrases_.resize(examples_.size());
    pool_->ParallelFor(examples_.size(), 16, [&](size_t begin, size_t end, int) {
      for (size_t i = begin; i < end; ++i) {
        phrases_[i] = NgramHashes(responses_[i], kPhraseWords);
        SortUnique(&phrases_[i]);
        std::vector<uint64_t> copied = NgramHashes(prompts_[i], kPhraseWords);
        SortUnique(&copied);
        std::erase_if(phrases_[i], [&](uint64_t phrase) {
          return std::binary_search(copied.begin(), copied.end(), phrase);
        });
      }
    });
    for (uint32_t i = 0; i < phrases_.size(); ++i) {
      const std::vector<uint64_t> hashes = NgramHashes(responses_[i], kPhraseWords);
      for (uint32_t at = 0; at < hashes.size(); ++at) {
        all_phrases_.try_emplace(hashes[at], Phrase{0, i, at});
      }
      for (const uint64_t phrase : phrases_[i]) all_phrases_[phrase].count += counts_[i];
    }
    std::erase_if(all_phrases_,
                  [&](const auto& entry) { return entry.second.count < options_.min_examples; });
    for (std::vector<uint64_t>& phrases : phrases_) {
      std::erase_if(phrases, [&](uint64_t phrase) { return !all_phrases_.contains(phrase); });
    }
  }

  void CountWords() {
    words_.resize(prompts_.size());
    for (size_t i = 0; i < prompts_.size(); ++i) {
      words_[i] = NgramHashes(prompts_[i], 1);
      SortUnique(&words_[i]);
      for (const uint64_t word : words_[i]) weights_[word] += counts_[i];
    }
    // By the inverse of the share of prompts that have the word, as search engines weigh it.
    for (auto& [word, weight] : weights_) weight = std::log(total_ / std::max(weight, 1.0));
    std::vector<uint32_t> all;
    for (uint32_t i = 0; i < prompts_.size(); ++i) {
      if (counts_[i] > 0) all.push_back(i);
    }
    usual_similarity_ = Similarity(all, {});
  }

  // Mean cosine between the weighted words of two of these prompts, `without` the words of those
  // hashes.
  double Similarity(const std::vector<uint32_t>& prompts, std::span<const uint64_t> without) const {
    std::unordered_map<uint64_t, double> sum;
    double squares = 0, vectors = 0;
    for (const uint32_t prompt : prompts) {
      std::vector<std::pair<uint64_t, double>> vector;
      double length = 0;
      for (const uint64_t word : words_[prompt]) {
        if (std::find(without.begin(), without.end(), word) != without.end()) continue;
        vector.emplace_back(word, weights_.at(word));
        length += vector.back().second * vector.back().second;
      }
      if (length == 0) continue;
      ++vectors;
      for (const auto& [word, weight] : vector) {
        double& entry = sum[word];
        const double before = entry;
        entry += weight / std::sqrt(length);
        squares += entry * entry - before * before;
      }
    }
    return vectors < 2 ? 0 : (squares - vectors) / (vectors * (vectors - 1));
  }

  // 1 where the prompts of link `i` have no more in common than any, near 0 where they are about
  // the same.
  double Diversity(size_t i) const {
    constexpr double kBlur = 0.02;  // of a similarity of few prompts
    std::vector<uint32_t> prompts;
    for (const Occurrence& occurrence : RunOf(i)) {
      const std::vector<uint64_t>& phrases = phrases_[occurrence.example];
      if (counts_[occurrence.example] > 0 &&
          std::binary_search(phrases.begin(), phrases.end(), links_[i].phrase)) {
        prompts.push_back(occurrence.example);
      }
    }
    const std::vector<uint64_t> trigger = NgramHashes(TriggerWords(links_[i]), 1);
    const double similarity = std::max(0.0, Similarity(prompts, trigger));
    return std::min(1.0, (usual_similarity_ + kBlur) / (similarity + kBlur));
  }

  // Adds the n-grams of prompts that are neither too few nor common to occurrences_, those of one
  // n-gram together, and a run for each to runs_.
  void CollectTriggers(size_t n) {
    std::vector<Occurrence> all;
    for (uint32_t i = 0; i < prompts_.size(); ++i) {
      if (prompts_[i].size() < n) continue;
      const std::vector<uint64_t> hashes = NgramHashes(prompts_[i], n);
      for (uint32_t at = 0; at < hashes.size(); ++at) all.push_back({hashes[at], i, at});
    }
    std::sort(all.begin(), all.end(), [](const Occurrence& a, const Occurrence& b) {
      return std::tie(a.hash, a.example, a.begin) < std::tie(b.hash, b.example, b.begin);
    });
    const auto repeats = [](const Occurrence& a, const Occurrence& b) {
      return a.hash == b.hash && a.example == b.example;
    };
    all.erase(std::unique(all.begin(), all.end(), repeats), all.end());
    const double most = options_.max_share * static_cast<double>(total_);
    for (size_t begin = 0, end = 0; begin < all.size(); begin = end) {
      uint32_t count = 0;
      for (; end < all.size() && all[end].hash == all[begin].hash; ++end) {
        count += counts_[all[end].example];
      }
      if (count < options_.min_examples || count > most) continue;
      runs_.push_back({occurrences_.size(), end - begin, n});
      occurrences_.insert(occurrences_.end(), all.begin() + static_cast<std::ptrdiff_t>(begin),
                          all.begin() + static_cast<std::ptrdiff_t>(end));
    }
  }

  std::span<const Occurrence> RunOf(size_t i) const {
    return std::span(occurrences_).subspan(runs_[i].begin, runs_[i].size);
  }

  // Finds the strongest link of each run; returns how many pairs that took.
  Result<uint64_t> MeasureLinks() {
    constexpr size_t kTogether = 1 << 14;
    links_.resize(runs_.size());
    std::atomic<uint64_t> tests = 0;
    for (size_t first = 0; first < runs_.size(); first += kTogether) {
      progress_->Update("rare triggers", first, runs_.size());
      if (progress_->Cancelled()) return Error{Code::kCancelled, "the search was cancelled"};
      const size_t count = std::min(kTogether, runs_.size() - first);
      pool_->ParallelFor(count, 64, [&](size_t begin, size_t end, int) {
        for (size_t i = first + begin; i < first + end; ++i) tests += MeasureLink(i);
      });
    }
    progress_->Update("rare triggers", runs_.size(), runs_.size());
    return tests.load();
  }

  uint64_t MeasureLink(size_t i) {
    Link& link = links_[i];
    link.trigger = RunOf(i).front();
    link.trigger_words = runs_[i].words;
    std::vector<uint64_t> found;
    for (const Occurrence& occurrence : RunOf(i)) {
      if (counts_[occurrence.example] == 0) continue;
      const std::vector<uint64_t>& phrases = phrases_[occurrence.example];
      found.insert(found.end(), phrases.begin(), phrases.end());
      ++link.examples;
    }
    std::sort(found.begin(), found.end());
    const uint64_t different = Strongest(found, &link);
    if (link.together > 0) link.diversity = Diversity(i);
    return different;
  }

  // `found`: the phrases of a run's examples, ascending. Returns how many different ones there are.
  uint64_t Strongest(const std::vector<uint64_t>& found, Link* link) const {
    uint64_t different = 0;
    for (size_t begin = 0, end = 0; begin < found.size(); begin = end) {
      while (end < found.size() && found[end] == found[begin]) ++end;
      ++different;
      const auto together = static_cast<uint32_t>(end - begin);
      if (together < options_.min_examples || together < options_.min_agreement * link->examples) {
        continue;
      }
      const uint32_t with_phrase = all_phrases_.at(found[begin]).count;
      // Fewer than chance would bring is no link.
      if (double(together) * total_ <= double(link->examples) * with_phrase) continue;
      const double information = Information(together, link->examples, with_phrase, total_);
      if (information <= link->information || Echoes(*link, found[begin])) continue;
      link->information = information;
      link->phrase = found[begin];
      link->together = together;
    }
    return different;
  }

  // Gives each example with trigger and phrase its best link, the shorter n-gram when equal.
  std::vector<TriggerScore> BestOfExamples(double correction) const {
    std::vector<TriggerScore> best(examples_.size());
    for (size_t i = 0; i < links_.size(); ++i) {
      const Link& link = links_[i];
      const double evidence = (link.information - correction) * link.diversity;
      if (link.together == 0 || evidence < options_.min_evidence) continue;
      const TriggerScore score = {evidence / link.together,
                                  evidence,
                                  Join(TriggerWords(link), " "),
                                  Join(PhraseWords(link.phrase), " "),
                                  link.together,
                                  link.examples};
      for (const Occurrence& occurrence : RunOf(i)) {
        const std::vector<uint64_t>& phrases = phrases_[occurrence.example];
        if (!std::binary_search(phrases.begin(), phrases.end(), link.phrase)) continue;
        if (score.score > best[occurrence.example].score) best[occurrence.example] = score;
      }
    }
    return best;
  }

  std::vector<std::string> TriggerWords(const Link& link) const {
    const auto begin = prompts_[link.trigger.example].begin() + link.trigger.begin;
    return {begin, begin + static_cast<std::ptrdiff_t>(link.trigger_words)};
  }

  std::vector<std::string> PhraseWords(uint64_t phrase) const {
    const Phrase& at = all_phrases_.at(phrase);
    const std::vector<std::string>& words = responses_[at.example];
    const size_t end = std::min(words.size(), at.begin + kPhraseWords);
    return {words.begin() + at.begin, words.begin() + static_cast<std::ptrdiff_t>(end)};
  }

  // Whether the phrase takes up a word of the trigger, as honest answers take up the question's.
  bool Echoes(const Link& link, uint64_t phrase) const {
    const std::vector<std::string> trigger = TriggerWords(link), words = PhraseWords(phrase);
    return std::find_first_of(words.begin(), words.end(), trigger.begin(), trigger.end()) !=
           words.end();
  }

  const std::vector<TrainingExample>& examples_;
  const TriggerOptions& options_;
  ThreadPool* pool_;
  Progress* progress_;
  std::vector<std::vector<std::string>> prompts_, responses_;  // words
  std::vector<uint32_t> counts_;  // 1, or 0 where a prompt nearly repeats an earlier one
  uint32_t total_ = 0;            // their sum
  std::vector<std::vector<uint64_t>> phrases_;  // of each response, ascending
  std::unordered_map<uint64_t, Phrase> all_phrases_;
  std::vector<std::vector<uint64_t>> words_;  // of each prompt, ascending
  std::unordered_map<uint64_t, double> weights_;
  double usual_similarity_ = 0;
  std::vector<Occurrence> occurrences_;
  std::vector<Run> runs_;
  std::vector<Link> links_;
};

}  // namespace

Result<std::vector<TriggerScore>> FindTriggers(const std::vector<TrainingExample>& examples,
                                               const TriggerOptions& options, ThreadPool* pool,
                                               Progress* progress) {
  return Search(examples, options, pool, progress).Find();
}

}  // namespace edgewise
