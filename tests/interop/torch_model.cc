#include "tests/interop/torch_model.h"

#include <torch/torch.h>

#include <cmath>
#include <map>
#include <optional>
#include <string>

#include "model/rope.h"
#include "train/parameters.h"

namespace edgewise {
namespace {

using at::indexing::Slice;
using train::Batch;
using Array = torch::Tensor;

constexpr auto kDouble = torch::kFloat64;

template <class T>
Array Copy(std::span<const T> values, torch::ScalarType type) {
  return torch::from_blob(const_cast<T*>(values.data()), {static_cast<int64_t>(values.size())},
                          torch::CppTypeToScalarType<T>::value)
      .to(type, /*non_blocking=*/false, /*copy=*/true);
}

std::vector<double> Values(const Array& tensor) {
  const Array flat = tensor.detach().contiguous();
  return {flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel()};
}

// y = x / sqrt(mean(x^2) + eps) * w (Zhang and Sennrich 2019).
Array RmsNorm(const Array& x, const Array& weight, double eps) {
  return x * torch::rsqrt(x.pow(2).mean(-1, true) + eps) * weight;
}

Array SoftCap(const Array& x, double cap) { return cap > 0 ? cap * torch::tanh(x / cap) : x; }

// (tokens, rotary_dim / 2) cosines and sines.
std::pair<Array, Array> RopeTable(const RopeSpec& rope, int64_t tokens) {
  const bool is_long =
      rope.scaling == RopeScalingKind::kLongRope && tokens > int64_t{rope.original_context};
  const std::vector<double> frequencies = RopeFrequencies(rope, is_long);
  const Array angles =
      torch::outer(torch::arange(tokens, kDouble), Copy<double>(frequencies, kDouble));
  return {torch::cos(angles) * rope.attention_factor, torch::sin(angles) * rope.attention_factor};
}

// x (tokens, heads, head_dim): its first rotary_dim values turned in pairs.
Array Rotate(const RopeSpec& rope, const Array& x) {
  const int64_t tokens = x.size(0), rotary = rope.rotary_dim;
  auto [cos, sin] = RopeTable(rope, tokens);
  cos = cos.unsqueeze(1);
  sin = sin.unsqueeze(1);
  const Array turned = x.slice(-1, 0, rotary), rest = x.slice(-1, rotary);
  const bool interleaved = rope.kind == RopeKind::kInterleaved;
  const Array pairs = interleaved ? turned.unflatten(-1, {rotary / 2, 2})
                                  : turned.unflatten(-1, {2, rotary / 2}).transpose(-1, -2);
  const Array a = pairs.select(-1, 0), b = pairs.select(-1, 1);
  const Array both = torch::stack({a * cos - b * sin, a * sin + b * cos}, -1);
  const Array flat = (interleaved ? both : both.transpose(-1, -2)).flatten(-2);
  return torch::cat({flat, rest}, -1);
}

// True where a query (row) may not see a key (column).
Array Hidden(int64_t tokens, int64_t window) {
  const Array position = torch::arange(tokens);
  const Array distance = position.unsqueeze(1) - position.unsqueeze(0);
  Array hidden = distance < 0;
  if (window > 0) hidden = hidden | (distance >= window);
  return hidden;
}

// Rows of losses of the student's logits, (rows, vocab) both, against the teacher's.
Array DistillationRows(const train::DistillationLoss& loss, const Array& teacher,
                       const Array& student, const Array& targets, std::span<const int32_t> ids,
                       bool whole) {
  const double t = loss.temperature, b = loss.beta;
  const auto outcomes = [&](const Array& logits) {
    const Array log_p = torch::log_softmax(logits / t, -1);
    if (whole) return log_p;
    const Array known = torch::zeros(logits.size(-1), torch::kBool)
                            .index_fill_(0, Copy<int32_t>(ids, torch::kLong), true);
    const Array rest =
        torch::logsumexp(log_p.masked_fill(known, -INFINITY), std::vector<int64_t>{-1}, true);
    return torch::cat({log_p.index({Slice(), known}), rest}, -1);
  };
  const Array log_p = outcomes(teacher), log_q = outcomes(student);
  const Array p = log_p.exp(), q = log_q.exp();
  const auto kl = [](const Array& from, const Array& log_from, const Array& log_to) {
    return (from * (log_from - log_to)).sum(-1);
  };
  Array divergence;
  const Array log_m = torch::log(b * p + (1 - b) * q);
  switch (loss.divergence) {
    case train::Divergence::kForwardKl:
      divergence = kl(p, log_p, log_q);
      break;
    case train::Divergence::kReverseKl:
      divergence = kl(q, log_q, log_p);
      break;
    case train::Divergence::kJsd:
      divergence = b * kl(p, log_p, log_m) + (1 - b) * kl(q, log_q, log_m);
      break;
    case train::Divergence::kSkewKl:
      divergence = kl(p, log_p, log_m);
      break;
    case train::Divergence::kSkewReverse:
      divergence = kl(q, log_q, log_m);
      break;
  }
  const Array hard = torch::nn::functional::cross_entropy(
      student, targets, torch::nn::functional::CrossEntropyFuncOptions().reduction(torch::kNone));
  return loss.alpha * t * t * divergence + (1 - loss.alpha) * hard;
}

}  // namespace

struct TorchModel::Impl {
  ModelSpec spec;
  train::ParameterLayout layout;
  std::vector<Array> leaves;  // in the order of the layout
  std::map<std::string, Array> by_name;
  std::optional<torch::optim::AdamW> optimizer;

  Impl(const ModelSpec& s, std::span<const float> parameters) : spec(s), layout(s) {
    for (const train::Parameter& parameter : layout.all()) {
      std::vector<int64_t> sizes;
      for (int i = 0; i < parameter.shape.rank(); ++i) {
        sizes.push_back(static_cast<int64_t>(parameter.shape[i]));
      }
      const Array leaf =
          Copy<float>(parameters.subspan(parameter.offset, parameter.shape.elements()), kDouble)
              .reshape(sizes)
              .requires_grad_(true);
      leaves.push_back(leaf);
      by_name.emplace(parameter.name, leaf);
    }
  }

  Array Of(uint32_t layer, const std::string& name) const {
    return by_name.at("blk." + std::to_string(layer) + "." + name);
  }
  Array Linear(uint32_t layer, const std::string& name, const Array& x, bool bias) const {
    return torch::linear(x, Of(layer, name + ".weight"),
                         bias ? Of(layer, name + ".bias") : Array());
  }
  Array Norm(uint32_t layer, const std::string& name, const Array& x) const {
    return RmsNorm(x, Of(layer, name + ".weight"), spec.norm_eps);
  }

  std::vector<Array> QueriesKeysValues(uint32_t layer, const Array& x) const {
    if (!spec.fused_qkv) {
      return {Linear(layer, "attn_q", x, spec.qkv_bias), Linear(layer, "attn_k", x, spec.qkv_bias),
              Linear(layer, "attn_v", x, spec.qkv_bias)};
    }
    return Linear(layer, "attn_qkv", x, spec.qkv_bias)
        .split_with_sizes({spec.q_dim(), spec.kv_dim(), spec.kv_dim()}, -1);
  }

  Array Attention(uint32_t layer, const Array& x) const {
    const int64_t head = spec.head_dim, tokens = x.size(0);
    std::vector<Array> parts = QueriesKeysValues(layer, x);
    for (Array& part : parts) part = part.reshape({tokens, -1, head});
    auto &q = parts[0], &k = parts[1], &v = parts[2];
    if (spec.qk_norm) {
      q = Norm(layer, "attn_q_norm", q);
      k = Norm(layer, "attn_k_norm", k);
    }
    const bool slides = spec.LayerSlides(layer);
    const RopeSpec rope = slides && spec.local_rope_base != 0 ? SlidingRope(spec) : spec.rope;
    q = Rotate(rope, q);
    const int64_t group = spec.n_heads / spec.n_kv_heads;
    k = Rotate(rope, k).repeat_interleave(group, 1);
    v = v.repeat_interleave(group, 1);
    const double scale = spec.attention_scale > 0 ? double{spec.attention_scale}
                                                  : 1 / std::sqrt(static_cast<double>(head));
    Array scores = torch::einsum("qhd,khd->hqk", {q, k}) * scale;
    scores = SoftCap(scores, spec.attention_softcap)
                 .masked_fill(Hidden(tokens, slides ? spec.sliding_window : 0), -INFINITY);
    const Array mixed = torch::einsum("hqk,khd->qhd", {torch::softmax(scores, -1), v});
    return Linear(layer, "attn_output", mixed.reshape({tokens, -1}), spec.output_bias);
  }

  Array FeedForward(uint32_t layer, const Array& x) const {
    const std::vector<Array> parts = spec.fused_gate_up
                                         ? Linear(layer, "ffn_up", x, false).chunk(2, -1)
                                         : std::vector<Array>{Linear(layer, "ffn_gate", x, false),
                                                              Linear(layer, "ffn_up", x, false)};
    const Array gate = spec.activation == Activation::kSilu ? torch::silu(parts[0])
                                                            : torch::gelu(parts[0], "tanh");
    return Linear(layer, "ffn_down", gate * parts[1], false);
  }

  // Logits of one sequence.
  Array Forward(const Array& tokens) const {
    const Array& embedding = by_name.at("token_embd.weight");
    Array x = embedding.index_select(0, tokens) * spec.embedding_scale;
    for (uint32_t l = 0; l < spec.n_layers; ++l) {
      Array branch = Attention(l, Norm(l, "attn_norm", x));
      x = x + (spec.post_norms ? Norm(l, "post_attention_norm", branch) : branch);
      branch = FeedForward(l, Norm(l, "ffn_norm", x));
      x = x + (spec.post_norms ? Norm(l, "post_ffw_norm", branch) : branch);
    }
    x = RmsNorm(x, by_name.at("output_norm.weight"), spec.norm_eps);
    const Array& head = spec.tied_embeddings ? embedding : by_name.at("output.weight");
    return SoftCap(torch::linear(x, head), spec.logit_softcap);
  }

  Array Forward(const Batch& batch) const {
    std::vector<Array> logits;
    const Array tokens = Copy<int32_t>(batch.tokens, torch::kLong);
    int64_t row = 0;
    for (const uint32_t length : batch.lengths) {
      logits.push_back(Forward(tokens.slice(0, row, row + length)));
      row += length;
    }
    return torch::cat(logits);
  }

  // The logits of rows that have a target, and the targets.
  std::pair<Array, Array> Learned(const Batch& batch) const {
    const Array targets = Copy<int32_t>(batch.targets, torch::kLong);
    const Array learned = targets != train::kNoTarget;
    return {Forward(batch).index({learned}), targets.index({learned})};
  }

  // Gradients of the sum, which is of a graph of this model.
  TorchOutcome Outcome(const Array& sum, double scale) const {
    TorchOutcome outcome{sum.item<double>(), {}};
    const std::vector<Array> gradients = torch::autograd::grad({sum * scale}, leaves);
    for (const Array& gradient : gradients) {
      const std::vector<double> values = Values(gradient);
      outcome.gradients.insert(outcome.gradients.end(), values.begin(), values.end());
    }
    return outcome;
  }

  Array SumOfCrossEntropies(const Batch& batch) const {
    const auto [logits, targets] = Learned(batch);
    return torch::nn::functional::cross_entropy(
        logits, targets, torch::nn::functional::CrossEntropyFuncOptions().reduction(torch::kSum));
  }
};

TorchModel::TorchModel(const ModelSpec& spec, std::span<const float> parameters)
    : impl_(std::make_unique<Impl>(spec, parameters)) {}
TorchModel::TorchModel(TorchModel&&) noexcept = default;
TorchModel::~TorchModel() = default;

std::vector<double> TorchModel::Logits(const Batch& batch) const {
  return Values(impl_->Forward(batch));
}

TorchOutcome TorchModel::CrossEntropy(const Batch& batch, double scale) const {
  return impl_->Outcome(impl_->SumOfCrossEntropies(batch), scale);
}

TorchOutcome TorchModel::Distill(const train::DistillationLoss& loss, const TorchModel& teacher,
                                 const Batch& batch, double scale) const {
  const Array from = teacher.impl_->Learned(batch).first.detach();
  const auto [logits, targets] = impl_->Learned(batch);
  return impl_->Outcome(DistillationRows(loss, from, logits, targets, {}, true).sum(), scale);
}

double TorchModel::Step(const TorchAdamW& options, std::span<const Batch> batches) {
  if (!impl_->optimizer) {
    std::vector<Array> matrices, vectors;
    for (const Array& leaf : impl_->leaves) (leaf.dim() == 2 ? matrices : vectors).push_back(leaf);
    const auto group = [&](const std::vector<Array>& leaves, double decay) {
      auto made = std::make_unique<torch::optim::AdamWOptions>(options.learning_rate);
      made->betas({options.beta1, options.beta2}).eps(options.eps).weight_decay(decay);
      return torch::optim::OptimizerParamGroup(leaves, std::move(made));
    };
    impl_->optimizer.emplace(std::vector<torch::optim::OptimizerParamGroup>{
        group(matrices, options.weight_decay), group(vectors, 0)});
  }
  for (auto& group : impl_->optimizer->param_groups())
    group.options().set_lr(options.learning_rate);
  double targets = 0;
  for (const Batch& batch : batches) targets += static_cast<double>(batch.CountTargets());
  impl_->optimizer->zero_grad();
  double mean = 0;
  for (const Batch& batch : batches) {
    const Array loss = impl_->SumOfCrossEntropies(batch) / targets;
    loss.backward();
    mean += loss.item<double>();
  }
  torch::nn::utils::clip_grad_norm_(impl_->leaves, options.clip);
  impl_->optimizer->step();
  return mean;
}

std::vector<double> TorchModel::parameters() const {
  std::vector<double> all;
  for (const Array& leaf : impl_->leaves) {
    const std::vector<double> values = Values(leaf);
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

TorchOutcome TorchDistillation(const train::DistillationLoss& loss, int32_t target,
                               std::span<const double> teacher, std::span<const double> student,
                               std::span<const int32_t> ids) {
  const Array logits = Copy(student, kDouble).requires_grad_(true);
  const Array sum = DistillationRows(loss, Copy(teacher, kDouble).unsqueeze(0), logits.unsqueeze(0),
                                     torch::tensor({int64_t{target}}), ids, ids.empty())
                        .sum();
  return {sum.item<double>(), Values(torch::autograd::grad({sum}, {logits})[0])};
}

}  // namespace edgewise
