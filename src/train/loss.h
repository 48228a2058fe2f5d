// Losses of next-token prediction and distillation, with their gradients by the logits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "train/batch.h"
#include "train/layer_loss.h"

namespace edgewise::train {

// How far a student's distribution q is from the teacher's p, both at a temperature.
enum class Divergence : uint8_t {
  kForwardKl,    // sum p log(p / q)
  kReverseKl,    // sum q log(q / p)  (MiniLLM, Gu et al. 2024)
  kJsd,          // b KL(p | m) + (1 - b) KL(q | m), m = b p + (1 - b) q  (GKD, Agarwal et al. 2024)
  kSkewKl,       // KL(p | b p + (1 - b) q)  (DistiLLM, Ko et al. 2024)
  kSkewReverse,  // KL(q | (1 - b) q + b p)  (the same)
};
// Errors: kInvalidArgument, listing the names: "kl", "reverse-kl", "jsd", "skew-kl",
// "skew-reverse-kl".
Result<Divergence> ParseDivergence(std::string_view name);
const char* DivergenceName(Divergence divergence);

// L = alpha T^2 D(p | q) + (1 - alpha) cross-entropy (Hinton et al. 2015, whose T^2 keeps gradients
// as large at any temperature); p and q are the softmax of logits / T.
struct DistillationLoss {
  Divergence divergence = Divergence::kForwardKl;
  double alpha = 0.5;
  double temperature = 1;
  double beta = 0.5;  // b of kJsd, kSkewKl and kSkewReverse, in (0, 1)
};
// Errors: kInvalidArgument (a value out of range, named).
Status CheckLoss(const DistillationLoss& loss);

// Returns log(sum exp(logits)) - logits[target], in nats, and overwrites the logits (n) by `scale`
// times the gradient.
double CrossEntropy(size_t n, int32_t target, float scale, float* logits);
// Returns L in nats; `logits` as above, `teacher` (n) are its logits. With kNoTarget for `target`
// there is no cross-entropy. `work`: 2 n floats.
double Distillation(const DistillationLoss& loss, size_t n, int32_t target, const float* teacher,
                    float scale, float* logits, float* work);

// The same against a teacher of which only the probabilities of some tokens are known: `ids`, k of
// them by rising id, with log_p (k), their logarithms at the temperature. What is left of the mass
// is one outcome more, of probability exp(log_p[k]), and so is what the student gives to all other
// tokens together: D is between distributions of k + 1 outcomes. Merging outcomes never makes a
// divergence of this family larger (Csiszar 1967): D is at most that of the whole distributions,
// and equal where the student divides the rest as the teacher does. With k = n there is no rest,
// and D is exact. `work`: TopKWork(n, k) floats.
double DistillationTopK(const DistillationLoss& loss, size_t n, int32_t target,
                        std::span<const int32_t> ids, const float* log_p, float scale,
                        float* logits, float* work);
inline size_t TopKWork(size_t n, size_t k) { return 2 * n + 2 * (k + 1); }

// What is made of the logits of a batch's rows.
class TokenLoss {
 public:
  virtual ~TokenLoss() = default;
  // Called once for each batch, before its rows.
  virtual Status Begin(const Batch& batch) = 0;
  // Overwrites logits (rows.size(), vocab) of these rows of the batch, all with targets, by `scale`
  // times the gradient of the sum of their losses, which it returns.
  virtual Result<double> Rows(const Batch& batch, std::span<const uint32_t> rows, size_t vocab,
                              float scale, float* logits) = 0;
  // What goes with it of the network's layers, in training; null: nothing.
  virtual LayerLoss* layers() { return nullptr; }
};

// Cross-entropy against the targets.
class CrossEntropyLoss final : public TokenLoss {
 public:
  explicit CrossEntropyLoss(ThreadPool* pool) : pool_(pool) {}
  Status Begin(const Batch& batch) override {
    EW_CHECK(batch.sampled.empty());
    return Ok{};
  }
  Result<double> Rows(const Batch& batch, std::span<const uint32_t> rows, size_t vocab, float scale,
                      float* logits) override;

 private:
  ThreadPool* pool_;
  std::vector<double> losses_;
};

// Gives a teacher's logits for the rows of a batch.
class Teacher {
 public:
  virtual ~Teacher() = default;
  virtual Status Begin(const Batch& batch) = 0;
  // Writes (rows.size(), vocab) logits. Rows of a batch are asked for in rising order, each once.
  virtual Status Logits(std::span<const uint32_t> rows, float* logits) = 0;
};

inline constexpr size_t kTeacherRows = 512;  // whose logits are in memory together

// Begins `batch` and calls `use` with the logits (rows.size(), vocab) of all of its rows with
// targets, kTeacherRows at a time. Errors: those of `teacher` and `use`.
Status EachTeacherRows(Teacher* teacher, const Batch& batch, size_t vocab,
                       FunctionRef<Status(std::span<const uint32_t> rows, float* logits)> use);

// Distillation from a teacher, which must outlive it, and so must `layers`, which may be null. Of
// targets that the student chose (Batch::sampled) the loss is alpha T^2 D alone.
class TeacherLoss final : public TokenLoss {
 public:
  TeacherLoss(const DistillationLoss& loss, Teacher* teacher, ThreadPool* pool,
              LayerLoss* layers = nullptr)
      : loss_(loss), teacher_(teacher), pool_(pool), layers_(layers) {}
  // Another loss from the same teacher, in the same memory and without layers; not for work on a
  // batch that this is at work on.
  TeacherLoss With(const DistillationLoss& loss) const;
  Status Begin(const Batch& batch) override { return teacher_->Begin(batch); }
  Result<double> Rows(const Batch& batch, std::span<const uint32_t> rows, size_t vocab, float scale,
                      float* logits) override;
  LayerLoss* layers() override { return layers_; }

 private:
  DistillationLoss loss_;
  Teacher* teacher_;
  ThreadPool* pool_;
  LayerLoss* layers_;
  struct Scratch {
    std::vector<float> targets;  // (rows, vocab): the teacher's logits
    std::vector<float> work;     // (threads, 2, vocab)
    std::vector<double> losses;
  };
  std::shared_ptr<Scratch> scratch_ = std::make_shared<Scratch>();
};

}  // namespace edgewise::train
