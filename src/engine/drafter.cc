#include "engine/drafter.h"

#include <algorithm>
#include <utility>

namespace edgewise {
namespace {

constexpr size_t kShortestMatch = 2;  // a single token says too little
constexpr size_t kLongestMatch = 16;  // that is compared
constexpr size_t kLongestPause = 16;

// Length of the longest common end of `a` and `b`, at most kLongestMatch.
size_t CommonEnd(std::span<const int32_t> a, std::span<const int32_t> b) {
  const size_t most = std::min({a.size(), b.size(), kLongestMatch});
  size_t length = 0;
  while (length < most && a[a.size() - 1 - length] == b[b.size() - 1 - length]) ++length;
  return length;
}

}  // namespace

Result<std::vector<int32_t>> PromptLookup::Draft(std::span<const int32_t> tokens, const Sampler&,
                                                 size_t max) {
  size_t best = kShortestMatch - 1, after = 0;
  for (size_t end = tokens.size() - 1; end >= kShortestMatch && best < kLongestMatch; --end) {
    const size_t length = CommonEnd(tokens.first(end), tokens);
    if (length <= best) continue;
    best = length;
    after = end;
  }
  std::vector<int32_t> guesses;
  if (after == 0) return guesses;
  // Beyond the end of the text the copy reads what it has written: a period goes on.
  for (size_t from = after; from < after + max; ++from) {
    guesses.push_back(from < tokens.size() ? tokens[from] : guesses[from - tokens.size()]);
  }
  return guesses;
}

DraftModel::DraftModel(std::unique_ptr<Engine> draft, ThreadPool* pool, KvCache cache)
    : engine_(std::move(draft)),
      cache_(std::move(cache)),
      forward_(engine_->model(), pool),
      logits_(engine_->model().spec().vocab_size) {}

Result<std::unique_ptr<DraftModel>> DraftModel::Create(std::unique_ptr<Engine> draft,
                                                       Engine* target, uint32_t context) {
  EW_TRY(CheckSameVocabulary(target->tokenizer(), draft->tokenizer()));
  const ModelSpec& spec = draft->model().spec();
  EW_TRY(KvCache cache,
         KvCache::Create(spec, std::min(context, spec.context_length), kernels::KvFormat::kF16));
  return std::unique_ptr<DraftModel>(
      new DraftModel(std::move(draft), &target->pool(), std::move(cache)));
}

Result<std::vector<int32_t>> DraftModel::Draft(std::span<const int32_t> tokens,
                                               const Sampler& sampler, size_t max) {
  std::vector<int32_t> guesses;
  if (tokens.size() >= cache_.capacity()) return guesses;
  max = std::min(max, cache_.capacity() - tokens.size());
  if (max == 0) return guesses;
  const auto differs =
      std::mismatch(cached_.begin(), cached_.end(), tokens.begin(), tokens.end() - 1);
  cached_.resize(cache_.Truncate(static_cast<uint32_t>(differs.first - cached_.begin())));
  Sampler chooser = sampler;
  std::span<const int32_t> pending = tokens.subspan(cached_.size());
  for (;;) {
    EW_TRY(forward_.Run(pending, &cache_, pending.size() - 1, logits_));
    cached_.insert(cached_.end(), pending.begin(), pending.end());
    const auto choosable = static_cast<size_t>(engine_->tokenizer().size());
    EW_TRY(const int32_t id, chooser.Sample(std::span(logits_).first(choosable)));
    if (engine_->tokenizer().IsEndOfGeneration(id)) return guesses;  // nothing follows it
    guesses.push_back(id);
    if (guesses.size() == max) return guesses;
    chooser.Accept(id);
    pending = std::span(guesses).last(1);
  }
}

size_t DraftLength::Next() {
  if (rest_ == 0) return length_;
  --rest_;
  return 0;
}

void DraftLength::Report(size_t drafted, size_t accepted) {
  if (drafted == 0) return;
  if (accepted == 0) {
    if (length_ == 1) {
      rest_ = pause_;
      pause_ = std::min(2 * pause_, kLongestPause);
    }
    length_ = 1;
    return;
  }
  pause_ = 1;
  if (accepted < drafted) {
    length_ = accepted;
  } else if (drafted == length_) {
    length_ = std::min(2 * length_, max_);
  }
}

}  // namespace edgewise
