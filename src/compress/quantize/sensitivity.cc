#include "compress/quantize/sensitivity.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "base/process.h"
#include "base/rng.h"
#include "base/strings.h"
#include "compress/matrix.h"
#include "compress/quantize/cost.h"
#include "compress/quantize/output_error.h"
#include "model/model.h"
#include "quant/block_parts.h"

namespace edgewise {
namespace {

constexpr uint64_t kSeed = 1;

// Turns logits into log-probabilities.
void Normalize(std::span<float> logits) {
  const float most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - most);
  const auto by = static_cast<float>(most + std::log(sum));
  for (float& logit : logits) logit -= by;
}

int32_t Sample(std::span<const float> log_probabilities, double at) {
  for (size_t i = 0; i < log_probabilities.size(); ++i) {
    at -= std::exp(static_cast<double>(log_probabilities[i]));
    if (at < 0) return static_cast<int32_t>(i);
  }
  return static_cast<int32_t>(log_probabilities.size() - 1);
}

// Tokens of each sequence.
size_t Length(const ModelSpec& spec, const SensitivityOptions& options) {
  return std::min<size_t>(options.tokens, spec.context_length);
}

// Text that a model wrote, with its own log-probabilities for each next token.
class SampledText {
 public:
  static Result<SampledText> Write(const Checkpoint& checkpoint, const SensitivityOptions& options,
                                   ThreadPool* pool);
  // A sequence of the same token, of which nothing is known: for the time it takes.
  static SampledText Placeholder(const ModelSpec& spec, const SensitivityOptions& options);
  // Mean KL divergence of `checkpoint`, of the same shape, from the model that wrote the text.
  Result<double> Divergence(const Checkpoint& checkpoint, ThreadPool* pool) const;

 private:
  std::vector<std::vector<int32_t>> sequences_;
  std::vector<std::vector<float>> known_;  // (tokens, vocabulary) for each
};

Result<SampledText> SampledText::Write(const Checkpoint& checkpoint,
                                       const SensitivityOptions& options, ThreadPool* pool) {
  EW_TRY(const auto model, Model::Load(checkpoint, pool));
  const ModelSpec& spec = model->spec();
  const size_t count = options.sequences, vocabulary = spec.vocab_size;
  const size_t length = Length(spec, options);
  SampledText text;
  text.sequences_.assign(count, {options.first_token});
  text.known_.resize(count);
  std::vector<KvCache> caches;
  for (size_t i = 0; i < count; ++i) {
    EW_TRY(KvCache cache,
           KvCache::Create(spec, static_cast<uint32_t>(length), kernels::KvFormat::kF32));
    caches.push_back(std::move(cache));
  }
  ForwardPass pass(*model, pool);
  Rng rng(kSeed);
  std::vector<float> logits(count * vocabulary);
  for (size_t step = 0; step < length; ++step) {
    std::vector<SequenceTokens> batch;
    for (size_t i = 0; i < count; ++i) {
      batch.push_back({std::span(text.sequences_[i]).last(1), &caches[i], 0});
    }
    EW_TRY(pass.Run(batch, logits));
    for (size_t i = 0; i < count; ++i) {
      const std::span row = std::span(logits).subspan(i * vocabulary, vocabulary);
      Normalize(row);
      text.known_[i].insert(text.known_[i].end(), row.begin(), row.end());
      const int32_t next = Sample(row, rng.Uniform());
      if (step + 1 < length) text.sequences_[i].push_back(next);
    }
  }
  return text;
}

SampledText SampledText::Placeholder(const ModelSpec& spec, const SensitivityOptions& options) {
  const size_t length = Length(spec, options);
  SampledText text;
  text.sequences_.assign(1, std::vector<int32_t>(length, options.first_token));
  text.known_.assign(1, std::vector<float>(length * spec.vocab_size));
  return text;
}

Result<double> SampledText::Divergence(const Checkpoint& checkpoint, ThreadPool* pool) const {
  EW_TRY(const auto model, Model::Load(checkpoint, pool));
  const size_t vocabulary = model->spec().vocab_size, length = sequences_.front().size();
  EW_TRY(KvCache cache,
         KvCache::Create(model->spec(), static_cast<uint32_t>(length), kernels::KvFormat::kF32));
  ForwardPass pass(*model, pool);
  std::vector<float> logits(length * vocabulary);
  double sum = 0;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    cache.Clear();
    EW_TRY(pass.Run(sequences_[i], &cache, 0, logits));
    const float* p = known_[i].data();
    for (size_t token = 0; token < length; ++token, p += vocabulary) {
      const std::span q = std::span(logits).subspan(token * vocabulary, vocabulary);
      Normalize(q);
      for (size_t v = 0; v < vocabulary; ++v) {
        sum += std::exp(static_cast<double>(p[v])) * (static_cast<double>(p[v]) - q[v]);
      }
    }
  }
  return std::max(0.0, sum / static_cast<double>(sequences_.size() * length));
}

// What is known of the input of one or more tensors.
struct SubjectInput {
  std::string name;               // InputName of the tensors; empty: of none
  std::vector<float> importance;  // (columns); empty: none
  std::vector<float> h;           // (columns, columns); empty: the identity
  std::optional<ErrorMetric> metric;
};

// One tensor, without its input.
struct Subject {
  std::vector<float> rows;  // some of them
  size_t columns;
};

Result<SubjectInput> LoadInput(const TensorPlan& entry, const CalibrationFile& calibration,
                               const SensitivityOptions& options, ThreadPool* pool) {
  SubjectInput input;
  input.name = InputName(entry.name);
  // An embedding that is not the output matrix too is read by row: nothing multiplies it.
  if (!IsLayerwise(entry) && !calibration.HasHessian(entry.name)) return input;
  const size_t n = entry.shape.columns();
  EW_TRY(input.h, calibration.Hessian(entry.name, n));
  if (options.encoder == RowEncoder::kPlain) return input;
  for (size_t c = 0; c < n; ++c) input.importance.push_back(input.h[c * n + c]);
  if (options.encoder == RowEncoder::kFeedback && IsLayerwise(entry)) {
    EW_TRY(input.metric,
           ErrorMetric::Create(input.h, n, LayerwiseOptions().damping, pool).In(entry.name));
  }
  return input;
}

double ErrorIn(const Subject& subject, const SubjectInput& input, DType type, ThreadPool* pool) {
  const DTypeInfo& info = Info(type);
  if (!input.metric || !info.quantized()) {
    return OutputError(subject.rows, subject.columns, {type, input.importance, {}}, input.h, pool);
  }
  std::vector<std::byte> blocks(info.RowBytes(subject.rows.size()));
  QuantizeWithFeedback(subject.rows.data(), subject.rows.size() / subject.columns, *input.metric,
                       type, LayerwiseOptions().feedback, pool, blocks.data());
  return OutputError(subject.rows, subject.columns, type, blocks, input.h, pool);
}

// KL of the model with one tensor quantized, columns weighted by the importance of `input`.
Result<double> ProbeKl(const SampledText& text, const Checkpoint& checkpoint,
                       const TensorPlan& entry, const SubjectInput& input, DType type,
                       ThreadPool* pool) {
  const DTypeInfo& info = Info(type);
  const size_t n = entry.shape.columns();
  const float* importance = input.importance.empty() ? nullptr : input.importance.data();
  EW_TRY(std::vector<float> rounded, LoadRows(checkpoint, entry.source, SIZE_MAX));
  pool->ParallelFor(rounded.size() / n, 16, [&](size_t begin, size_t end, int) {
    std::vector<std::byte> blocks(info.RowBytes(n));
    for (float* row = rounded.data() + begin * n; begin < end; ++begin, row += n) {
      info.encode(row, importance, blocks.data(), n);
      info.decode(blocks.data(), row, n);
    }
  });
  const auto replace = [&](std::span<float> values) {
    std::copy(rounded.begin(), rounded.end(), values.begin());
  };
  return text.Divergence(checkpoint.Changed({{entry.source, replace}}), pool);
}

// In the middle of what will be chosen from, and it fits whatever is quantized at all.
constexpr DType kProbe = DType::kQ4_0;

struct ErrorSeconds {
  double input = 0;   // for all tensors that share one
  double tensor = 0;  // for each
};

// What measuring the errors of one tensor takes, by a trial on the columns that `input` is of.
Result<ErrorSeconds> TryErrors(const Checkpoint& checkpoint, const TensorPlan& entry,
                               const InputTrial& input, const SensitivityOptions& options,
                               ThreadPool* pool) {
  const size_t columns = entry.shape.columns();
  EW_TRY(const std::vector<float> rows, LoadRows(checkpoint, entry.source, options.error_rows));
  const Subject subject{LeadingBlock(rows, columns, rows.size() / columns, input.kept), input.kept};
  SubjectInput known;
  known.h = LeadingBlock(input.h, input.kept, input.kept, input.kept);
  if (options.encoder != RowEncoder::kPlain) known.importance.assign(input.kept, 1.0f);
  const double start = NowSeconds();
  if (options.encoder == RowEncoder::kFeedback && IsLayerwise(entry)) {
    EW_TRY(known.metric,
           ErrorMetric::Create(known.h, input.kept, LayerwiseOptions().damping, pool));
  }
  const double factor = NowSeconds() - start;
  for (const DType type : CandidateFormats(entry)) {
    if (input.kept % Info(type).block == 0) ErrorIn(subject, known, type, pool);
  }
  const double ratio = static_cast<double>(columns) / static_cast<double>(input.kept);
  return ErrorSeconds{factor * ratio * ratio * ratio,
                      (NowSeconds() - start - factor) * ratio * ratio};
}

}  // namespace

std::vector<DType> CandidateFormats(const TensorPlan& entry) {
  std::vector<DType> types;
  if (!Info(entry.to).quantized() || !entry.reason.empty()) return types;
  for (const DTypeInfo& info : AllDTypes()) {
    const bool fits = info.encode != nullptr && FormOf(info.id) != nullptr && !info.sparse() &&
                      entry.shape.columns() % info.block == 0;
    if (fits || info.id == DType::kF16) types.push_back(info.id);
  }
  return types;
}

Result<std::vector<TensorCosts>> MeasureSensitivity(const Checkpoint& checkpoint,
                                                    std::span<const TensorPlan> plan,
                                                    const CalibrationFile& calibration,
                                                    const SensitivityOptions& options,
                                                    ThreadPool* pool, Progress* progress) {
  EW_TRY(const SampledText text, SampledText::Write(checkpoint, options, pool));
  std::vector<size_t> order;
  for (size_t i = 0; i < plan.size(); ++i) {
    if (!CandidateFormats(plan[i]).empty()) order.push_back(i);
  }
  GroupByInput(&order, [&](size_t i) { return plan[i].name; });
  SubjectInput input;
  std::vector<TensorCosts> costs;
  for (const size_t i : order) {
    const TensorPlan& entry = plan[i];
    progress->Update("measuring", costs.size(), order.size());
    if (progress->Cancelled()) return MakeError(Code::kCancelled, "stopped; nothing was written");
    if (InputName(entry.name) != input.name) {
      input = SubjectInput();
      EW_TRY(input, LoadInput(entry, calibration, options, pool));
    }
    Subject subject{{}, entry.shape.columns()};
    EW_TRY(subject.rows, LoadRows(checkpoint, entry.source, options.error_rows));
    EW_TRY(const double kl, ProbeKl(text, checkpoint, entry, input, kProbe, pool).In(entry.name));
    const double error =
        OutputError(subject.rows, subject.columns, {kProbe, input.importance, {}}, input.h, pool);
    TensorCosts mine{i, {}};
    for (const DType type : CandidateFormats(entry)) {
      mine.formats.push_back(
          {type, error > 0 ? kl * ErrorIn(subject, input, type, pool) / error : 0});
    }
    costs.push_back(std::move(mine));
  }
  std::sort(costs.begin(), costs.end(),
            [](const TensorCosts& a, const TensorCosts& b) { return a.entry < b.entry; });
  return costs;
}

Result<Cost> SensitivityCost(const Checkpoint& checkpoint, std::span<const TensorPlan> plan,
                             const LayerTrial& trial, const SensitivityOptions& options,
                             ThreadPool* pool) {
  constexpr size_t kSteps = 8;
  const ModelSpec& spec = checkpoint.spec();
  const uint64_t before = ReadMemoryUse().rss_bytes;
  const double start = NowSeconds();
  EW_TRY(const auto model, Model::Load(checkpoint, pool));
  const double load = NowSeconds() - start;
  SensitivityOptions few = options;
  few.tokens = std::min(kSteps, Length(spec, options));
  EW_TRY(const double writing, Seconds([&] { return SampledText::Write(checkpoint, few, pool); }));
  const SampledText one = SampledText::Placeholder(spec, options);
  EW_TRY(const double probe, Seconds([&] { return one.Divergence(checkpoint, pool); }));
  const uint64_t after = ReadMemoryUse().rss_bytes;

  Cost cost;
  const auto sequences = static_cast<double>(options.sequences);
  cost.seconds = load + std::max(0.0, writing - load) *
                            static_cast<double>(Length(spec, options) / few.tokens);
  std::map<size_t, ErrorSeconds> errors;  // by columns
  std::set<std::string> seen;             // inputs
  uint64_t largest = 0, moments = 0;
  for (const TensorPlan& entry : plan) {
    if (CandidateFormats(entry).empty()) continue;
    const size_t columns = entry.shape.columns();
    const bool feedback = options.encoder == RowEncoder::kFeedback && IsLayerwise(entry);
    moments = std::max<uint64_t>(moments, (feedback ? 3 : 1) * uint64_t{columns} * columns);
    auto known = errors.find(columns);
    if (known == errors.end()) {
      EW_TRY(const ErrorSeconds seconds,
             TryErrors(checkpoint, entry, FindInput(trial, columns), options, pool));
      known = errors.emplace(columns, seconds).first;
    }
    if (feedback && seen.insert(InputName(entry.name)).second) cost.seconds += known->second.input;
    cost.seconds += known->second.tensor + load + sequences * std::max(0.0, probe - load);
    largest = std::max<uint64_t>(largest, entry.shape.elements());
  }
  EW_TRY(const Cost rounding,
         EncodingCost(checkpoint, plan, options.encoder != RowEncoder::kPlain, pool));
  cost.seconds += rounding.seconds;
  cost.bytes =
      (after > before ? after - before : 0) +
      sizeof(float) * (2 * largest + moments +
                       options.sequences * Length(spec, options) * uint64_t{spec.vocab_size});
  return cost;
}

}  // namespace edgewise
