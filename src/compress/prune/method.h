// Methods of pruning single weights, and one matrix through any of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "calibrate/statistics.h"
#include "compress/prune/alps.h"
#include "compress/prune/dsnot.h"
#include "compress/prune/input_metric.h"
#include "compress/prune/mask_file.h"
#include "compress/prune/score.h"
#include "compress/prune/select.h"
#include "compress/prune/sparsity.h"

namespace edgewise {

enum class PruneMethod : uint8_t {
  kMagnitude,        // score.h, weights of a matrix compete
  kRandom,           // score.h, weights of a matrix compete
  kWanda,            // score.h, weights of a row compete
  kRia,              // score.h, weights of a row compete
  kSparseGpt,        // sparsegpt.h
  kAlps,             // alps.h
  kGlobalMagnitude,  // score.h, all weights of the model compete; unstructured only
  kMagnitudeDsnot,   // magnitude, then the swaps of dsnot.h
  kWandaDsnot,       // wanda, then the same
  kMask,             // what masks say (mask_file.h)
};

// Errors: kInvalidArgument, listing the names.
Result<PruneMethod> ParsePruneMethod(std::string_view name);
const char* PruneMethodName(PruneMethod method);
// Of a (rows, columns) matrix, how many weights compete with each other under an unstructured
// sparsity.
size_t ComparedWeights(PruneMethod method, size_t rows, size_t columns);
// True for the methods that change the weights they keep, and so need second moments.
bool UpdatesWeights(PruneMethod method);
// Of the methods that do not.
ScoreMethod ScoreOf(PruneMethod method);
// True for the methods that look at the inputs, and so need a calibration.
bool NeedsCalibration(PruneMethod method);
// True for the methods whose weights compete over all matrices.
bool IsGlobal(PruneMethod method);
// True for the methods that swap weights by DSnoT; they need the means of inputs, which only a text
// gives.
bool SwapsWeights(PruneMethod method);

struct PruneOptions {
  PruneMethod method = PruneMethod::kMagnitude;
  Sparsity sparsity;
  uint64_t seed = 1;  // of kRandom
  bool owl = false;   // unstructured: layers keep the more, the more outliers they have (owl.h)
  std::shared_ptr<const MaskSet> masks = {};  // of kMask, in place of a sparsity
  bool permute = false;           // N:M: order columns first so that more is kept (permute_model.h)
  uint32_t steps = 1;             // to the sparsity; each on the model pruned so far (schedule.h)
  bool keep_zeros = false;        // weights that are 0 stay 0, for all steps but the first
  double goal = 0;                // share that the last of several steps prunes; 0: this one's
  bool swap = true;               // by DSnoT, with the methods that do
  size_t sample_rows = SIZE_MAX;  // of a matrix, evenly spaced, by PruneByCalibration: for trials
};

// What a method knows of the input of the matrices that it prunes next. Move-only.
class MatrixInput {
 public:
  // Of the methods that need no input.
  MatrixInput() = default;
  // `h` (columns, columns), the second moments, is asked for by the methods that update weights
  // only. Errors: those of `h`, InputMetric and SpectralMetric.
  static Result<MatrixInput> Create(PruneMethod method, const ColumnMoments& moments,
                                    FunctionRef<Result<std::vector<float>>()> h, ThreadPool* pool);
  std::span<const float> norms() const { return norms_; }
  InputDistribution distribution() const { return {mean_, variance_, norms_}; }
  const InputMetric& metric() const { return *metric_; }
  const SpectralMetric& spectral() const { return *spectral_; }

 private:
  void SetDistribution(const ColumnMoments& moments);
  std::vector<float> norms_;
  std::vector<double> mean_, variance_;
  std::unique_ptr<InputMetric> metric_;  // SpectralMetric keeps a reference to it
  std::optional<SpectralMetric> spectral_;
};

// A matrix that is to be pruned.
struct MatrixToPrune {
  size_t index = 0;  // of the tensor, for the seed
  const std::string& name;
  std::span<const float> values;  // (rows, columns)
  size_t columns = 0;
  const Mask* within = nullptr;  // weights outside of it stay pruned; null: any may stay
};

// Returns the values after pruning to `sparsity`. `selection`, which has counted and refined all
// scores, for global methods, else null. Does not depend on the number of threads. Errors: those of
// the methods.
Result<std::vector<float>> PruneMatrix(const PruneOptions& options, const MatrixToPrune& matrix,
                                       const Sparsity& sparsity, const MatrixInput& input,
                                       GlobalSelection* selection, ThreadPool* pool);

}  // namespace edgewise
