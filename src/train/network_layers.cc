// One layer of a network, forward and backward.
#include <algorithm>

#include "train/network_impl.h"

namespace edgewise::train {

void Network::Impl::Norm(const float* weight, const float* x, std::vector<float>* inverse,
                         float* y) {
  inverse->resize(room());
  ops->Norm(Shape(), {weight}, {x, spec.dim}, {y, spec.dim}, {inverse->data()});
}

void Network::Impl::NormBackward(const float* weight, const float* x, std::vector<float>& inverse,
                                 const float* dy, bool accumulate, float* dweight, float* dinput) {
  ops->NormBackward(Shape(), {weight}, {x, spec.dim}, {inverse.data()}, {dy, spec.dim},
                    {dinput, spec.dim}, accumulate, {dweight});
}

void Network::Impl::Drop(const Pass& pass, uint32_t l, uint32_t half, float* x) {
  if (!pass.training || options.dropout <= 0) return;
  ops->Dropout(options.dropout, pass.seed * 2 * (spec.n_layers + 1) + 2 * l + half, n * spec.dim,
               x);
}

void Network::Impl::ForwardLayer(const LayerPass& at) {
  LayerState* s = at.s;
  ForwardAttention(at);
  Drop(at.pass, at.l, 0, branch.data());
  s->middle.resize(room() * spec.dim);
  ops->Add(Residual(at.l), branch.data(), n * spec.dim, s->middle.data());
  ForwardFeedForward(at);
  Drop(at.pass, at.l, 1, branch.data());
  ops->Add(s->middle.data(), branch.data(), n * spec.dim, Residual(at.l + 1));
}

void Network::Impl::HeadNorms(const LayerPass& at) {
  LayerState* s = at.s;
  const size_t q = spec.q_dim(), width = q + spec.kv_dim();
  s->raw.resize(room() * width);
  for (size_t i = 0; i < n; ++i) {
    std::copy_n(s->qkv.data() + i * qkv_dim(), width, s->raw.data() + i * width);
  }
  s->q_norm.resize(room() * spec.n_heads);
  s->k_norm.resize(room() * spec.n_kv_heads);
  NormShape shape = {NormKind::kRms, n, spec.n_heads, spec.head_dim, spec.norm_eps};
  ops->Norm(shape, {at.w.q_norm}, {s->raw.data(), width}, {s->qkv.data(), qkv_dim()},
            {s->q_norm.data()});
  shape.groups = spec.n_kv_heads;
  ops->Norm(shape, {at.w.k_norm}, {s->raw.data() + q, width}, {s->qkv.data() + q, qkv_dim()},
            {s->k_norm.data()});
}

void Network::Impl::HeadNormsBackward(const LayerPass& at) {
  LayerState* s = at.s;
  const size_t q = spec.q_dim(), width = q + spec.kv_dim();
  NormShape shape = {NormKind::kRms, n, spec.n_heads, spec.head_dim, spec.norm_eps};
  const Rows dq = {dwide.data(), qkv_dim()}, dk = {dwide.data() + q, qkv_dim()};
  ops->NormBackward(shape, {at.w.q_norm}, {s->raw.data(), width}, {s->q_norm.data()}, dq, dq, false,
                    {at.g.q_norm});
  shape.groups = spec.n_kv_heads;
  ops->NormBackward(shape, {at.w.k_norm}, {s->raw.data() + q, width}, {s->k_norm.data()}, dk, dk,
                    false, {at.g.k_norm});
}

// attended = attention of the layer's queries to the keys of their sequences.
void Network::Impl::Attend(const LayerPass& at) {
  LayerState* s = at.s;
  const Rows attended = {s->attended.data(), spec.q_dim()};
  if (at.pass.growing == nullptr) {
    ops->Attend(Attention(at.l), {s->qkv.data(), qkv_dim()}, attended, s->log_sums.data());
    return;
  }
  Growing& g = *at.pass.growing;
  const Rows kept = {g.qkv[at.l].data(), qkv_dim()};
  for (size_t i = 0; i < n; ++i) {
    std::copy_n(s->qkv.data() + i * qkv_dim(), qkv_dim(),
                kept.row(g.step_starts[i] + g.step_lengths[i] - 1));
  }
  AttentionShape shape = Attention(at.l);
  shape.lengths = g.step_lengths;
  ops->AttendLast(shape, g.step_starts, kept, attended, s->log_sums.data());
}

// branch = what attention adds to the residual stream.
void Network::Impl::ForwardAttention(const LayerPass& at) {
  LayerState* s = at.s;
  s->qkv.resize(room() * qkv_dim());
  s->attended.resize(room() * spec.q_dim());
  s->log_sums.resize(room() * spec.n_heads);
  Norm(at.w.attention_norm, Residual(at.l), &s->norm, normed.data());
  Linear(at, Product::kQkv, normed.data(), s->qkv.data());
  const Rows qkv = {s->qkv.data(), qkv_dim()};
  if (spec.qkv_bias) ops->AddBias(at.w.qkv_bias, n, qkv_dim(), qkv);
  if (spec.qk_norm) HeadNorms(at);
  ops->Rope(HeadsOfRope(), RopeOf(at.l).cos.data(), RopeOf(at.l).sin.data(), qkv);
  Attend(at);
  Linear(at, Product::kOutput, s->attended.data(), branch.data());
  if (spec.output_bias) ops->AddBias(at.w.output_bias, n, spec.dim, {branch.data(), spec.dim});
  if (spec.post_norms) {
    s->attention_added = branch;
    Norm(at.w.post_attention_norm, s->attention_added.data(), &s->attention_after, branch.data());
  }
}

// branch = what the feed-forward layer adds.
void Network::Impl::ForwardFeedForward(const LayerPass& at) {
  LayerState* s = at.s;
  s->gate_up.resize(room() * 2 * spec.ffn_dim);
  Norm(at.w.feed_forward_norm, s->middle.data(), &s->ffn_norm, normed.data());
  Linear(at, Product::kGateUp, normed.data(), s->gate_up.data());
  ops->Glu(spec.activation, n, spec.ffn_dim, s->gate_up.data(), wide.data());
  Linear(at, Product::kDown, wide.data(), branch.data());
  if (spec.post_norms) {
    s->ffn_added = branch;
    Norm(at.w.post_feed_forward_norm, s->ffn_added.data(), &s->ffn_after, branch.data());
  }
}

// dx becomes the gradient before the layer of what it was after it.
void Network::Impl::BackwardLayer(const LayerPass& at) {
  if (options.recompute) ForwardLayer(at);
  dbranch = dx;
  Drop(at.pass, at.l, 1, dbranch.data());
  BackwardFeedForward(at);
  dbranch = dx;
  Drop(at.pass, at.l, 0, dbranch.data());
  BackwardAttention(at);
}

// Adds to dx what dbranch gives.
void Network::Impl::BackwardFeedForward(const LayerPass& at) {
  LayerState* s = at.s;
  const size_t ffn = spec.ffn_dim;
  if (spec.post_norms) {
    NormBackward(at.w.post_feed_forward_norm, s->ffn_added.data(), s->ffn_after, dbranch.data(),
                 false, at.g.post_feed_forward_norm, dbranch.data());
  }
  ops->Glu(spec.activation, n, ffn, s->gate_up.data(), wide.data());
  LinearBackward(at, Product::kDown, wide.data(), dbranch.data(), dnarrow.data());
  ops->GluBackward(spec.activation, n, ffn, s->gate_up.data(), dnarrow.data(), dwide.data());
  Norm(at.w.feed_forward_norm, s->middle.data(), &s->ffn_norm, normed.data());
  LinearBackward(at, Product::kGateUp, normed.data(), dwide.data(), dbranch.data());
  NormBackward(at.w.feed_forward_norm, s->middle.data(), s->ffn_norm, dbranch.data(), true,
               at.g.feed_forward_norm, dx.data());
}

void Network::Impl::BackwardAttention(const LayerPass& at) {
  LayerState* s = at.s;
  const Rows dqkv = {dwide.data(), qkv_dim()};
  if (spec.post_norms) {
    NormBackward(at.w.post_attention_norm, s->attention_added.data(), s->attention_after,
                 dbranch.data(), false, at.g.post_attention_norm, dbranch.data());
  }
  if (at.g.output_bias != nullptr) {
    ops->AddRowSums({dbranch.data(), spec.dim}, n, spec.dim, at.g.output_bias);
  }
  LinearBackward(at, Product::kOutput, s->attended.data(), dbranch.data(), dnarrow.data());
  ops->AttendBackward(Attention(at.l), {s->qkv.data(), qkv_dim()},
                      {s->attended.data(), spec.q_dim()}, s->log_sums.data(),
                      {dnarrow.data(), spec.q_dim()}, dqkv);
  if (at.pass.layers != nullptr) {
    at.pass.layers->Attention(at.l + 1, Attention(at.l), {s->qkv.data(), qkv_dim()}, at.pass.scale,
                              dqkv);
  }
  ops->RopeBackward(HeadsOfRope(), RopeOf(at.l).cos.data(), RopeOf(at.l).sin.data(), dqkv);
  if (spec.qk_norm) HeadNormsBackward(at);
  if (at.g.qkv_bias != nullptr) ops->AddRowSums(dqkv, n, qkv_dim(), at.g.qkv_bias);
  Norm(at.w.attention_norm, Residual(at.l), &s->norm, normed.data());
  LinearBackward(at, Product::kQkv, normed.data(), dqkv.data, dbranch.data());
  NormBackward(at.w.attention_norm, Residual(at.l), s->norm, dbranch.data(), true,
               at.g.attention_norm, dx.data());
}

}  // namespace edgewise::train
