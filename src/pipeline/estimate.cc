#include "pipeline/estimate.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <utility>

#include "base/file.h"
#include "base/process.h"
#include "base/sha256.h"
#include "base/strings.h"
#include "compress/matrix.h"
#include "compress/prune/cost.h"
#include "compress/quantize/cost.h"
#include "engine/engine.h"
#include "eval/kl.h"
#include "kernels/kernels.h"
#include "pipeline/calibrate.h"
#include "quant/packed.h"

namespace edgewise {
namespace {

constexpr size_t kTrialBytes = 16u << 20;   // that are written and hashed
constexpr size_t kTrialPiece = 1u << 18;    // so that trials leave no mark on memory
constexpr uint64_t kTrialPositions = 1024;  // scored, of the evaluation text

uint64_t OutputBytes(std::span<const TensorPlan> plan) {
  uint64_t bytes = 0;
  for (const TensorPlan& entry : plan) bytes += Info(entry.to).RowBytes(entry.shape.elements());
  return bytes;
}

// The second moments of a calibration file, in place of a trial of the model.
Result<LayerTrial> TrialOf(const CalibrationFile& file, std::span<const TensorPlan> plan) {
  LayerTrial trial;
  size_t used = 0;
  for (const TensorPlan& entry : plan) {
    const size_t columns = entry.shape.columns();
    if (!entry.name.starts_with("blk.") || entry.shape.rank() != 2) continue;
    if (!file.HasHessian(entry.name)) continue;  // whoever needs it says so
    const std::span seen(trial.inputs, used);
    if (std::any_of(seen.begin(), seen.end(),
                    [&](const InputTrial& input) { return input.columns == columns; })) {
      continue;
    }
    EW_CHECK(used < kLinearInputs);  // no more kinds of inputs than inputs
    InputTrial& input = trial.inputs[used++];
    EW_TRY(const std::vector<float> h, file.Hessian(entry.name, columns));
    input.columns = columns;
    input.kept = std::min(columns, kTrialColumns);
    input.h = LeadingBlock(h, columns, input.kept, input.kept);
  }
  return trial;
}

Result<Cost> EstimateLayers(const Checkpoint& model, std::span<const TensorPlan> plan,
                            const WriteJob& job, ThreadPool* pool) {
  LayerTrial trial;
  TokenSequences sequences;
  const bool from_text = !job.calibration_file && job.planned_calibration == nullptr;
  if (job.planned_calibration != nullptr) {
    trial = *job.planned_calibration;
  } else if (job.calibration_file) {
    EW_TRY(const CalibrationFile file, CalibrationFile::Open(job.calibration.path));
    EW_TRY(trial, TrialOf(file, plan));
  } else if (!job.calibration.path.empty()) {
    EW_TRY(sequences, ReadCalibrationText(model, job.tokenizer_path, job.calibration));
    EW_TRY(trial, TryLayer(model, sequences, kTrialColumns, pool));
  }
  if (job.prune) return PruningCost(model, *job.prune, trial, sequences, pool);
  Cost cost;
  if (job.scale == ScaleMethod::kAwq) {
    EW_TRY(cost, ScalingCost(model, plan, trial, pool));
  }
  if (job.method != QuantizeMethod::kGptq) return cost;
  EW_TRY(const Cost feedback,
         FeedbackCost(model, plan, trial,
                      from_text ? MomentSource::kSequences : MomentSource::kCalibration, sequences,
                      pool));
  return Then(cost, feedback);
}

// Seconds of one multiplication of a (rows, columns) matrix of `type` with as many activations as
// the forward pass takes together.
Result<double> LinearSeconds(DType type, size_t rows, size_t columns) {
  const auto& kernel = kernels::Active().linear[static_cast<size_t>(type)];
  const size_t row_bytes = Info(type).RowBytes(columns);
  const size_t x_stride = kernels::ActRowBytes(kernel.act, columns);
  EW_TRY(const Tensor weights, Tensor::Allocate(DType::kI8, Shape{PaddedRows(rows) * row_bytes}));
  EW_TRY(const Tensor x, Tensor::Allocate(DType::kI8, Shape{kMaxStep * x_stride}));
  std::vector<float> y(rows * kMaxStep);
  double best = 0;
  for (int round = 0; round < 3; ++round) {
    const double start = NowSeconds();
    kernel.run({weights.view().data, row_bytes, rows, columns, x.view().data, x_stride, kMaxStep,
                y.data(), rows});
    const double seconds = NowSeconds() - start;
    best = round == 0 ? seconds : std::min(best, seconds);
  }
  return best;
}

// How long matrices of linear layers take in their new formats, over the time in those they had.
Result<double> SpeedRatio(std::span<const ConvertedTensor> tensors) {
  constexpr size_t kRows = 256;
  std::map<std::pair<DType, size_t>, double> known;
  double before = 0, after = 0;
  for (const ConvertedTensor& tensor : tensors) {
    if (tensor.shape.rank() != 2 || !tensor.name.starts_with("blk.")) continue;
    const size_t columns = tensor.shape.columns();
    for (const auto& [type, sum] : {std::pair(tensor.from, &before), {tensor.to, &after}}) {
      auto found = known.find({type, columns});
      if (found == known.end()) {
        EW_TRY(const double seconds, LinearSeconds(type, kRows, columns));
        found = known.emplace(std::pair(type, columns), seconds).first;
      }
      *sum += found->second * static_cast<double>(tensor.shape.rows());
    }
  }
  return before > 0 ? after / before : 1.0;
}

}  // namespace

Result<double> MeasureWriteRate(const std::string& path) {
  std::string name = Format("%s.%d.speed", path.c_str(), static_cast<int>(::getpid()));
  const FileDescriptor file(::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (file.get() < 0) {
    return MakeError(Code::kIo, "%s: cannot write there: %s", path.c_str(), std::strerror(errno));
  }
  ::unlink(name.c_str());
  const std::vector<char> bytes(kTrialPiece, 1);
  const double start = NowSeconds();
  for (size_t at = 0; at < kTrialBytes;) {
    const ssize_t n = ::write(file.get(), bytes.data(), bytes.size());
    if (n <= 0) {
      return MakeError(Code::kIo, "%s: cannot write there: %s", path.c_str(), std::strerror(errno));
    }
    at += static_cast<size_t>(n);
  }
  ::fsync(file.get());
  return static_cast<double>(kTrialBytes) / (NowSeconds() - start);
}

Result<Cost> HashingCost(const std::vector<std::string>& paths) {
  uint64_t total = 0, largest = 0;
  for (const std::string& path : paths) {
    EW_TRY(const MappedFile file, MappedFile::Open(path));
    total += file.bytes().size();
    largest = std::max<uint64_t>(largest, file.bytes().size());
  }
  const std::vector<std::byte> bytes(kTrialPiece);
  const double start = NowSeconds();
  Sha256 sha;
  for (size_t at = 0; at < kTrialBytes; at += kTrialPiece) sha.Update(bytes);
  sha.Finish();
  const double rate = static_cast<double>(kTrialBytes) / (NowSeconds() - start);
  return Cost{static_cast<double>(total) / rate, std::min<uint64_t>(largest, kHashChunkBytes)};
}

Result<CalibrationEstimate> EstimateCalibration(const Checkpoint& model,
                                                const std::string& out_path,
                                                const RunCalibrationOptions& options) {
  const uint64_t before = ReadMemoryUse().rss_bytes;
  ThreadPool pool(options.threads > 0 ? options.threads : ThreadPool::AvailableCpus());
  EW_TRY(const TokenSequences sequences,
         ReadCalibrationText(model, options.tokenizer_path, options.text));
  EW_TRY(const double rate, MeasureWriteRate(out_path));
  CalibrationEstimate estimate;
  EW_TRY(estimate.trial, TryLayer(model, sequences, kTrialColumns, &pool));
  estimate.cost = CalibrationCost(model.spec(), estimate.trial, sequences, options.part_tokens,
                                  options.hessians, rate, pool.size());
  estimate.cost.bytes += before;
  return estimate;
}

Result<Cost> EstimateWriting(const Checkpoint& model, std::span<const TensorPlan> plan,
                             const WriteJob& job, const std::string& out_path, ThreadPool* pool) {
  const uint64_t before = ReadMemoryUse().rss_bytes;
  Cost cost;
  if (job.prune || job.method == QuantizeMethod::kGptq || job.scale == ScaleMethod::kAwq) {
    EW_TRY(cost, EstimateLayers(model, plan, job, pool));
  }
  std::vector<TensorPlan> encoded;
  for (const TensorPlan& entry : plan) {
    if (job.method != QuantizeMethod::kGptq || !IsLayerwise(entry)) encoded.push_back(entry);
  }
  EW_TRY(const Cost encoding,
         EncodingCost(model, encoded, job.method != QuantizeMethod::kRoundToNearest, pool));
  cost = Then(cost, encoding);
  EW_TRY(const double rate, MeasureWriteRate(out_path));
  const double copies = job.journal_path.empty() ? 1 : 2;
  cost.seconds += copies * static_cast<double>(OutputBytes(plan)) / rate;
  cost.bytes += before;
  return cost;
}

Result<Cost> EstimatePacking(std::span<const ConvertedTensor> tensors,
                             const std::string& out_path) {
  const uint64_t before = ReadMemoryUse().rss_bytes;
  EW_TRY(const double rate, MeasureWriteRate(out_path));
  Cost cost;
  uint64_t largest = 0;
  std::map<std::pair<DType, size_t>, double> groups;  // seconds, by format and columns
  for (const ConvertedTensor& tensor : tensors) {
    cost.seconds += static_cast<double>(tensor.bytes) / rate;
    largest = std::max(largest, tensor.bytes);
    if (tensor.layout != TensorLayout::kPacked) continue;
    const size_t columns = tensor.shape.columns(), row = Info(tensor.to).RowBytes(columns);
    auto known = groups.find({tensor.to, columns});
    if (known == groups.end()) {
      const std::vector<std::byte> rows(kPackedRows * row);
      std::vector<std::byte> group(rows.size());
      const double start = NowSeconds();
      PackGroup(tensor.to, rows.data(), row, kPackedRows, columns, group.data());
      known = groups.emplace(std::pair(tensor.to, columns), NowSeconds() - start).first;
    }
    cost.seconds +=
        known->second * static_cast<double>(PaddedRows(tensor.shape.rows())) / kPackedRows;
  }
  cost.bytes = before + largest;
  return cost;
}

Result<Cost> EstimateCard(const CardRequest& request, std::span<const ConvertedTensor> tensors) {
  ResetPeakRss();
  EW_TRY(const EvaluationInput input, ReadEvaluation(*request.text));
  EngineOptions engine;
  engine.tokenizer_path = request.tokenizer_path;
  engine.threads = request.threads;
  EW_TRY(const auto base, Engine::Load(request.base_path, engine));
  const auto cut = [&](const TextOptions& windows) {
    return CutText(base->tokenizer(), base->model().spec().context_length, input.text, windows);
  };
  const double start = NowSeconds();
  EW_TRY(const ScoredText scored, cut(input.windows));
  const double cutting = NowSeconds() - start;
  // The model against itself: the same work but for the formats.
  TextOptions trial = input.windows;
  trial.max_windows = 1;
  for (uint64_t positions = scored.windows.front().targets();
       positions < kTrialPositions && trial.max_windows < scored.windows.size();) {
    positions += scored.windows[trial.max_windows++].targets();
  }
  const double before_cut = NowSeconds();
  EW_TRY(cut(trial));
  const double trial_cutting = NowSeconds() - before_cut;
  EW_TRY(const KlResult kl, MeasureKl(base.get(), base.get(), input.text, trial));
  EW_TRY(const double ratio, SpeedRatio(tensors));
  const double position =
      std::max(0.0, kl.seconds - trial_cutting) / static_cast<double>(kl.tokens);
  Cost cost;
  cost.seconds = 2 * (base->load_seconds() + cutting) +
                 static_cast<double>(scored.tokens) * position * (1 + ratio) / 2;
  cost.bytes = ReadMemoryUse().peak_rss_bytes;
  for (const ConvertedTensor& tensor : tensors) {
    // Of an embedding that is not the output matrix too, a few rows are looked up.
    const bool looked_up =
        tensor.name == "token_embd.weight" && !base->model().spec().tied_embeddings;
    if (!looked_up) cost.bytes += tensor.bytes;
  }
  return cost;
}

void SetEstimate(const Cost& cost, Json* json) {
  json->Set("estimated_seconds", cost.seconds).Set("estimated_peak_rss_bytes", cost.bytes);
}

}  // namespace edgewise
