// Calibration: one pass of text through a model, and the file that keeps what the linear layers
// saw. The file is llama.cpp's imatrix in its GGUF form with more tensors beside, so either program
// reads the other's:
//   NAME.in_sum2     F32 (1, columns)  sum of squares of each input column, for the weight NAME
//   NAME.counts      F32 (1, 1)        tokens
//   NAME.in_sum_abs  F32 (1, columns)  sum of magnitudes                     ] ours
//   NAME.in_max_abs  F32 (1, columns)  largest magnitude                     ]
//   NAME.in_hessian  F32 (n (n + 1) / 2)  lower triangle of sum x x^T, row by row; of weights with
//                                         the same input only for the first (attn_q, ffn_gate)
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "calibrate/statistics.h"
#include "calibrate/walk.h"
#include "formats/gguf.h"
#include "model/checkpoint.h"

namespace edgewise {

// Where a calibration comes from; merging joins the texts.
struct CalibrationOrigin {
  std::string model_sha256;        // empty: unknown, as in llama.cpp's files
  std::vector<std::string> texts;  // "digest  name"; llama.cpp's datasets
  uint64_t tokens = 0;
  uint64_t sequences = 0;
  uint32_t context = 0;  // tokens of the longest sequence
};

// The weight whose input is that of `weight`: itself, or the first of those that share it, as q, k
// and v do.
std::string InputName(std::string weight);
// Sorts `indices` of weights, named by `name`, so that those with the same input follow one
// another.
void GroupByInput(std::vector<size_t>* indices, FunctionRef<std::string(size_t index)> name);

// An opened file; immutable, so thread-safe.
class CalibrationFile {
 public:
  // Errors: those of GgufFile::Open; kBadData (no imatrix, sums without counts, a shape that does
  // not fit, numbers that are not finite or negative).
  static Result<CalibrationFile> Open(const std::string& path);
  // The same on bytes that the caller keeps alive (tests, fuzzing).
  static Result<CalibrationFile> Parse(std::span<const std::byte> bytes);

  const CalibrationOrigin& origin() const { return origin_; }
  const std::string& path() const { return path_; }
  // The weights it knows, in the order of the file.
  std::span<const std::string> weights() const { return weights_; }
  // Errors: kNotFound (naming the weight), kUnsupported (an imatrix of a mixture of experts).
  Result<ColumnMoments> Moments(const std::string& weight) const;
  // The same for a weight that has `columns`. Errors also: kInvalidArgument (the calibration is of
  // others, or of no tokens).
  Result<ColumnMoments> Moments(const std::string& weight, size_t columns) const;
  bool HasHessian(const std::string& weight) const;
  // Whether Moments gives magnitudes, which llama.cpp's files lack.
  bool HasMagnitudes(const std::string& weight) const;
  // sum x x^T, (columns, columns) whole. Errors: kNotFound.
  Result<std::vector<float>> Hessian(const std::string& weight) const;
  // The same for a weight that has `columns`. Errors also: kBadData (the moments are of others).
  Result<std::vector<float>> Hessian(const std::string& weight, size_t columns) const;
  // Returns a copy whose moments are of inputs divided by `divisors`, (columns) each, by the name
  // of the weight; exactly what calibrating the model with scaled columns would give.
  CalibrationFile Divided(std::unordered_map<std::string, std::vector<float>> divisors) const;

 private:
  explicit CalibrationFile(GgufFile file) : file_(std::move(file)) {}
  static Result<CalibrationFile> Check(GgufFile opened, const std::string& path);
  const TensorView* Find(const std::string& weight, const char* suffix) const;
  // Null: none.
  const std::vector<float>* DivisorsOf(const std::string& weight) const;
  GgufFile file_;
  std::string path_;
  CalibrationOrigin origin_;
  std::vector<std::string> weights_;
  std::shared_ptr<const std::unordered_map<std::string, std::vector<float>>> divisors_;
};

struct CalibrateOptions {
  bool hessians = true;
  const CalibrationFile* previous = nullptr;  // whose sums the new ones are added to
  bool overwrite = false;
};

// Runs `sequences` through the model, one layer in memory at a time, and writes `out_path`.
// `origin` is of these sequences; its counts are filled in here. Errors: those of ActivationWalk
// and GgufWriter; kInvalidArgument (`previous` is of another model or has no Hessians where they
// are wanted); kBadData (activations that are not finite); kCancelled.
Status Calibrate(const Checkpoint& checkpoint, TokenSequences sequences, CalibrationOrigin origin,
                 const std::string& out_path, const CalibrateOptions& options, ThreadPool* pool,
                 Progress* progress);

// Adds up calibrations of one model; Hessians are kept where all have them. Errors:
// kInvalidArgument (none, other models, other weights), those of GgufWriter.
Status MergeCalibrations(std::span<const CalibrationFile> files, const std::string& out_path,
                         bool overwrite);

}  // namespace edgewise
