// OnPolicy: a student learns on what it writes itself (GKD, Agarwal et al. 2024).
//
// Of a batch's sequences a share is drawn whose end the student samples from its own probabilities,
// at temperature 1. Where a sequence begins with a prompt that is not learned, what follows that is
// sampled; of a text its last tokens are. Only sampled tokens are targets then; no gradient passes
// through the sampling.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "train/batch.h"
#include "train/network.h"

namespace edgewise::train {

struct OnPolicyOptions {
  double fraction = 0;             // of the sequences; 0: none
  uint32_t tokens = 64;            // of a sequence that are sampled, at most
  std::vector<int32_t> ends = {};  // tokens after which a sequence goes no further
};
// Errors: kInvalidArgument (a value out of range, named).
Status CheckOnPolicy(const OnPolicyOptions& options);

// Not thread-safe. The pool must outlive it.
class OnPolicy {
 public:
  // `network` runs the student.
  OnPolicy(OnPolicyOptions options, size_t vocab_size, Network network, ThreadPool* pool)
      : options_(std::move(options)),
        vocab_size_(vocab_size),
        network_(std::move(network)),
        pool_(pool) {}

  // Puts what the student with these weights writes in the place of what is drawn. A sequence never
  // gets longer. Which are drawn, and what is written, depends on `seed`, the weights and the batch
  // alone. Errors: those of Network::Open.
  Status Rewrite(const float* weights, uint64_t seed, Batch* batch);

 private:
  // A sequence that was drawn.
  struct Draft {
    size_t sequence;
    size_t row;       // of the batch: the first token
    uint32_t prompt;  // tokens
    uint32_t most;    // that are sampled
    uint64_t seed;    // of the next token
    std::vector<int32_t> sampled;
  };
  std::vector<Draft> Draw(uint64_t seed, const Batch& batch) const;
  Status Write(const float* weights, const Batch& batch, std::vector<Draft>* drafts);
  // Samples a token for each of these drafts; their logits are those of `rows`.
  void Sample(const float* weights, const std::vector<Draft*>& drafts,
              const std::vector<uint32_t>& rows);
  bool Ended(const Draft& draft) const;

  OnPolicyOptions options_;
  size_t vocab_size_;
  Network network_;
  ThreadPool* pool_;
  std::vector<float> logits_;  // of a chunk of rows
};

}  // namespace edgewise::train
