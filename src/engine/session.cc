#include "engine/session.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/check.h"
#include "base/process.h"
#include "base/strings.h"
#include "engine/text_emitter.h"

namespace edgewise {
namespace {

constexpr uint32_t kDefaultContext = 4096;
constexpr size_t kPrefillPart = kMaxStep;  // tokens between two looks at `cancel`

bool Cancelled(const std::atomic<bool>* cancel) {
  return cancel && cancel->load(std::memory_order_relaxed);
}

}  // namespace

Session::Session(Engine* engine, KvCache cache)
    : engine_(engine),
      cache_(std::move(cache)),
      forward_(engine->model(), &engine->pool(), kPrefillPart) {
  logits_.resize(engine->model().spec().vocab_size);
}

Result<Session> Session::Create(Engine* engine, const SessionOptions& options) {
  const ModelSpec& spec = engine->model().spec();
  if (options.context > spec.context_length) {
    return MakeError(Code::kInvalidArgument,
                     "a context of %u tokens was asked for, but the model was trained for %u",
                     options.context, spec.context_length);
  }
  const uint32_t context =
      options.context > 0 ? options.context : std::min(spec.context_length, kDefaultContext);
  EW_TRY(KvCache cache, KvCache::Create(spec, context, options.kv_format));
  return Session(engine, std::move(cache));
}

Status Session::CheckAppend(std::span<const int32_t> ids, size_t present) const {
  const uint32_t vocab_size = engine_->model().spec().vocab_size;
  for (const int32_t id : ids) {
    if (id >= 0 && static_cast<uint32_t>(id) < vocab_size && id < engine_->tokenizer().size()) {
      continue;
    }
    return MakeError(Code::kInvalidArgument, "token id %d is not in the vocabulary of %d", id,
                     engine_->tokenizer().size());
  }
  if (ids.size() <= context() - present) return Ok{};
  return MakeError(Code::kInvalidArgument,
                   "the prompt does not fit: %zu tokens after %zu, but the context holds %u; "
                   "shorten it or ask for a larger context",
                   ids.size(), present, context());
}

Status Session::Append(std::span<const int32_t> ids) {
  EW_TRY(CheckAppend(ids, tokens_.size()));
  tokens_.insert(tokens_.end(), ids.begin(), ids.end());
  return Ok{};
}

Result<size_t> Session::Replace(std::span<const int32_t> ids) {
  EW_TRY(CheckAppend(ids, 0));
  const auto cached = std::span(tokens_).first(cache_.size());
  const auto [end, other] = std::mismatch(cached.begin(), cached.end(), ids.begin(), ids.end());
  const uint32_t same = cache_.Truncate(static_cast<uint32_t>(end - cached.begin()));
  tokens_.assign(ids.begin(), ids.end());
  return same;
}

void Session::Clear() {
  cache_.Clear();
  tokens_.clear();
}

Result<bool> Session::Prefill(const std::atomic<bool>* cancel) {
  // Logits are not kept between calls: without anything pending the last token is computed again.
  if (cache_.size() == tokens_.size()) (void)cache_.Truncate(cache_.size() - 1);
  while (cache_.size() < tokens_.size()) {
    if (Cancelled(cancel)) return false;
    const auto pending = std::span(tokens_).subspan(cache_.size());
    const auto part = pending.first(std::min(pending.size(), kPrefillPart));
    const bool last = part.size() == pending.size();
    EW_TRY(forward_.Run(part, &cache_, last ? part.size() - 1 : part.size(),
                        std::span(logits_).first(last ? engine_->model().spec().vocab_size : 0)));
  }
  return true;
}

Result<Sampler> Session::MakeSampler(const GenerateOptions& options) const {
  SamplerOptions sampling = options.sampler;
  if (options.ignore_eos) {
    for (int32_t id = 0; id < engine_->tokenizer().size(); ++id) {
      if (engine_->tokenizer().IsEndOfGeneration(id)) {
        sampling.logit_bias.emplace_back(id, -std::numeric_limits<float>::infinity());
      }
    }
  }
  EW_TRY(Sampler sampler,
         Sampler::Create(sampling, static_cast<uint32_t>(engine_->tokenizer().size())));
  for (const int32_t id : tokens_) sampler.Accept(id);
  return sampler;
}

// Ids above the tokenizer's are padding rows of the embedding, which mean nothing and are never
// chosen.
std::span<const float> Session::Logits(size_t row) const {
  return std::span(logits_).subspan(row * engine_->model().spec().vocab_size,
                                    static_cast<size_t>(engine_->tokenizer().size()));
}

Result<std::vector<int32_t>> Session::Guess(const GenerateOptions& options, const Sampler& sampler,
                                            size_t count, const Generation& generation) {
  // A guess needs a position, and the token after it must still be wanted.
  const size_t room = context() - tokens_.size();
  const size_t wanted = options.max_tokens - generation.ids.size();
  count = std::min({count, room, wanted - 1});
  if (!options.drafter || count == 0) return std::vector<int32_t>();
  EW_TRY(std::vector<int32_t> draft, options.drafter->Draft(tokens_, sampler, count));
  EW_CHECK(draft.size() <= count);
  return draft;
}

Status Session::Step(std::span<const int32_t> draft) {
  std::vector<int32_t> step = {tokens_.back()};
  step.insert(step.end(), draft.begin(), draft.end());
  const size_t size = step.size() * engine_->model().spec().vocab_size;
  if (logits_.size() < size) logits_.resize(size);
  return forward_.Run(step, &cache_, 0, std::span(logits_).first(size));
}

Result<StopReason> Session::Decode(const GenerateOptions& options, Sampler* sampler,
                                   TextEmitter* emitter, Generation* generation) {
  DraftLength length(options.max_draft);
  std::vector<int32_t> draft;  // of it, `right` tokens were chosen; their logits are rows 1 on
  size_t right = 0;
  double previous = 0;
  for (;;) {
    if (generation->ids.size() >= options.max_tokens) return StopReason::kMaxTokens;
    if (full()) return StopReason::kContextFull;
    EW_TRY(const int32_t id, sampler->Sample(Logits(right)));
    if (engine_->tokenizer().IsEndOfGeneration(id)) return StopReason::kEndOfText;
    const bool guessed = right < draft.size() && draft[right] == id;
    if (!guessed) (void)cache_.Truncate(static_cast<uint32_t>(tokens_.size()));
    sampler->Accept(id);
    tokens_.push_back(id);
    generation->ids.push_back(id);
    generation->accepted += guessed ? 1 : 0;
    const TextEmitter::Outcome outcome = emitter->Push(id);
    const double now = NowSeconds();
    if (generation->ids.size() > 1) generation->token_seconds.push_back(now - previous);
    previous = now;
    if (outcome == TextEmitter::Outcome::kStopString) return StopReason::kStopString;
    if (outcome == TextEmitter::Outcome::kCancelled) return StopReason::kCancelled;
    if (guessed) {
      ++right;
      continue;
    }
    if (generation->ids.size() >= options.max_tokens || full()) continue;  // ends above
    if (Cancelled(options.cancel)) return StopReason::kCancelled;
    length.Report(draft.size(), right);
    EW_TRY(draft, Guess(options, *sampler, length.Next(), *generation));
    right = 0;
    generation->drafted += draft.size();
    EW_TRY(Step(draft));
  }
}

Result<Generation> Session::Generate(const GenerateOptions& options,
                                     const std::function<bool(std::string_view text)>& on_text) {
  if (tokens_.empty()) {
    return Error{Code::kInvalidArgument,
                 "there is nothing to continue: append at least one token, such as BOS"};
  }
  EW_TRY(TextEmitter::CheckStops(options.stop));
  if (options.max_draft < 1 || options.max_draft > kMaxDraft) {
    return MakeError(Code::kInvalidArgument, "%u tokens to guess at a time; give 1 to %u",
                     options.max_draft, kMaxDraft);
  }
  EW_TRY(Sampler sampler, MakeSampler(options));
  TextEmitter emitter(engine_->tokenizer(), tokens_, &options.stop, &on_text);
  Generation generation;
  if (full()) {
    generation.reason = StopReason::kContextFull;
    return generation;
  }
  const double start = NowSeconds();
  EW_TRY(const bool computed, Prefill(options.cancel));
  generation.prefill_seconds = NowSeconds() - start;
  if (!computed) {
    generation.reason = StopReason::kCancelled;
    return generation;
  }
  const Result<StopReason> reason = Decode(options, &sampler, &emitter, &generation);
  if (cache_.size() > tokens_.size()) {  // guesses that were never looked at
    (void)cache_.Truncate(static_cast<uint32_t>(tokens_.size()));
  }
  EW_TRY(generation.reason, reason);
  const bool ended =
      generation.reason != StopReason::kStopString && generation.reason != StopReason::kCancelled;
  if (ended && emitter.Finish() == TextEmitter::Outcome::kStopString) {
    generation.reason = StopReason::kStopString;
  }
  generation.text = emitter.text();
  return generation;
}

}  // namespace edgewise
