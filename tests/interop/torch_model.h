// The referee of training: the models that training knows in libtorch, in double precision, with
// gradients by its automatic differentiation.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "model/spec.h"
#include "train/batch.h"
#include "train/loss.h"

namespace edgewise {

struct TorchOutcome {
  double loss = 0;                // in nats
  std::vector<double> gradients;  // by what was asked for
};

struct TorchAdamW {
  double learning_rate, beta1, beta2, eps;
  double weight_decay;  // of matrices
  double clip;          // the largest norm of the gradient
};

// Parameters are in the order of train::ParameterLayout. Not thread-safe.
class TorchModel {
 public:
  TorchModel(const ModelSpec& spec, std::span<const float> parameters);
  TorchModel(TorchModel&&) noexcept;
  ~TorchModel();

  // (n, vocab_size) of the batch.
  std::vector<double> Logits(const train::Batch& batch) const;
  // The sum of the cross-entropies of a batch, and `scale` times its gradient by the parameters.
  TorchOutcome CrossEntropy(const train::Batch& batch, double scale) const;
  // The same of the distillation from a teacher.
  TorchOutcome Distill(const train::DistillationLoss& loss, const TorchModel& teacher,
                       const train::Batch& batch, double scale) const;
  // Changes the parameters by a step of torch::optim::AdamW on the mean cross-entropy of the
  // batches, which is returned.
  double Step(const TorchAdamW& options, std::span<const train::Batch> batches);
  std::vector<double> parameters() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The loss of one token and its gradient by the student's logits. With `ids` the teacher is known
// by the probabilities of these tokens, by rising id, and the mass of all others.
TorchOutcome TorchDistillation(const train::DistillationLoss& loss, int32_t target,
                               std::span<const double> teacher, std::span<const double> student,
                               std::span<const int32_t> ids);

}  // namespace edgewise
