#include "eval/scaling.h"

#include <algorithm>
#include <utility>

#include "base/process.h"
#include "base/rng.h"
#include "base/strings.h"
#include "eval/percentile.h"
#include "model/model.h"

namespace edgewise {
namespace {

constexpr uint32_t kShortest = 128;   // tokens; doubled from point to point
constexpr uint32_t kBatchDepth = 64;  // tokens of each sequence before it decodes

class Meter {
 public:
  Meter(Engine* engine, const ScalingOptions& options, Progress* progress)
      : model_(engine->model()), options_(options), progress_(progress), rng_(1) {}

  Result<KvCache> NewCache(uint32_t tokens) const {
    return KvCache::Create(model_.spec(), tokens, options_.kv_format);
  }

  // Appends `count` random tokens to each cache, without logits; returns the seconds.
  Result<double> Prefill(ForwardPass* pass, std::vector<KvCache>* caches, uint32_t count) {
    EW_TRY(CheckCancelled());
    std::vector<std::vector<int32_t>> tokens(caches->size());
    std::vector<SequenceTokens> batch;
    for (size_t i = 0; i < tokens.size(); ++i) {
      for (uint32_t t = 0; t < count; ++t) tokens[i].push_back(RandomToken());
      batch.push_back({tokens[i], &(*caches)[i], count});
    }
    const double start = NowSeconds();
    EW_TRY(pass->Run(batch, {}));
    return NowSeconds() - start;
  }

  // Decodes one token of each sequence `steps` times, each time at the same depth; returns the
  // median seconds of a step.
  Result<double> Decode(ForwardPass* pass, std::vector<KvCache>* caches) {
    std::vector<double> seconds;
    std::vector<float> logits(caches->size() * model_.spec().vocab_size);
    for (uint32_t step = 0; step < options_.steps; ++step) {
      EW_TRY(CheckCancelled());
      std::vector<int32_t> tokens(caches->size());
      std::vector<SequenceTokens> batch;
      for (size_t i = 0; i < tokens.size(); ++i) {
        tokens[i] = RandomToken();
        batch.push_back({std::span(&tokens[i], 1), &(*caches)[i], 0});
      }
      const double start = NowSeconds();
      EW_TRY(pass->Run(batch, logits));
      seconds.push_back(NowSeconds() - start);
      for (KvCache& cache : *caches) (void)cache.Truncate(cache.size() - 1);
    }
    return Percentile(seconds, 0.5);
  }

 private:
  int32_t RandomToken() { return static_cast<int32_t>(rng_.Below(model_.spec().vocab_size)); }
  Status CheckCancelled() {
    if (!progress_->Cancelled()) return Ok{};
    return Error{Code::kCancelled, "the measurement was cancelled"};
  }

  const Model& model_;
  const ScalingOptions& options_;
  Progress* progress_;
  Rng rng_;
};

// One long prompt, stopped at each point: the time up to there is that of a prompt as long.
Status MeasureContext(Engine* engine, const ScalingOptions& options, Meter* meter,
                      Progress* progress, ScalingResult* result) {
  ForwardPass pass(engine->model(), &engine->pool());
  std::vector<KvCache> caches;
  EW_TRY(KvCache cache, meter->NewCache(options.max_tokens + 1));
  caches.push_back(std::move(cache));
  double seconds = 0;
  uint32_t done = 0;
  for (uint32_t tokens = kShortest; tokens <= options.max_tokens; tokens *= 2) {
    progress->Update("depth of the context", done, options.max_tokens);
    EW_TRY(const double more, meter->Prefill(&pass, &caches, tokens - done));
    seconds += more;
    done = tokens;
    EW_TRY(const double step, meter->Decode(&pass, &caches));
    result->context.push_back({tokens, tokens / seconds, 1 / step});
  }
  return Ok{};
}

Status MeasureBatch(Engine* engine, const ScalingOptions& options, Meter* meter, Progress* progress,
                    ScalingResult* result) {
  ForwardPass pass(engine->model(), &engine->pool());
  std::vector<KvCache> caches;
  for (uint32_t sequences = 1; sequences <= options.max_sequences; sequences *= 2) {
    progress->Update("number of sequences", sequences, options.max_sequences);
    while (caches.size() < sequences) {
      std::vector<KvCache> one;
      EW_TRY(KvCache cache, meter->NewCache(kBatchDepth + 1));
      one.push_back(std::move(cache));
      EW_TRY(meter->Prefill(&pass, &one, kBatchDepth));
      caches.push_back(std::move(one.front()));
    }
    EW_TRY(const double step, meter->Decode(&pass, &caches));
    result->batch.push_back({sequences, sequences / step});
  }
  return Ok{};
}

Status MeasureThreads(Engine* engine, Meter* meter, Progress* progress, ScalingResult* result) {
  const int most = engine->pool().size();
  for (int threads = 1; threads <= most; ++threads) {
    progress->Update("number of threads", static_cast<uint64_t>(threads),
                     static_cast<uint64_t>(most));
    ThreadPool pool(threads);
    ForwardPass pass(engine->model(), &pool);
    std::vector<KvCache> caches;
    EW_TRY(KvCache cache, meter->NewCache(kShortest + 1));
    caches.push_back(std::move(cache));
    EW_TRY(const double prefill, meter->Prefill(&pass, &caches, kShortest));
    EW_TRY(const double step, meter->Decode(&pass, &caches));
    result->threads.push_back({threads, kShortest / prefill, 1 / step});
  }
  return Ok{};
}

}  // namespace

Result<ScalingResult> MeasureScaling(Engine* engine, const ScalingOptions& options,
                                     Progress* progress) {
  NoProgress silent;
  if (!progress) progress = &silent;
  if (options.max_tokens < kShortest || options.max_sequences == 0 || options.steps == 0) {
    return MakeError(Code::kInvalidArgument,
                     "growth is measured over at least %u tokens, 1 sequence and 1 step; asked for "
                     "%u, %u and %u",
                     kShortest, options.max_tokens, options.max_sequences, options.steps);
  }
  ScalingResult result;
  Meter meter(engine, options, progress);
  {  // Reads every weight and wakes the threads.
    ForwardPass pass(engine->model(), &engine->pool());
    std::vector<KvCache> caches;
    EW_TRY(KvCache cache, meter.NewCache(32));
    caches.push_back(std::move(cache));
    EW_TRY(meter.Prefill(&pass, &caches, 32));
  }
  EW_TRY(MeasureContext(engine, options, &meter, progress, &result));
  EW_TRY(MeasureBatch(engine, options, &meter, progress, &result));
  EW_TRY(MeasureThreads(engine, &meter, progress, &result));
  return result;
}

Json ToJson(const ScalingResult& result) {
  Json context{JsonArray()}, batch{JsonArray()}, threads{JsonArray()};
  for (const auto& point : result.context) {
    context.Append(Json()
                       .Set("tokens", point.tokens)
                       .Set("prefill_tokens_per_s", point.prefill_tokens_per_s)
                       .Set("decode_tokens_per_s", point.decode_tokens_per_s));
  }
  for (const auto& point : result.batch) {
    batch.Append(Json()
                     .Set("sequences", point.sequences)
                     .Set("decode_tokens_per_s", point.decode_tokens_per_s));
  }
  for (const auto& point : result.threads) {
    threads.Append(Json()
                       .Set("threads", point.threads)
                       .Set("prefill_tokens_per_s", point.prefill_tokens_per_s)
                       .Set("decode_tokens_per_s", point.decode_tokens_per_s));
  }
  return Json().Set("context", context).Set("batch", batch).Set("threads", threads);
}

}  // namespace edgewise
