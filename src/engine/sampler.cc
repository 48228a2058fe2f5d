#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "base/strings.h"

namespace edgewise {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

Status CheckRange(const char* name, double value, double low, double high, const char* range) {
  if (value >= low && value <= high) return Ok{};  // false for NaN
  return MakeError(Code::kInvalidArgument, "%s is %g; it must be %s", name, value, range);
}

Status CheckOptions(const SamplerOptions& o, uint32_t vocab_size) {
  constexpr double kLargest = std::numeric_limits<float>::max();
  EW_TRY(CheckRange("temperature", o.temperature, 0, kLargest, "0 (greedy) or more, finite"));
  EW_TRY(CheckRange("top_k", o.top_k, 0, kLargest, "0 (off) or more"));
  EW_TRY(CheckRange("top_p", o.top_p, 0, 1, "from 0 to 1 (off)"));
  EW_TRY(CheckRange("min_p", o.min_p, 0, 1, "from 0 (off) to 1"));
  EW_TRY(CheckRange("typical_p", o.typical_p, 0, 1, "from 0 to 1 (off)"));
  EW_TRY(
      CheckRange("repeat_penalty", o.repeat_penalty, 1e-6, kLargest, "above 0, finite (1 is off)"));
  EW_TRY(CheckRange("presence_penalty", o.presence_penalty, -kLargest, kLargest, "finite"));
  EW_TRY(CheckRange("frequency_penalty", o.frequency_penalty, -kLargest, kLargest, "finite"));
  EW_TRY(CheckRange("penalty_last_n", o.penalty_last_n, -1, kLargest, "-1 (everything) or more"));
  EW_TRY(CheckRange("dry_multiplier", o.dry_multiplier, 0, kLargest, "0 (off) or more, finite"));
  EW_TRY(CheckRange("dry_base", o.dry_base, 1, kLargest, "1 or more, finite"));
  EW_TRY(CheckRange("dry_allowed_length", o.dry_allowed_length, 1, kLargest, "1 or more"));
  EW_TRY(CheckRange("dry_last_n", o.dry_last_n, -1, kLargest, "-1 (everything) or more"));
  const auto in_range = [&](int32_t id) {
    return id >= 0 && static_cast<uint32_t>(id) < vocab_size;
  };
  for (const int32_t id : o.dry_breakers) {
    if (in_range(id)) continue;
    return MakeError(Code::kInvalidArgument,
                     "dry_breakers: token %d is not in the vocabulary of %u", id, vocab_size);
  }
  for (const auto& [id, bias] : o.logit_bias) {
    if (!in_range(id)) {
      return MakeError(Code::kInvalidArgument,
                       "logit_bias: token %d is not in the vocabulary of %u", id, vocab_size);
    }
    if (std::isnan(bias) || bias == kInfinity) {
      return MakeError(Code::kInvalidArgument,
                       "logit_bias of token %d is %g; it must be finite or -infinity", id,
                       static_cast<double>(bias));
    }
  }
  return Ok{};
}

// NaN or +infinity; -infinity is a banned token.
bool HasNanOrInfinity(std::span<const float> logits) {
  bool bad = false;
  for (const float x : logits) bad |= !(x < kInfinity);
  return bad;
}

int32_t ArgMax(std::span<const float> logits) {
  size_t best = 0;
  for (size_t i = 1; i < logits.size(); ++i) {
    if (logits[i] > logits[best]) best = i;
  }
  return static_cast<int32_t>(best);
}

// lengths[i]: how many tokens that end at i equal the tokens that end at the last one (the
// Z-function of the reversed text), for i before the last. Linear time.
std::vector<int32_t> SuffixMatchLengths(std::span<const int32_t> text) {
  const size_t n = text.size();
  const auto reversed = [&](size_t i) { return text[n - 1 - i]; };
  std::vector<int32_t> lengths(n, 0);
  size_t left = 0, right = 0;
  for (size_t i = 1; i < n; ++i) {
    size_t z = 0;
    if (i < right) z = std::min(right - i, static_cast<size_t>(lengths[n - 1 - (i - left)]));
    while (i + z < n && reversed(z) == reversed(i + z)) ++z;
    lengths[n - 1 - i] = static_cast<int32_t>(z);
    if (i + z > right) {
      left = i;
      right = i + z;
    }
  }
  return lengths;
}

}  // namespace

Sampler::Sampler(const SamplerOptions& options, uint32_t vocab_size)
    : options_(options), vocab_size_(vocab_size), rng_(options.seed) {}

Result<Sampler> Sampler::Create(const SamplerOptions& options, uint32_t vocab_size) {
  if (vocab_size == 0) return MakeError(Code::kInvalidArgument, "the vocabulary is empty");
  EW_TRY(CheckOptions(options, vocab_size));
  return Sampler(options, vocab_size);
}

bool Sampler::counts_tokens() const {
  return options_.penalty_last_n != 0 &&
         (options_.repeat_penalty != 1 || options_.presence_penalty != 0 ||
          options_.frequency_penalty != 0);
}

void Sampler::Accept(int32_t id) {
  EW_CHECK(id >= 0 && static_cast<uint32_t>(id) < vocab_size_);
  history_.push_back(id);
  if (!counts_tokens()) return;
  ++counts_[id];
  const auto window = static_cast<size_t>(options_.penalty_last_n);
  if (options_.penalty_last_n < 0 || history_.size() <= window) return;
  const auto oldest = counts_.find(history_[history_.size() - 1 - window]);
  if (--oldest->second == 0) counts_.erase(oldest);
}

void Sampler::Reset() {
  history_.clear();
  counts_.clear();
  rng_ = Rng(options_.seed);
}

void Sampler::ApplyPenalties(std::vector<float>* logits) const {
  for (const auto& [id, count] : counts_) {
    float& logit = (*logits)[static_cast<size_t>(id)];
    logit = logit > 0 ? logit / options_.repeat_penalty : logit * options_.repeat_penalty;
    logit -= static_cast<float>(count) * options_.frequency_penalty + options_.presence_penalty;
  }
}

// DRY (p-e-w 2024): a token that would extend a repetition of n >= allowed_length tokens loses
// multiplier * base^(n - allowed_length). Breakers are never part of a repetition.
void Sampler::ApplyDry(std::vector<float>* logits) const {
  constexpr double kMaxPenalty =
      1e30;  // finite, so that a ban of every token still leaves a best one
  std::span<const int32_t> text = history_;
  const auto window = static_cast<size_t>(options_.dry_last_n);
  if (options_.dry_last_n >= 0 && text.size() > window) text = text.last(window);
  const auto breaks = [&](int32_t id) {
    return std::find(options_.dry_breakers.begin(), options_.dry_breakers.end(), id) !=
           options_.dry_breakers.end();
  };
  int32_t longest = 0;  // tokens at the end without a breaker
  for (size_t i = text.size(); i-- > 0 && !breaks(text[i]);) ++longest;
  if (longest < options_.dry_allowed_length) return;

  std::unordered_map<int32_t, int32_t> repeats;  // by the token that would go on
  const std::vector<int32_t> lengths = SuffixMatchLengths(text);
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    const int32_t length = std::min(lengths[i], longest);
    if (length < options_.dry_allowed_length || breaks(text[i + 1])) continue;
    int32_t& known = repeats[text[i + 1]];
    known = std::max(known, length);
  }
  for (const auto& [id, length] : repeats) {
    const double penalty = static_cast<double>(options_.dry_multiplier) *
                           std::pow(static_cast<double>(options_.dry_base),
                                    static_cast<double>(length - options_.dry_allowed_length));
    (*logits)[static_cast<size_t>(id)] -= static_cast<float>(std::min(penalty, kMaxPenalty));
  }
}

// Brings the best `count` candidates to the front, in order.
void Sampler::SortFirst(size_t count) {
  count = std::min(count, candidates_.size());
  if (count <= sorted_) return;
  const auto better = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  const auto begin = candidates_.begin() + static_cast<ptrdiff_t>(sorted_);
  const auto middle = candidates_.begin() + static_cast<ptrdiff_t>(count);
  if (middle != candidates_.end()) std::nth_element(begin, middle, candidates_.end(), better);
  std::sort(begin, middle, better);
  sorted_ = count;
}

// Collects the finite logits, only the best top_k of them when that is set: a vocabulary of 128k
// costs one pass, because nearly all logits fail the comparison with the worst kept one.
void Sampler::KeepTopK(std::span<const float> logits) {
  candidates_.clear();
  sorted_ = 0;
  const size_t keep = options_.top_k > 0 ? static_cast<size_t>(options_.top_k) : logits.size();
  float worst = -kInfinity;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] > worst)) continue;
    candidates_.push_back({static_cast<int32_t>(i), logits[i]});
    if (keep < logits.size() && candidates_.size() == 2 * keep + 64) {
      SortFirst(keep);
      candidates_.resize(keep);
      worst = candidates_.back().logit;
      sorted_ = 0;
    }
  }
  if (candidates_.size() <= keep) return;
  SortFirst(keep);
  candidates_.resize(keep);
}

// Keeps the tokens whose surprise is nearest to the entropy, until they hold typical_p (Meister et
// al. 2022).
void Sampler::KeepTypical() {
  if (options_.typical_p >= 1 || candidates_.size() < 2) return;
  float best = -kInfinity;
  for (const Candidate& c : candidates_) best = std::max(best, c.logit);
  double total = 0, weighted = 0;
  for (const Candidate& c : candidates_) {
    const double shifted = static_cast<double>(c.logit) - static_cast<double>(best);
    const double weight = std::exp(shifted);
    total += weight;
    weighted += weight * shifted;
  }
  const double entropy = std::log(total) - weighted / total;
  struct Scored {
    Candidate candidate;
    double distance;
    double probability;
  };
  std::vector<Scored> scored;
  scored.reserve(candidates_.size());
  for (const Candidate& c : candidates_) {
    const double log_p = static_cast<double>(c.logit) - static_cast<double>(best) - std::log(total);
    scored.push_back({c, std::fabs(-log_p - entropy), std::exp(log_p)});
  }
  std::sort(scored.begin(), scored.end(), [](const Scored& a, const Scored& b) {
    return a.distance != b.distance ? a.distance < b.distance : a.candidate.id < b.candidate.id;
  });
  candidates_.clear();
  sorted_ = 0;
  double sum = 0;
  for (const Scored& s : scored) {
    candidates_.push_back(s.candidate);
    sum += s.probability;
    if (sum >= static_cast<double>(options_.typical_p)) break;
  }
}

// Keeps the fewest best tokens that together hold top_p (Holtzman et al. 2020).
void Sampler::KeepTopP() {
  if (options_.top_p >= 1 || candidates_.empty()) return;
  SortFirst(1);
  const auto best = static_cast<double>(candidates_[0].logit);
  double total = 0;
  for (const Candidate& c : candidates_) total += std::exp(static_cast<double>(c.logit) - best);
  const double wanted = static_cast<double>(options_.top_p) * total;
  double sum = 0;
  for (size_t i = 0; i < candidates_.size(); ++i) {
    if (i >= sorted_) SortFirst(std::max<size_t>(64, 4 * sorted_));
    sum += std::exp(static_cast<double>(candidates_[i].logit) - best);
    if (sum < wanted) continue;
    candidates_.resize(i + 1);
    sorted_ = i + 1;
    return;
  }
}

// Keeps the tokens at least min_p times as probable as the best (Nguyen et al. 2024).
void Sampler::KeepMinP() {
  if (options_.min_p <= 0 || candidates_.empty()) return;
  float best = -kInfinity;
  for (const Candidate& c : candidates_) best = std::max(best, c.logit);
  const double least = static_cast<double>(best) + std::log(static_cast<double>(options_.min_p));
  size_t kept_sorted = 0, kept = 0;
  for (size_t i = 0; i < candidates_.size(); ++i) {
    const Candidate c = candidates_[i];
    if (static_cast<double>(c.logit) < least) continue;
    if (i < sorted_) ++kept_sorted;
    candidates_[kept++] = c;
  }
  candidates_.resize(kept);
  sorted_ = kept_sorted;
}

int32_t Sampler::Draw() {
  float best = -kInfinity;
  for (const Candidate& c : candidates_) best = std::max(best, c.logit);
  const auto weight = [&](const Candidate& c) {
    return std::exp((static_cast<double>(c.logit) - static_cast<double>(best)) /
                    static_cast<double>(options_.temperature));
  };
  double total = 0;
  for (const Candidate& c : candidates_) total += weight(c);
  const double drawn = rng_.Uniform() * total;
  double sum = 0;
  int32_t last =
      candidates_[0].id;  // rounding may leave `drawn` at the total: the last possible token then
  for (const Candidate& c : candidates_) {
    const double w = weight(c);
    if (w == 0) continue;
    last = c.id;
    sum += w;
    if (drawn < sum) break;
  }
  return last;
}

Result<int32_t> Sampler::Sample(std::span<const float> logits) {
  if (logits.size() != vocab_size_) {
    return MakeError(Code::kInvalidArgument, "%zu logits for a vocabulary of %u", logits.size(),
                     vocab_size_);
  }
  if (HasNanOrInfinity(logits)) {
    return MakeError(Code::kBadData,
                     "the model gave a logit that is NaN or infinite: the weights are damaged, or "
                     "their number format overflows");
  }
  const bool dry = options_.dry_multiplier > 0 && history_.size() > 1;
  if (!options_.logit_bias.empty() || !counts_.empty() || dry) {
    work_.assign(logits.begin(), logits.end());
    for (const auto& [id, bias] : options_.logit_bias) work_[static_cast<size_t>(id)] += bias;
    ApplyPenalties(&work_);
    if (dry) ApplyDry(&work_);
    logits = work_;
    if (HasNanOrInfinity(logits)) {
      return MakeError(Code::kInvalidArgument,
                       "logit_bias or a penalty is so large that a logit overflows");
    }
  }
  if (options_.temperature == 0) {
    const int32_t best = ArgMax(logits);
    if (logits[static_cast<size_t>(best)] > -kInfinity) return best;
  } else {
    KeepTopK(logits);
    KeepTypical();
    KeepTopP();
    KeepMinP();
    if (!candidates_.empty()) return Draw();
  }
  return MakeError(Code::kBadData, "no token is left: every logit is -infinity");
}

}  // namespace edgewise
