// LiveTeacher: a checkpoint that gives its probabilities while a student learns or a cache is made.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "model/checkpoint.h"
#include "model/model.h"
#include "train/batch_reader.h"
#include "train/corpus.h"
#include "train/layer_loss.h"
#include "train/loss.h"
#include "train/ops.h"

namespace edgewise {

// What runs a teacher.
enum class TeacherEngine : uint8_t {
  kFloats,   // the forward pass of training, on all weights in F32
  kRuntime,  // that of `edgewise run`, on the weights as they are stored: a fraction of the memory
};
// Errors: kInvalidArgument, listing the names: "floats", "runtime".
Result<TeacherEngine> ParseTeacherEngine(std::string_view name);

struct TeacherOptions {
  TeacherEngine engine = TeacherEngine::kFloats;
  train::Precision precision = train::Precision::kBf16;  // of the products of floats
  train::BatchOptions batch;
};
// What decides the probabilities beside the model: "runtime", "floats-bf16" or "floats-f32".
std::string TeacherEngineName(const TeacherOptions& options);
// Bytes that a teacher takes: weights, keys and values, activations, logits.
uint64_t TeacherBytes(const Checkpoint& checkpoint, const TeacherOptions& options);

// Not thread-safe.
class LiveTeacher {
 public:
  // The pool must outlive it, and so must `visitor`, which sees the layers of a teacher in floats;
  // null: nobody. Errors: those of Checkpoint::Load, Model::Load and Network::Create.
  static Result<std::unique_ptr<LiveTeacher>> Create(const Checkpoint& checkpoint,
                                                     const TeacherOptions& options,
                                                     ThreadPool* pool,
                                                     train::LayerVisitor* visitor = nullptr);
  train::Teacher* get() { return teacher_.get(); }
  // Its mean cross-entropy on the corpus, in nats. Errors: those of the teacher and AllBatches;
  // kCancelled.
  Result<double> HeldOutLoss(const train::Corpus& corpus, const Progress& progress);

 private:
  LiveTeacher(const ModelSpec& spec, const TeacherOptions& options, ThreadPool* pool)
      : vocab_size_(spec.vocab_size), batch_(options.batch), pool_(pool) {}
  size_t vocab_size_;
  train::BatchOptions batch_;
  ThreadPool* pool_;
  std::unique_ptr<Model> model_;  // of the runtime
  std::vector<float> weights_;    // of floats
  std::unique_ptr<train::Ops> ops_;
  std::unique_ptr<train::Teacher> teacher_;
};

}  // namespace edgewise
