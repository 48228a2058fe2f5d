#include "eval/kl.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "base/process.h"
#include "base/strings.h"
#include "eval/logit_stream.h"
#include "eval/moments.h"
#include "eval/percentile.h"
#include "kernels/kernels.h"

namespace edgewise {
namespace {

struct PositionScore {
  double kl;
  double base_nll;
  double nll;
  double delta_p;  // of the correct token
  bool same_top;
};

PositionScore Compare(const float* base, const float* model, size_t n, size_t target) {
  const double base_total = kernels::Active().log_sum_exp(base, n);
  const double total = kernels::Active().log_sum_exp(model, n);
  size_t base_top = 0, top = 0;
  double kl = 0;
  for (size_t i = 0; i < n; ++i) {
    if (base[i] > base[base_top]) base_top = i;
    if (model[i] > model[top]) top = i;
    const double log_p = static_cast<double>(base[i]) - base_total;
    kl += std::exp(log_p) * (log_p - (static_cast<double>(model[i]) - total));
  }
  PositionScore score;
  score.kl = kl;
  score.base_nll = base_total - static_cast<double>(base[target]);
  score.nll = total - static_cast<double>(model[target]);
  score.delta_p = std::exp(-score.nll) - std::exp(-score.base_nll);
  score.same_top = base_top == top;
  return score;
}

struct Sums {
  Moments kl, base_nll, nll, nll_difference, delta_p, squared_delta_p, same_top;
  std::vector<double> all_kl;

  void Add(const PositionScore& s) {
    kl.Add(s.kl);
    all_kl.push_back(s.kl);
    base_nll.Add(s.base_nll);
    nll.Add(s.nll);
    nll_difference.Add(s.nll - s.base_nll);
    delta_p.Add(s.delta_p);
    squared_delta_p.Add(s.delta_p * s.delta_p);
    same_top.Add(s.same_top ? 1 : 0);
  }
};

// Adds the scores of one window's targets in their order.
Status ScoreWindow(const ScoredWindow& window, size_t vocab_size, ThreadPool* pool,
                   LogitStream* base, LogitStream* model, Sums* sums) {
  EW_TRY(base->Begin(window));
  EW_TRY(model->Begin(window));
  std::vector<PositionScore> scores;
  for (size_t target = window.first_target; target < window.tokens.size();) {
    EW_TRY(const std::span<const float> base_logits, base->Next());
    EW_TRY(const std::span<const float> logits, model->Next());
    scores.resize(logits.size() / vocab_size);
    pool->ParallelFor(scores.size(), 4, [&](size_t begin, size_t end, int) {
      for (size_t i = begin; i < end; ++i) {
        scores[i] = Compare(base_logits.data() + i * vocab_size, logits.data() + i * vocab_size,
                            vocab_size, static_cast<size_t>(window.tokens[target + i]));
      }
    });
    for (const PositionScore& score : scores) {
      if (!std::isfinite(score.kl) || !std::isfinite(score.nll) || !std::isfinite(score.base_nll)) {
        return NotFiniteLogits(std::isfinite(score.base_nll) ? "model" : "base model");
      }
      sums->Add(score);
    }
    target += scores.size();
  }
  return Ok{};
}

MeanError Scaled(const Moments& moments, double factor) {
  return {factor * moments.mean(), factor * moments.std_error()};
}

KlResult Summarize(const Sums& sums, const ScoredText& scored) {
  KlResult r;
  r.kl = Scaled(sums.kl, 1);
  std::vector<double> sorted = sums.all_kl;
  std::sort(sorted.begin(), sorted.end());
  r.kl_p90 = SortedPercentile(sorted, 0.90);
  r.kl_p99 = SortedPercentile(sorted, 0.99);
  r.kl_max = sorted.back();
  r.top1_agreement = Scaled(sums.same_top, 1);
  r.delta_p = Scaled(sums.delta_p, 100);
  // The error of a square root by its slope.
  r.rms_delta_p.mean = 100 * std::sqrt(sums.squared_delta_p.mean());
  if (r.rms_delta_p.mean > 0) {
    r.rms_delta_p.std_error =
        100 * 100 * sums.squared_delta_p.std_error() / (2 * r.rms_delta_p.mean);
  }
  r.base_perplexity = std::exp(sums.base_nll.mean());
  r.perplexity = std::exp(sums.nll.mean());
  r.ppl_ratio.mean = std::exp(sums.nll_difference.mean());
  r.ppl_ratio.std_error = r.ppl_ratio.mean * sums.nll_difference.std_error();
  r.tokens = sums.kl.count();
  r.windows = scored.windows.size();
  r.unused_tokens = scored.unused_tokens;
  r.skipped_documents = scored.skipped_documents;
  r.text_bytes = scored.text_bytes;
  r.context = scored.context;
  r.convention = scored.convention;
  return r;
}

// Equal token lists may still cut a text differently (other merges or scores).
Status CheckSameCut(const ScoredText& base, const ScoredText& model) {
  bool same = base.windows.size() == model.windows.size();
  for (size_t i = 0; same && i < base.windows.size(); ++i) {
    same = base.windows[i].tokens == model.windows[i].tokens;
  }
  if (same) return Ok{};
  return Error{Code::kInvalidArgument,
               "the two models' tokenizers cut this text into different tokens, so their "
               "predictions cannot be compared"};
}

// `part`: null for all of `model`.
Result<KlResult> Measure(Engine* base, Engine* model, const ModelPart* part, std::string_view text,
                         const TextOptions& options, Progress* progress) {
  NoProgress silent;
  if (!progress) progress = &silent;
  const double start = NowSeconds();
  EW_TRY(CheckSameVocabulary(base->tokenizer(), model->tokenizer()));
  const ModelSpec& base_spec = base->model().spec();
  const ModelSpec& spec = model->model().spec();
  if (base_spec.vocab_size != spec.vocab_size) {
    return MakeError(Code::kInvalidArgument,
                     "the base gives %u logits and the model %u; KL needs equal vocabularies",
                     base_spec.vocab_size, spec.vocab_size);
  }
  const uint32_t trained = std::min(base_spec.context_length, spec.context_length);
  EW_TRY(const ScoredText scored, CutText(base->tokenizer(), trained, text, options));
  if (base != model) {
    EW_TRY(const ScoredText other, CutText(model->tokenizer(), trained, text, options));
    EW_TRY(CheckSameCut(scored, other));
  }
  const size_t rows = LogitStream::RowsFor(spec.vocab_size);
  EW_TRY(LogitStream base_stream,
         LogitStream::Create(base, scored.context, rows, kernels::KvFormat::kF16));
  EW_TRY(LogitStream stream,
         LogitStream::Create(part ? base : model, scored.context, rows, options.kv_format));
  if (part) EW_TRY(stream.Substitute(model->model(), *part));
  Sums sums;
  std::vector<double> window_kl;
  for (const ScoredWindow& window : scored.windows) {
    progress->Update("KL divergence", sums.kl.count(), scored.tokens);
    if (progress->Cancelled()) return Error{Code::kCancelled, "KL divergence was cancelled"};
    const auto before = static_cast<std::ptrdiff_t>(sums.all_kl.size());
    EW_TRY(ScoreWindow(window, spec.vocab_size, &model->pool(), &base_stream, &stream, &sums));
    window_kl.push_back(std::accumulate(sums.all_kl.begin() + before, sums.all_kl.end(), 0.0) /
                        window.targets());
  }
  progress->Update("KL divergence", sums.kl.count(), scored.tokens);
  KlResult result = Summarize(sums, scored);
  result.window_kl = std::move(window_kl);
  result.seconds = NowSeconds() - start;
  return result;
}

}  // namespace

Result<KlResult> MeasureKl(Engine* base, Engine* model, std::string_view text,
                           const TextOptions& options, Progress* progress) {
  return Measure(base, model, nullptr, text, options, progress);
}

Result<KlResult> MeasurePartKl(Engine* base, Engine* model, const ModelPart& part,
                               std::string_view text, const TextOptions& options,
                               Progress* progress) {
  return Measure(base, model, &part, text, options, progress);
}

Json ToJson(const KlResult& r) {
  Json object;
  object.Set("kl_mean", r.kl.mean).Set("kl_mean_stderr", r.kl.std_error);
  object.Set("kl_p90", r.kl_p90).Set("kl_p99", r.kl_p99).Set("kl_max", r.kl_max);
  object.Set("top1_agreement", r.top1_agreement.mean);
  object.Set("top1_agreement_stderr", r.top1_agreement.std_error);
  object.Set("rms_delta_p", r.rms_delta_p.mean).Set("rms_delta_p_stderr", r.rms_delta_p.std_error);
  object.Set("mean_delta_p", r.delta_p.mean).Set("mean_delta_p_stderr", r.delta_p.std_error);
  object.Set("base_perplexity", r.base_perplexity).Set("perplexity", r.perplexity);
  object.Set("ppl_ratio", r.ppl_ratio.mean).Set("ppl_ratio_stderr", r.ppl_ratio.std_error);
  object.Set("tokens", r.tokens).Set("convention", r.convention).Set("context", r.context);
  object.Set("windows", r.windows).Set("unused_tokens", r.unused_tokens);
  object.Set("skipped_documents", r.skipped_documents).Set("text_bytes", r.text_bytes);
  object.Set("seconds", r.seconds);
  return object;
}

}  // namespace edgewise
