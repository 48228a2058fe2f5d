// FeatureMatch: a student's hidden states and attention are drawn to its teacher's.
//
// For each token with a target, with h the residual stream after s of the student's S layers, H
// that after g(s) of the teacher's T, and n(x) = x / rms(x):
//
//   hidden / (S + 1) sum over s of |W n(h_s) - n(H_g(s))|^2 / D        (TinyBERT, Jiao et al. 2020)
//
// with W (D, d) learned, as wide as teacher and student, one for all depths, and g(s) = s T / S to
// the nearest; depth 0 is the embedding. TinyBERT compares states that its layers have normalized;
// those of a decoder are not, hence n, without which few large columns and tokens would decide.
//
//   attention sum over x in q, k, v of the mean over heads of KL(R(X) | R(x))
//                                                                     (MiniLMv2, Wang et al. 2021)
//
// with R the relations of the token to itself and those before it (Ops::MatchRelations) in the last
// layer of each. A head of relations is made of whole heads: as many as divide the heads of both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "model/spec.h"
#include "train/layer_loss.h"
#include "train/ops.h"

namespace edgewise::train {

// Weights of the two terms; 0: left out.
struct MatchOptions {
  double hidden = 0;
  double attention = 0;
  bool any() const { return hidden != 0 || attention != 0; }
};
// Errors: kInvalidArgument (a weight out of range, named).
Status CheckMatch(const MatchOptions& options);

// Visits the teacher's forward pass of each batch, then takes part in the student's backward pass.
class FeatureMatch final : public LayerVisitor, public LayerLoss {
 public:
  // The pool must outlive it.
  FeatureMatch(const MatchOptions& options, const ModelSpec& student, const ModelSpec& teacher,
               Precision precision, ThreadPool* pool);
  // Bytes that it keeps for batches of `rows` tokens; its parameters are not among them.
  uint64_t Bytes(size_t rows) const;

  void Visit(const LayerView& view) override;

  size_t size() const override;  // of W (teacher's dim, student's dim)
  // The identity between equal widths; else normal, of deviation 0.02.
  std::vector<float> First(uint64_t seed) const override;
  void Bind(const float* parameters, float* gradients) override;
  void Stream(uint32_t depth, const float* x, float scale, float* dx) override;
  void Attention(uint32_t depth, const AttentionShape& shape, ConstRows qkv, float scale,
                 Rows dqkv) override;
  double loss() const override { return loss_; }

 private:
  uint32_t TeacherDepth(uint32_t depth) const;
  NormShape Shape(size_t columns) const;
  MatchOptions options_;
  ModelSpec student_, teacher_;
  std::unique_ptr<Ops> ops_;
  const float* projection_ = nullptr;  // W
  float* gradients_ = nullptr;
  std::vector<float> ones_, minus_ones_;    // (student's dim), (teacher's dim)
  std::vector<uint8_t> counted_;            // (n): the token has a target
  std::vector<std::vector<float>> missed_;  // by depth, (n, D): -n(H), then W n(h) - n(H)
  std::vector<float> qkv_;                  // (n, q_dim + 2 kv_dim) of the teacher's last layer
  std::vector<float> normed_, dnormed_;     // (n, d)
  std::vector<float> inverse_;              // (n)
  double loss_ = 0;
};

}  // namespace edgewise::train
