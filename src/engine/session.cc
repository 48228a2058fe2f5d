#include "engine/session.h"

#include <algorithm>
#include <limits>
#include <utility>

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

// Ids above the tokenizer's are padding rows of the embedding, which mean nothing and are never
// chosen.
uint32_t ChoosableIds(const Engine& engine) {
  return std::min(static_cast<uint32_t>(engine.tokenizer().size()),
                  engine.model().spec().vocab_size);
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
                        last ? std::span<float>(logits_) : std::span<float>()));
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
  EW_TRY(Sampler sampler, Sampler::Create(sampling, ChoosableIds(*engine_)));
  for (const int32_t id : tokens_) sampler.Accept(id);
  return sampler;
}

Result<StopReason> Session::Decode(const GenerateOptions& options, Sampler* sampler,
                                   TextEmitter* emitter, Generation* generation) {
  double previous = 0;
  for (;;) {
    if (generation->ids.size() >= options.max_tokens) return StopReason::kMaxTokens;
    if (full()) return StopReason::kContextFull;
    if (!generation->ids.empty()) {
      if (Cancelled(options.cancel)) return StopReason::kCancelled;
      EW_TRY(forward_.Run(std::span(tokens_).last(1), &cache_, 0, logits_));
    }
    EW_TRY(const int32_t id, sampler->Sample(std::span(logits_).first(ChoosableIds(*engine_))));
    if (engine_->tokenizer().IsEndOfGeneration(id)) return StopReason::kEndOfText;
    sampler->Accept(id);
    tokens_.push_back(id);
    generation->ids.push_back(id);
    const TextEmitter::Outcome outcome = emitter->Push(id);
    const double now = NowSeconds();
    if (generation->ids.size() > 1) generation->token_seconds.push_back(now - previous);
    previous = now;
    if (outcome == TextEmitter::Outcome::kStopString) return StopReason::kStopString;
    if (outcome == TextEmitter::Outcome::kCancelled) return StopReason::kCancelled;
  }
}

Result<Generation> Session::Generate(const GenerateOptions& options,
                                     const std::function<bool(std::string_view text)>& on_text) {
  if (tokens_.empty()) {
    return Error{Code::kInvalidArgument,
                 "there is nothing to continue: append at least one token, such as BOS"};
  }
  EW_TRY(TextEmitter::CheckStops(options.stop));
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
  EW_TRY(generation.reason, Decode(options, &sampler, &emitter, &generation));
  const bool ended =
      generation.reason != StopReason::kStopString && generation.reason != StopReason::kCancelled;
  if (ended && emitter.Finish() == TextEmitter::Outcome::kStopString) {
    generation.reason = StopReason::kStopString;
  }
  generation.text = emitter.text();
  return generation;
}

}  // namespace edgewise
