#include "calibrate/cost.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/process.h"
#include "base/scratch.h"
#include "calibrate/statistics.h"

namespace edgewise {
namespace {

constexpr uint64_t kTrialTokens = 1024;

// Whole sequences with kTrialTokens together, as far as there are.
TokenSequences TrialSequences(const TokenSequences& all) {
  TokenSequences some;
  uint64_t tokens = 0;
  for (const auto& sequence : all) {
    if (tokens >= kTrialTokens) break;
    some.push_back(sequence);
    tokens += sequence.size();
  }
  return some;
}

// Times the sums on rows as they come, and keeps the moments of the first columns.
Status TrySums(ActivationWalk* walk, LinearInput input, size_t kept, double tokens,
               ThreadPool* pool, InputTrial* trial) {
  EW_TRY(ProductSum products, ProductSum::Create(trial->columns, pool));
  ColumnMoments moments(trial->columns);
  EW_TRY(walk->Visit([&](LinearInput which, const float* rows, size_t n, size_t stride) {
    if (which != input) return true;
    const double start = NowSeconds();
    moments.Add(rows, n, stride);
    const double middle = NowSeconds();
    products.Add(rows, n, stride);
    trial->products += (NowSeconds() - middle) / tokens;
    trial->moments += (middle - start) / tokens;
    return false;
  }));
  const double start = NowSeconds();
  const float* h = products.Finish();
  trial->products += (NowSeconds() - start) / tokens;
  for (size_t i = 0; i < kept; ++i, h += trial->columns) {
    trial->h.insert(trial->h.end(), h, h + kept);
  }
  trial->kept = kept;
  return Ok{};
}

uint64_t StreamBytes(const ModelSpec& spec, uint64_t tokens, size_t longest) {
  const uint64_t row = spec.dim * sizeof(float), all = tokens * row;
  // More lies on disk but for the sequence at hand.
  return (all > ScratchMemory::kInMemory ? 2 * longest * row : all + longest * row);
}

}  // namespace

const InputTrial& FindInput(const LayerTrial& trial, size_t columns) {
  for (const InputTrial& input : trial.inputs) {
    if (input.columns == columns) return input;
  }
  EW_CHECK(false);  // every matrix of a layer reads one of its inputs
}

Result<LayerTrial> TryLayer(const Checkpoint& checkpoint, const TokenSequences& sequences,
                            size_t kept_columns, ThreadPool* pool) {
  const uint64_t before = ReadMemoryUse().rss_bytes;
  EW_TRY(ActivationWalk walk, ActivationWalk::Create(checkpoint, TrialSequences(sequences), pool));
  const auto tokens = static_cast<double>(TokenCount(TrialSequences(sequences)));
  LayerTrial trial;
  const auto until = [&](std::optional<LinearInput> last) {
    return walk.Visit([last](LinearInput which, const float*, size_t, size_t) {
      return !last || which != *last;
    });
  };
  EW_TRY(walk.Load(0));
  EW_TRY(until(std::nullopt));  // the first time its memory is new
  EW_TRY(trial.load, Seconds([&] { return walk.Load(0); }));
  EW_TRY(trial.pass, Seconds([&] { return until(std::nullopt); }));
  trial.pass /= tokens;
  for (const LayerMatrix& matrix : walk.matrices()) {
    InputTrial& input = trial.inputs[static_cast<size_t>(matrix.input)];
    if (input.columns > 0) continue;
    input.columns = matrix.columns;
    EW_TRY(input.visit, Seconds([&] { return until(matrix.input); }));
    input.visit /= tokens;
  }
  const uint64_t streams = StreamBytes(checkpoint.spec(), TrialSequences(sequences));
  const uint64_t now = ReadMemoryUse().rss_bytes;
  trial.bytes = now > before + streams ? now - before - streams : 0;
  for (size_t i = 0; i < kLinearInputs; ++i) {
    InputTrial& input = trial.inputs[i];
    if (input.columns == 0) continue;
    EW_TRY(TrySums(&walk, static_cast<LinearInput>(i), std::min(kept_columns, input.columns),
                   tokens, pool, &input));
  }
  return trial;
}

uint64_t StreamBytes(const ModelSpec& spec, const TokenSequences& sequences) {
  return StreamBytes(spec, TokenCount(sequences), LongestOf(sequences));
}

uint64_t ProductSumBytes(size_t columns, int threads) {
  const uint64_t tiles = static_cast<uint64_t>(threads) * ProductSum::kTile;
  return columns * (columns + ProductSum::kPanel + tiles) * sizeof(float);
}

Cost CalibrationCost(const ModelSpec& spec, const LayerTrial& trial,
                     const TokenSequences& sequences, uint64_t part_tokens, bool hessians,
                     double write_rate, int threads) {
  const auto tokens = static_cast<double>(TokenCount(sequences));
  const uint64_t largest_part = std::min(TokenCount(sequences), part_tokens);
  const double parts = std::ceil(tokens / static_cast<double>(largest_part));
  Cost layer;
  layer.seconds = parts * trial.load + tokens * trial.pass;
  layer.bytes = trial.bytes + StreamBytes(spec, largest_part, LongestOf(sequences));
  uint64_t squares = 0, largest = 0;
  for (const InputTrial& input : trial.inputs) {
    if (input.columns == 0) continue;
    layer.seconds += tokens * (input.moments + (hessians ? input.products : 0));
    if (!hessians) continue;
    layer.bytes += ProductSumBytes(input.columns, threads);
    squares += input.columns * input.columns;
    largest = std::max(largest, input.columns * input.columns);
  }
  // Each part but the first adds the file before, whose moments are read one by one.
  if (parts > 1) layer.bytes += largest * sizeof(float) * 3 / 2;
  const double file = static_cast<double>(squares) * sizeof(float) / 2;
  layer.seconds += parts * file / write_rate;
  // The input of the output matrix is like that of the first matrices.
  const InputTrial& qkv = trial.inputs[static_cast<size_t>(LinearInput::kQkv)];
  const double output = tokens * (qkv.moments + (hessians ? qkv.products : 0));
  return {layer.seconds * spec.n_layers + output, layer.bytes};
}

}  // namespace edgewise
