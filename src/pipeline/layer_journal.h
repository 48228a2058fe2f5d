// LayerJournal: the layers that a run learned one by one, kept as the tensors of its output, with a
// line of a log for each.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "compress/quantize/quantize.h"
#include "pipeline/tensor_journal.h"
#include "train/layerwise.h"
#include "train/parameters.h"

namespace edgewise {

// Not thread-safe.
class LayerJournal {
 public:
  // Takes up what an earlier run kept in `folder`, whose output has these tensors. Errors: those of
  // TensorJournal, ReadFile and ParseJson.
  static Result<LayerJournal> Open(const std::string& folder, std::span<const TensorPlan> plan);
  // The TensorJournal in the folder, of WriteJob::journal_path.
  static std::string TensorsPath(const std::string& folder) { return folder + "/tensors"; }

  // Returns the weights of a layer that an earlier run kept, as they are written: (layer.size)
  // floats, or none where a tensor of it is missing.
  std::vector<float> Find(const train::LayerLayout& layer) const;
  // Keeps the next layer, as LayerwiseTrainer hands it on. The log comes first: it may be ahead of
  // the tensors, never behind. Errors: those of AtomicFile, EncodeTensor and TensorJournal.
  Status Keep(const train::LayerLayout& layer, const train::LayerReport& report,
              std::span<const float> learned, const train::BlockScales* scales, ThreadPool* pool);

  // The lines of the log, which an earlier run may have begun. Lines from layer `count` on are left
  // out.
  const JsonArray& log() const { return log_; }
  void CutLog(size_t count) { log_.resize(std::min(log_.size(), count)); }

 private:
  LayerJournal(TensorJournal tensors, std::span<const TensorPlan> plan, std::string log_path);
  TensorJournal tensors_;
  std::unordered_map<std::string, std::pair<size_t, DType>> entries_;  // of the plan, by name
  std::string log_path_;
  JsonArray log_;
};

// A line for each of them.
std::string JsonLines(const JsonArray& log);

}  // namespace edgewise
