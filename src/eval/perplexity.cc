#include "eval/perplexity.h"

#include <cmath>

#include "base/process.h"
#include "base/strings.h"
#include "eval/logit_stream.h"
#include "eval/moments.h"

namespace edgewise {
namespace {

// Adds the negative log-likelihoods of one window's targets in their order.
Status ScoreWindow(const ScoredWindow& window, size_t vocab_size, ThreadPool* pool,
                   LogitStream* stream, Moments* nll) {
  EW_TRY(stream->Begin(window));
  std::vector<double> losses;
  for (size_t target = window.first_target; target < window.tokens.size();) {
    EW_TRY(const std::span<const float> logits, stream->Next());
    losses.resize(logits.size() / vocab_size);
    pool->ParallelFor(losses.size(), 4, [&](size_t begin, size_t end, int) {
      for (size_t i = begin; i < end; ++i) {
        losses[i] = NegativeLogLikelihood(logits.data() + i * vocab_size, vocab_size,
                                          window.tokens[target + i]);
      }
    });
    for (const double loss : losses) {
      if (!std::isfinite(loss)) return NotFiniteLogits("model");
      nll->Add(loss);
    }
    target += losses.size();
  }
  return Ok{};
}

}  // namespace

Result<PerplexityResult> MeasurePerplexity(Engine* engine, std::string_view text,
                                           const TextOptions& options, Progress* progress) {
  NoProgress silent;
  if (!progress) progress = &silent;
  const double start = NowSeconds();
  const ModelSpec& spec = engine->model().spec();
  EW_TRY(const ScoredText scored, CutText(engine->tokenizer(), spec.context_length, text, options));
  EW_TRY(LogitStream stream,
         LogitStream::Create(engine, scored.context, LogitStream::RowsFor(spec.vocab_size),
                             options.kv_format));
  Moments nll;
  for (const ScoredWindow& window : scored.windows) {
    progress->Update("perplexity", nll.count(), scored.tokens);
    if (progress->Cancelled()) return Error{Code::kCancelled, "perplexity was cancelled"};
    EW_TRY(ScoreWindow(window, spec.vocab_size, &engine->pool(), &stream, &nll));
  }
  progress->Update("perplexity", nll.count(), scored.tokens);

  PerplexityResult result;
  result.nll = nll.mean();
  result.nll_stderr = nll.std_error();
  result.perplexity = std::exp(result.nll);
  result.perplexity_stderr = result.perplexity * result.nll_stderr;
  result.tokens = nll.count();
  result.windows = scored.windows.size();
  result.unused_tokens = scored.unused_tokens;
  result.skipped_documents = scored.skipped_documents;
  result.text_bytes = scored.text_bytes;
  result.context = scored.context;
  result.convention = scored.convention;
  result.seconds = NowSeconds() - start;
  return result;
}

Json ToJson(const PerplexityResult& r) {
  Json object;
  object.Set("perplexity", r.perplexity).Set("perplexity_stderr", r.perplexity_stderr);
  object.Set("nll", r.nll).Set("nll_stderr", r.nll_stderr);
  object.Set("tokens", r.tokens).Set("convention", r.convention).Set("context", r.context);
  object.Set("windows", r.windows).Set("unused_tokens", r.unused_tokens);
  object.Set("skipped_documents", r.skipped_documents).Set("text_bytes", r.text_bytes);
  object.Set("seconds", r.seconds);
  return object;
}

}  // namespace edgewise
