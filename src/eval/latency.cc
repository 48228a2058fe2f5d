#include "eval/latency.h"

#include <algorithm>
#include <vector>

#include "base/process.h"
#include "base/rng.h"
#include "base/strings.h"
#include "engine/sampler.h"
#include "eval/percentile.h"
#include "model/model.h"

namespace edgewise {
namespace {

// Times of one prompt and its continuation.
struct Run {
  double prefill = 0;              // seconds
  double first_token = 0;          // prefill and choosing
  std::vector<double> step_times;  // one decode step each: computing logits and choosing
};

// Sequences that run in step.
class Streams {
 public:
  static Result<Streams> Create(Engine* engine, uint32_t count, uint32_t context,
                                kernels::KvFormat format) {
    std::vector<KvCache> caches;
    while (caches.size() < count) {
      EW_TRY(KvCache cache, KvCache::Create(engine->model().spec(), context, format));
      caches.push_back(std::move(cache));
    }
    SamplerOptions greedy;
    greedy.temperature = 0;
    EW_TRY(Sampler sampler, Sampler::Create(greedy, engine->model().spec().vocab_size));
    return Streams(engine, std::move(caches), std::move(sampler));
  }

  // `prompts`: one per sequence, each of `size` tokens.
  Result<Run> Generate(std::span<const int32_t> prompts, size_t size, uint32_t new_tokens,
                       Progress* progress) {
    for (KvCache& cache : caches_) cache.Clear();
    Run run;
    const double start = NowSeconds();
    EW_TRY(Compute(prompts, size));
    run.prefill = NowSeconds() - start;
    EW_TRY(std::vector<int32_t> ids, Choose());
    run.first_token = NowSeconds() - start;
    for (uint32_t i = 0; i < new_tokens; ++i) {
      if (progress->Cancelled()) return Error{Code::kCancelled, "the measurement was cancelled"};
      const double before = NowSeconds();
      EW_TRY(Compute(ids, 1));
      EW_TRY(ids, Choose());
      run.step_times.push_back(NowSeconds() - before);
    }
    return run;
  }

  uint64_t kv_bytes() const {
    uint64_t bytes = 0;
    for (const KvCache& cache : caches_) bytes += cache.bytes();
    return bytes;
  }

 private:
  Streams(Engine* engine, std::vector<KvCache> caches, Sampler sampler)
      : caches_(std::move(caches)),
        forward_(engine->model(), &engine->pool()),
        sampler_(std::move(sampler)),
        vocab_size_(engine->model().spec().vocab_size),
        logits_(caches_.size() * vocab_size_) {}

  // Appends `each` tokens to every sequence and computes the logits after them.
  Status Compute(std::span<const int32_t> tokens, size_t each) {
    std::vector<SequenceTokens> batch;
    for (size_t i = 0; i < caches_.size(); ++i) {
      batch.push_back({tokens.subspan(i * each, each), &caches_[i], each - 1});
    }
    return forward_.Run(batch, logits_);
  }

  Result<std::vector<int32_t>> Choose() {
    std::vector<int32_t> ids(caches_.size());
    for (size_t i = 0; i < ids.size(); ++i) {
      EW_TRY(ids[i], sampler_.Sample(std::span(logits_).subspan(i * vocab_size_, vocab_size_)));
    }
    return ids;
  }

  std::vector<KvCache> caches_;
  ForwardPass forward_;
  Sampler sampler_;
  size_t vocab_size_;
  std::vector<float> logits_;  // (sequences, vocab_size)
};

Status ChooseSizes(const LatencyOptions& options, uint32_t trained, LatencyResult* result) {
  if (options.repetitions == 0) {
    return Error{Code::kInvalidArgument, "0 repetitions measure nothing; ask for at least 1"};
  }
  if (options.sequences == 0) {
    return Error{Code::kInvalidArgument, "0 sequences measure nothing; ask for at least 1"};
  }
  result->sequences = options.sequences;
  result->prompt_tokens =
      options.prompt_tokens > 0 ? options.prompt_tokens : std::min(512u, trained / 2);
  result->new_tokens = options.new_tokens > 0 ? options.new_tokens : std::min(128u, trained / 4);
  const uint64_t total = uint64_t{result->prompt_tokens} + result->new_tokens;
  if (result->prompt_tokens > 0 && result->new_tokens > 0 && total <= trained) return Ok{};
  return MakeError(Code::kInvalidArgument,
                   "a prompt of %u tokens and %u new ones do not fit the trained context of %u",
                   result->prompt_tokens, result->new_tokens, trained);
}

// Multiplications and additions of the matrix products: every layer's for each token, the output's
// for the last.
uint64_t PrefillOps(const Model& model, uint64_t tokens) {
  uint64_t per_token = 0, once = 0;
  for (const CheckpointTensor& tensor : model.checkpoint().tensors()) {
    if (tensor.shape.rank() != 2) continue;
    const std::string_view output =
        model.spec().tied_embeddings ? "token_embd.weight" : "output.weight";
    if (tensor.name.starts_with("blk.")) per_token += tensor.shape.elements();
    if (tensor.name == output) once += tensor.shape.elements();
  }
  return 2 * (per_token * tokens + once);
}

std::vector<int32_t> RandomTokens(size_t size, uint32_t vocab_size, uint64_t seed) {
  Rng rng(seed);
  std::vector<int32_t> ids(size);
  for (int32_t& id : ids) id = static_cast<int32_t>(rng.Below(vocab_size));
  return ids;
}

void Summarize(const std::vector<Run>& runs, LatencyResult* result) {
  std::vector<double> prefill, first, steps;
  double total = 0;
  for (const Run& run : runs) {
    prefill.push_back(run.prefill);
    first.push_back(run.first_token);
    steps.insert(steps.end(), run.step_times.begin(), run.step_times.end());
  }
  for (const double seconds : steps) total += seconds;
  const double sequences = result->sequences;
  result->prefill_tokens_per_s = sequences * result->prompt_tokens / Percentile(prefill, 0.5);
  result->ttft_ms = 1e3 * Percentile(first, 0.5);
  result->decode_tokens_per_s = sequences * static_cast<double>(steps.size()) / total;
  result->decode_p50_ms = 1e3 * Percentile(steps, 0.50);
  result->decode_p90_ms = 1e3 * Percentile(steps, 0.90);
  result->decode_p99_ms = 1e3 * Percentile(steps, 0.99);
}

}  // namespace

Result<LatencyResult> MeasureLatency(Engine* engine, const LatencyOptions& options,
                                     Progress* progress) {
  NoProgress silent;
  if (!progress) progress = &silent;
  const Model& model = engine->model();
  LatencyResult result;
  EW_TRY(ChooseSizes(options, model.spec().context_length, &result));
  result.load_ms = 1e3 * engine->load_seconds();
  result.bytes_per_token = model.bytes_per_token();
  result.prefill_ops = result.sequences * PrefillOps(model, result.prompt_tokens);
  EW_TRY(Streams streams,
         Streams::Create(engine, result.sequences, result.prompt_tokens + result.new_tokens,
                         options.kv_format));
  result.kv_bytes = streams.kv_bytes();
  const std::vector<int32_t> prompts = RandomTokens(size_t{result.sequences} * result.prompt_tokens,
                                                    model.spec().vocab_size, options.seed);

  // The warm-up reads every weight from the disk and lets the threads start.
  progress->Update("measuring speed", 0, options.repetitions);
  const size_t warm_up = std::min<size_t>(result.prompt_tokens, 32);
  EW_TRY(const Run ignored,
         streams.Generate(prompts, warm_up, std::min(result.new_tokens, 4u), progress));
  std::vector<Run> runs;
  const double start = NowSeconds();
  while (runs.size() < options.repetitions || NowSeconds() - start < options.min_seconds) {
    EW_TRY(Run run, streams.Generate(prompts, result.prompt_tokens, result.new_tokens, progress));
    runs.push_back(std::move(run));
    result.peak_anon_bytes = std::max(result.peak_anon_bytes, ReadMemoryUse().anonymous_bytes);
    progress->Update("measuring speed", std::min<size_t>(runs.size(), options.repetitions),
                     options.repetitions);
  }
  result.repetitions = static_cast<uint32_t>(runs.size());
  Summarize(runs, &result);
  result.peak_rss_bytes = ReadMemoryUse().peak_rss_bytes;
  return result;
}

void SetShares(const MachineLimits& limits, LatencyResult* result) {
  const double sequences = result->sequences;
  const double steps_per_s = result->decode_tokens_per_s / sequences;
  result->bandwidth_share =
      steps_per_s * static_cast<double>(result->bytes_per_token) / limits.read_bytes_per_s;
  const double prefill_seconds = sequences * result->prompt_tokens / result->prefill_tokens_per_s;
  const double ops_per_s = static_cast<double>(result->prefill_ops) / prefill_seconds;
  result->int8_peak_share = ops_per_s / limits.int8_ops_per_s;
}

Json ToJson(const LatencyResult& r) {
  Json object;
  object.Set("prefill_tokens_per_s", r.prefill_tokens_per_s);
  object.Set("decode_tokens_per_s", r.decode_tokens_per_s);
  object.Set("decode_p50_ms", r.decode_p50_ms).Set("decode_p90_ms", r.decode_p90_ms);
  object.Set("decode_p99_ms", r.decode_p99_ms).Set("ttft_ms", r.ttft_ms).Set("load_ms", r.load_ms);
  object.Set("peak_rss_bytes", r.peak_rss_bytes).Set("peak_anon_bytes", r.peak_anon_bytes);
  object.Set("kv_bytes", r.kv_bytes).Set("bytes_per_token", r.bytes_per_token);
  object.Set("bandwidth_share", r.bandwidth_share).Set("int8_peak_share", r.int8_peak_share);
  object.Set("prompt_tokens", r.prompt_tokens).Set("new_tokens", r.new_tokens);
  object.Set("sequences", r.sequences).Set("repetitions", r.repetitions);
  object.Set("prefill_ops", r.prefill_ops);
  return object;
}

}  // namespace edgewise
