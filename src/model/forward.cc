// The forward pass: a batch is cut into blocks of tokens, which go through the layers.
#include "model/forward.h"

#include <cstring>
#include <vector>

#include "base/check.h"
#include "base/strings.h"
#include "model/forward_impl.h"

namespace edgewise {

Status ForwardPass::Impl::CheckSequence(const SequenceTokens& sequence) const {
  const KvCache& cache = *sequence.cache;
  const size_t count = sequence.tokens.size();
  if (cache.layers_.size() != spec.n_layers || cache.n_kv_heads_ != spec.n_kv_heads ||
      cache.value_bytes_ != kernels::KvRowBytes(cache.format_, spec.head_dim)) {
    return MakeError(Code::kInvalidArgument, "the KV cache was made for another model");
  }
  if (count == 0) return MakeError(Code::kInvalidArgument, "no tokens to compute");
  if (count > cache.capacity() - cache.size()) {
    return MakeError(Code::kInvalidArgument,
                     "%zu tokens do not fit the context: %u of %u positions are taken", count,
                     cache.size(), cache.capacity());
  }
  for (const int32_t token : sequence.tokens) {
    if (token < 0 || static_cast<uint32_t>(token) >= spec.vocab_size) {
      return MakeError(Code::kInvalidArgument, "token id %d is outside the vocabulary of %u", token,
                       spec.vocab_size);
    }
  }
  if (sequence.first_logits > count) {
    return MakeError(Code::kInvalidArgument, "logits were asked for from token %zu of %zu on",
                     sequence.first_logits, count);
  }
  return Ok{};
}

Status ForwardPass::Impl::Check(std::span<const SequenceTokens> batch, size_t logits_size) const {
  if (batch.empty()) return MakeError(Code::kInvalidArgument, "no tokens to compute");
  size_t with_logits = 0;
  for (size_t i = 0; i < batch.size(); ++i) {
    EW_TRY(CheckSequence(batch[i]));
    for (size_t j = 0; j < i; ++j) {
      if (batch[j].cache != batch[i].cache) continue;
      return MakeError(Code::kInvalidArgument, "sequences %zu and %zu have the same KV cache", j,
                       i);
    }
    with_logits += batch[i].tokens.size() - batch[i].first_logits;
  }
  if (logits_size == with_logits * OutputWidth()) return Ok{};
  return MakeError(Code::kInvalidArgument, "the %s of %zu tokens are (tokens, %zu) floats, not %zu",
                   gives_states ? "states" : "logits", with_logits, OutputWidth(), logits_size);
}

Status ForwardPass::Impl::Reserve(size_t wanted) {
  if (wanted <= reserved) return Ok{};
  const size_t widest = std::max({spec.dim, spec.q_dim(), spec.ffn_dim});
  EW_TRY(input.Resize(wanted, widest));
  EW_TRY(x.Resize(wanted, spec.dim));
  EW_TRY(q.Resize(wanted, spec.q_dim()));
  EW_TRY(k.Resize(wanted, spec.kv_dim()));
  EW_TRY(v.Resize(wanted, spec.kv_dim()));
  EW_TRY(gate.Resize(wanted, spec.ffn_dim));
  EW_TRY(up.Resize(wanted, spec.ffn_dim));
  EW_TRY(branch.Resize(wanted, spec.dim));
  first_key.resize(wanted);
  end_key.resize(wanted);
  rope.Resize(wanted);
  sliding_rope.Resize(wanted);
  reserved = wanted;
  return Ok{};
}

// Makes rows of tokens [begin, end) of a sequence, the first of them at `position`.
void ForwardPass::Impl::AddRows(const SequenceTokens& sequence, uint32_t position, size_t begin,
                                size_t end) {
  if (begin == end) return;
  const size_t row = tokens.size(), count = end - begin;
  const bool continues = !segments.empty() && segments.back().cache == sequence.cache &&
                         segments.back().position + segments.back().count == position;
  if (continues) {
    segments.back().count += count;
  } else {
    segments.push_back({sequence.cache, position, row, count});
  }
  const auto from = sequence.tokens.subspan(begin, count);
  tokens.insert(tokens.end(), from.begin(), from.end());
  segment_of.resize(tokens.size(), static_cast<uint32_t>(segments.size() - 1));
}

// Makes a block of the batch's tokens from `at` on; returns where the next one begins.
BatchPosition ForwardPass::Impl::Fill(std::span<const SequenceTokens> batch, BatchPosition at) {
  struct Piece {
    const SequenceTokens* sequence;
    size_t begin, middle, end;  // from `middle` on they give logits
  };
  std::vector<Piece> pieces;
  for (size_t room = max_batch; room > 0 && at.sequence < batch.size();) {
    const SequenceTokens& sequence = batch[at.sequence];
    const size_t size = sequence.tokens.size();
    const size_t end = at.token + std::min({size - at.token, room, size_t{kMaxStep}});
    const size_t middle = std::clamp(sequence.first_logits, at.token, end);
    pieces.push_back({&sequence, at.token, middle, end});
    room -= end - at.token;
    at.token = end;
    if (end < size) break;
    at = {at.sequence + 1, 0};
  }
  tokens.clear();
  segments.clear();
  segment_of.clear();
  for (const Piece& p : pieces) {
    AddRows(*p.sequence, p.sequence->cache->size_, p.begin, p.middle);
  }
  first_logits = tokens.size();
  for (const Piece& p : pieces) {
    const auto before = static_cast<uint32_t>(p.middle - p.begin);
    AddRows(*p.sequence, p.sequence->cache->size_ + before, p.middle, p.end);
  }
  rows = tokens.size();
  return at;
}

// In the last layer rows that give no logits matter only as keys and values.
void ForwardPass::Impl::Block(float* logits) {
  FillRope();
  Embed();
  for (uint32_t layer = 0; layer < spec.n_layers; ++layer) {
    const size_t first = layer + 1 == spec.n_layers ? first_logits : 0;
    Attention(layer, first);
    FeedForward(layer, first);
  }
  Logits(logits);
  Advance();
}

void ForwardPass::Impl::FillRope() {
  for (const Segment& segment : segments) {
    rope.Fill(segment);
    if (spec.local_rope_base != 0) sliding_rope.Fill(segment);
  }
}

// The block's keys and values count from now on.
void ForwardPass::Impl::Advance() {
  for (const Segment& segment : segments) {
    KvCache& cache = *segment.cache;
    cache.size_ += static_cast<uint32_t>(segment.count);
    cache.highest_ = std::max(cache.highest_, cache.size_);
  }
}

void ForwardPass::Impl::Embed() {
  const TensorView& embedding = Of({ModelPart::Kind::kEmbedding}).embedding;
  for (size_t i = 0; i < rows; ++i) {
    embedding.DecodeRow(static_cast<uint64_t>(tokens[i]), x.row(i));
    if (spec.embedding_scale != 1.0f) kernel.scale(spec.embedding_scale, x.row(i), spec.dim);
  }
}

// input = RMSNorm(x) for rows from `first` on.
void ForwardPass::Impl::Normalize(const std::vector<float>& weight, size_t first,
                                  std::span<const Linear* const> users) {
  input.Begin(spec.dim);
  ForEach(rows - first, 4 * spec.dim, pool, [&](size_t i) {
    const size_t row = first + i;
    kernel.rms_norm(x.row(row), weight.data(), input.floats(row), spec.dim, spec.norm_eps);
    input.Finish(row, users);
  });
}

// Shows the tap rows from `first` on; false when it wants no more.
bool ForwardPass::Impl::Tap(LinearInput which, size_t first) {
  if (tap == nullptr) return true;
  const size_t stride = input.Stride(kernels::ActFormat::kF32) / sizeof(float);
  return (*tap)(which, input.floats(first), rows - first, stride);
}

// The halves of a layer return false where the tap stopped them.
bool ForwardPass::Impl::Attention(uint32_t layer, size_t first) {
  const LayerWeights& w = Layer(layer);
  const Linear* users[] = {&w.q, &w.k, &w.v};
  Normalize(w.attention_norm, 0, users);
  if (!Tap(LinearInput::kQkv, 0)) return false;
  const LinearJob jobs[] = {{&w.q, first, rows - first, q.row(first), q.columns()},
                            {&w.k, 0, rows, k.row(0), k.columns()},
                            {&w.v, 0, rows, v.row(0), v.columns()}};
  RunLinears(jobs, input, pool);
  ForEach(rows, 4 * (spec.q_dim() + 2 * spec.kv_dim()), pool,
          [&](size_t row) { PrepareHeads(layer, segments[segment_of[row]], row, first); });
  RoundFullBlocks(layer);
  if (first == rows) return true;
  Attend(layer, first);
  if (!Tap(LinearInput::kAttnOutput, first)) return false;
  AddResidual(w.output, w.post_attention_norm, first);
  return true;
}

// x += post_norm(linear(input)) for rows from `first` on.
void ForwardPass::Impl::AddResidual(const Linear& linear, const std::vector<float>& post_norm,
                                    size_t first) {
  const LinearJob job = {&linear, first, rows - first, branch.row(first), branch.columns()};
  RunLinears({&job, 1}, input, pool);
  ForEach(rows - first, 2 * spec.dim, pool, [&](size_t i) {
    float* add = branch.row(first + i);
    if (!linear.bias.empty()) kernel.add(linear.bias.data(), add, spec.dim);
    if (!post_norm.empty()) kernel.rms_norm(add, post_norm.data(), add, spec.dim, spec.norm_eps);
    kernel.add(add, x.row(first + i), spec.dim);
  });
}

bool ForwardPass::Impl::FeedForward(uint32_t layer, size_t first) {
  if (first == rows) return true;
  const LayerWeights& w = Layer(layer);
  const Linear* users[] = {&w.gate, &w.up};
  Normalize(w.feed_forward_norm, first, users);
  if (!Tap(LinearInput::kGateUp, first)) return false;
  const size_t count = rows - first;
  const LinearJob jobs[] = {{&w.gate, first, count, gate.row(first), gate.columns()},
                            {&w.up, first, count, up.row(first), up.columns()}};
  RunLinears(jobs, input, pool);
  const auto activate =
      spec.activation == Activation::kSilu ? kernel.silu_mul : kernel.gelu_tanh_mul;
  const Linear* down[] = {&w.down};
  input.Begin(spec.ffn_dim);
  ForEach(count, 8 * spec.ffn_dim, pool, [&](size_t i) {
    const size_t row = first + i;
    activate(gate.row(row), up.row(row), input.floats(row), spec.ffn_dim);
    input.Finish(row, down);
  });
  if (!Tap(LinearInput::kDown, first)) return false;
  AddResidual(w.down, w.post_feed_forward_norm, first);
  return true;
}

void ForwardPass::Impl::Logits(float* logits) {
  const size_t first = first_logits;
  if (first == rows) return;
  const Model::Impl& output = Of({ModelPart::Kind::kOutput});
  const Linear* users[] = {&output.logits};
  Normalize(output.output_norm, first, users);
  if (gives_states) {
    for (size_t row = first; row < rows; ++row) {
      std::copy_n(input.floats(row), spec.dim, logits + (row - first) * spec.dim);
    }
    return;
  }
  const LinearJob job = {&output.logits, first, rows - first, logits, spec.vocab_size};
  RunLinears({&job, 1}, input, pool);
  if (spec.logit_softcap <= 0) return;
  ForEach(rows - first, 8 * spec.vocab_size, pool, [&](size_t i) {
    kernel.softcap(spec.logit_softcap, logits + i * spec.vocab_size, spec.vocab_size);
  });
}

ForwardPass::ForwardPass(const Model& model, ThreadPool* pool, uint32_t max_batch)
    : ForwardPass(*model.impl_, pool, max_batch) {}
ForwardPass::ForwardPass(const Model::Impl& model, ThreadPool* pool, uint32_t max_batch)
    : impl_(std::make_unique<Impl>(model, pool, max_batch)) {}
ForwardPass::ForwardPass(ForwardPass&&) noexcept = default;
ForwardPass& ForwardPass::operator=(ForwardPass&&) noexcept = default;
ForwardPass::~ForwardPass() = default;

Status ForwardPass::Substitute(const Model& other, const ModelPart& part) {
  // How tensors are stored and what the model is called does not change what is computed.
  const auto computed = [](ModelSpec spec) {
    spec.name.clear();
    spec.fused_qkv = spec.fused_gate_up = spec.tied_embeddings = false;
    return spec;
  };
  if (computed(other.spec()) != computed(impl_->spec)) {
    return MakeError(Code::kInvalidArgument,
                     "%s has another shape or computes differently, so no part of it fits into %s",
                     other.checkpoint().path().c_str(), impl_->model.checkpoint.path().c_str());
  }
  if (part.kind == ModelPart::Kind::kLayer && part.layer >= impl_->spec.n_layers) {
    return MakeError(Code::kInvalidArgument, "there is no layer %u: the model has %u", part.layer,
                     impl_->spec.n_layers);
  }
  impl_->other = other.impl_.get();
  impl_->substituted = part;
  return Ok{};
}

Status ForwardPass::RunStates(std::span<const int32_t> tokens, KvCache* cache, size_t first_state,
                              std::span<float> states) {
  impl_->gives_states = true;
  Status status = Run(tokens, cache, first_state, states);
  impl_->gives_states = false;
  return status;
}

Status ForwardPass::Run(std::span<const SequenceTokens> batch, std::span<float> logits) {
  EW_TRY(impl_->Check(batch, logits.size()));
  size_t count = 0;
  for (const SequenceTokens& sequence : batch) count += sequence.tokens.size();
  EW_TRY(impl_->Reserve(std::min(count, impl_->max_batch)));
  float* to = logits.data();
  for (BatchPosition at; at.sequence < batch.size();) {
    at = impl_->Fill(batch, at);
    impl_->Block(to);
    to += (impl_->rows - impl_->first_logits) * impl_->OutputWidth();
  }
  return Ok{};
}

Status ForwardPass::RunLayer(uint32_t layer, KvCache* cache, size_t n, float* x, LinearTap tap) {
  EW_CHECK(n >= 1 && n <= impl_->max_batch && n <= cache->capacity() - cache->size());
  Impl& pass = *impl_;
  EW_TRY(pass.Reserve(n));
  pass.segments = {{cache, cache->size_, 0, n}};
  pass.segment_of.assign(n, 0);
  pass.rows = n;
  pass.first_logits = 0;
  pass.FillRope();
  const size_t row_bytes = pass.spec.dim * sizeof(float);
  for (size_t i = 0; i < n; ++i) std::memcpy(pass.x.row(i), x + i * pass.spec.dim, row_bytes);
  pass.tap = &tap;
  const bool whole = pass.Attention(layer, 0) && pass.FeedForward(layer, 0);
  pass.tap = nullptr;
  for (size_t i = 0; i < n && whole; ++i) {
    std::memcpy(x + i * pass.spec.dim, pass.x.row(i), row_bytes);
  }
  pass.Advance();
  return Ok{};
}

}  // namespace edgewise
