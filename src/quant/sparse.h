// Encoding of the sparse formats: blocks of 64 values of which 32 are kept, rounded as those of
// Q4_0 and Q8_0 are. A format differs in which it may keep and in how it says so.
#pragma once

#include "quant/block_parts.h"
#include "quant/legacy.h"

namespace edgewise::quant {

inline constexpr int kSparseBlock = 64, kSparseKept = 32;

// What dropping each of n values adds to the weighted squared error, but for one factor.
inline void DropCosts(const float* x, const float* weights, int n, float* cost) {
  const size_t count = static_cast<size_t>(n);
  const float* usable = UsableWeights(weights, count);
  const float scale = Normalizer(x, count).scale;
  const float weight_scale = usable == nullptr ? 1.0f : Normalizer(usable, count).scale;
  for (int j = 0; j < n; ++j) {
    const float value = x[j] * scale;
    cost[j] = value * value * (usable == nullptr ? 1.0f : usable[j] * weight_scale + 1e-6f);
  }
}

// prune(x, cost, block, kept) writes which values are kept and lists the 32 elements in order;
// store(block, q) their integers.
template <class Grid, class Block, size_t kStarts, class Prune, class Store>
void EncodeHalf(const float* values, const float* weights, void* blocks, size_t n,
                const float (&starts)[kStarts], int ascents, Prune prune, Store store) {
  Block* block = static_cast<Block*>(blocks);
  float kept[kLanes * kSparseKept], kept_weights[kLanes * kSparseKept];
  for (size_t i = 0; i < n;) {
    const int count = static_cast<int>(std::min<size_t>((n - i) / kSparseBlock, kLanes));
    for (int b = 0; b < count; ++b, i += kSparseBlock) {
      const float* mine = weights == nullptr ? nullptr : weights + i;
      float cost[kSparseBlock];
      int at[kSparseKept];
      DropCosts(values + i, mine, kSparseBlock, cost);
      prune(values + i, cost, &block[b], at);
      for (int k = 0; k < kSparseKept; ++k) {
        kept[kSparseKept * b + k] = values[i + static_cast<size_t>(at[k])];
        kept_weights[kSparseKept * b + k] = mine == nullptr ? 1.0f : mine[at[k]];
      }
    }
    EncodeType0<Grid, Block>(kept, weights == nullptr ? nullptr : kept_weights, block,
                             static_cast<size_t>(kSparseKept * count), starts, ascents, store);
    block += count;
  }
}

// EncodeHalf with the integers of Q4_0 and Q8_0.
template <class Block, class Prune, class Store>
void EncodeHalf4(const float* values, const float* weights, void* blocks, size_t n, Prune prune,
                 Store store) {
  static constexpr float kStarts[] = {-8.0f, -7.0f, -7.5f, -8.5f, -9.0f, 6.8f, 7.3f, 7.9f};
  EncodeHalf<IntegerGrid<-8, 7>, Block>(values, weights, blocks, n, kStarts, 2, prune, store);
}
template <class Block, class Prune, class Store>
void EncodeHalf8(const float* values, const float* weights, void* blocks, size_t n, Prune prune,
                 Store store) {
  static constexpr float kStarts[] = {127.0f, 126.2f, 125.4f, 124.3f, 123.1f, 121.7f};
  EncodeHalf<IntegerGrid<-127, 127>, Block>(values, weights, blocks, n, kStarts, 1, prune, store);
}

// How error feedback takes a block apart: one scale, in groups as wide as those of dense formats.
template <int16_t kLow, int16_t kHigh>
constexpr BlockForm SparseForm(void (*unpack)(const void* block, BlockParts* parts),
                               void (*pack)(const BlockParts& parts, void* block)) {
  return {kSparseBlock / 2, kLow, kHigh, nullptr, 1, 1, 0, 0, unpack, pack};
}

}  // namespace edgewise::quant
