// The inside of a forward pass: the block of tokens in work and what a layer does to it. A row is
// one token, a step one function.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "kernels/kernels.h"
#include "model/forward.h"
#include "model/model.h"
#include "model/rope.h"

namespace edgewise {

// Consecutive tokens of one sequence: rows [row, row + count) of a block.
struct Segment {
  KvCache* cache;
  uint32_t position;  // of the first row
  size_t row, count;
};

// cos and sin for every row of a block, and the frequencies they come from.
struct RopeTable {
  RopeSpec rope;
  std::vector<double> short_frequencies, long_frequencies;
  std::vector<float> cos, sin;  // (rows, rotary_dim / 2)

  explicit RopeTable(RopeSpec spec) : rope(std::move(spec)) {
    short_frequencies = RopeFrequencies(rope, false);
    long_frequencies = RopeFrequencies(rope, true);
  }
  void Resize(size_t rows) {
    cos.resize(rows * short_frequencies.size());
    sin.resize(cos.size());
  }
  void Fill(const Segment& segment) {
    const bool is_long = rope.scaling == RopeScalingKind::kLongRope &&
                         segment.cache->capacity() > rope.original_context;
    const std::vector<double>& frequencies = is_long ? long_frequencies : short_frequencies;
    for (size_t i = 0; i < segment.count; ++i) {
      const size_t at = (segment.row + i) * frequencies.size();
      RopeAngles(rope, frequencies, segment.position + static_cast<uint32_t>(i), cos.data() + at,
                 sin.data() + at);
    }
  }
};

// Rows of one sequence whose attention is one piece of work.
struct QueryBlock {
  KvCache* cache;
  size_t row, count;
};

// A token of a batch.
struct BatchPosition {
  size_t sequence = 0;
  size_t token = 0;
};

struct ForwardPass::Impl {
  Impl(const Model::Impl& m, ThreadPool* p, uint32_t batch)
      : model(m),
        spec(m.spec()),
        kernel(kernels::Active()),
        pool(p),
        max_batch(std::max(batch, 1u)),
        rope(spec.rope),
        sliding_rope(SlidingRope(spec)) {}

  Status Check(std::span<const SequenceTokens> batch, size_t logits_size) const;
  Status CheckSequence(const SequenceTokens& sequence) const;
  Status Reserve(size_t rows);
  BatchPosition Fill(std::span<const SequenceTokens> batch, BatchPosition at);
  void AddRows(const SequenceTokens& sequence, uint32_t position, size_t begin, size_t end);
  void Block(float* logits);
  void FillRope();
  void Advance();
  void Embed();
  bool Attention(uint32_t layer, size_t first);
  bool FeedForward(uint32_t layer, size_t first);
  void Logits(float* logits);
  bool Tap(LinearInput which, size_t first);

  void Normalize(const std::vector<float>& weight, size_t first,
                 std::span<const Linear* const> users);
  void PrepareHeads(uint32_t layer, const Segment& segment, size_t row, size_t first);
  void StoreHeads(uint32_t layer, KvCache* cache, uint32_t position, size_t row);
  void RoundFullBlocks(uint32_t layer);
  void RotateHeads(const RopeTable& table, size_t row, float* heads, size_t count);
  void Attend(uint32_t layer, size_t first);
  void AttendHeads(uint32_t layer, size_t first);
  void CutQueries(uint32_t layer, size_t first);
  void AddResidual(const Linear& linear, const std::vector<float>& post_norm, size_t first);
  float AttentionScale() const;
  // Floats that a token gives.
  size_t OutputWidth() const { return gives_states ? spec.dim : spec.vocab_size; }
  // The model that gives the weights of a part.
  const Model::Impl& Of(const ModelPart& part) const {
    return other && part == substituted ? *other : model;
  }
  const LayerWeights& Layer(uint32_t layer) const {
    return Of({ModelPart::Kind::kLayer, layer}).layers[layer];
  }

  const Model::Impl& model;
  const Model::Impl* other = nullptr;  // gives the weights of `substituted`; null: none
  ModelPart substituted;
  bool gives_states = false;  // instead of logits
  const ModelSpec& spec;
  const kernels::Kernels& kernel;
  ThreadPool* pool;
  size_t max_batch;

  // The block in work: rows that give no logits come first.
  std::vector<int32_t> tokens;  // (rows)
  std::vector<Segment> segments;
  std::vector<uint32_t> segment_of;  // (rows)
  size_t rows = 0;
  size_t first_logits = 0;
  size_t reserved = 0;  // rows that fit the scratch memory
  RopeTable rope, sliding_rope;
  Activations input;                         // of the linear layers at hand
  FloatRows x;                               // (rows, dim): the residual stream
  FloatRows q, k, v;                         // (rows, q_dim), (rows, kv_dim) twice
  FloatRows gate, up;                        // (rows, ffn_dim)
  FloatRows branch;                          // (rows, dim): what a half layer adds to x
  std::vector<uint32_t> first_key, end_key;  // (rows): the keys that each sees
  std::vector<QueryBlock> query_blocks;      // of the layer at hand
  const LinearTap* tap = nullptr;            // sees the inputs of linear layers
  size_t scores = 0;                         // their queries times the keys that they see
};

}  // namespace edgewise
