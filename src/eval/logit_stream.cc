#include "eval/logit_stream.h"

#include <algorithm>
#include <utility>

#include "base/strings.h"
#include "kernels/kernels.h"

namespace edgewise {

double NegativeLogLikelihood(const float* logits, size_t vocab_size, int32_t token) {
  return kernels::Active().log_sum_exp(logits, vocab_size) -
         static_cast<double>(logits[static_cast<size_t>(token)]);
}

Error NotFiniteLogits(const char* model) {
  return MakeError(Code::kBadData,
                   "the %s gave logits that are not finite: the weights are damaged, or their "
                   "number format overflows",
                   model);
}

LogitStream::LogitStream(Engine* engine, KvCache cache, size_t rows)
    : vocab_size_(engine->model().spec().vocab_size),
      cache_(std::move(cache)),
      forward_(engine->model(), &engine->pool()),
      logits_(rows * vocab_size_) {}

Result<LogitStream> LogitStream::Create(Engine* engine, uint32_t max_tokens, size_t rows,
                                        kernels::KvFormat kv_format) {
  EW_TRY(KvCache cache, KvCache::Create(engine->model().spec(), max_tokens, kv_format));
  return LogitStream(engine, std::move(cache), rows);
}

size_t LogitStream::RowsFor(uint32_t vocab_size) {
  constexpr size_t kBytes = 64u << 20;
  return std::clamp<size_t>(kBytes / sizeof(float) / vocab_size, 16, 512);
}

Status LogitStream::Begin(const ScoredWindow& window) {
  cache_.Clear();
  tokens_ = std::span(window.tokens).first(window.tokens.size() - 1);
  const auto context = tokens_.first(window.first_target - 1);
  if (context.empty()) return Ok{};
  return forward_.Run(context, &cache_, context.size(), {});
}

Result<std::span<const float>> LogitStream::Next() {
  const auto left = tokens_.subspan(cache_.size());
  if (left.empty()) return std::span<const float>();
  const size_t count = std::min(left.size(), logits_.size() / vocab_size_);
  const auto rows = std::span(logits_).first(count * vocab_size_);
  EW_TRY(forward_.Run(left.first(count), &cache_, 0, rows));
  return std::span<const float>(rows);
}

}  // namespace edgewise
