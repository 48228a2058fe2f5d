// BM_Q4 and BM_Q8: any 32 of each 64 values kept, rounded as those of Q4_0 and Q8_0 are.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <numeric>

#include "quant/block_parts.h"
#include "quant/codecs.h"
#include "quant/forms.h"
#include "quant/sparse.h"

namespace edgewise::quant {
namespace {

constexpr int kBlock = kSparseBlock, kKept = kSparseKept;

bool IsSet(const uint8_t* mask, int j) { return (mask[j / 8] >> (j % 8) & 1) != 0; }

// Lists the elements that a mask keeps, in order and at most 32; returns how many.
int ListKept(const uint8_t* mask, int* kept) {
  int count = 0;
  for (int j = 0; j < kBlock && count < kKept; ++j) {
    if (IsSet(mask, j)) kept[count++] = j;
  }
  return count;
}

int ValueOf(const BlockBM_Q4& block, int k) {
  return ((block.qs[k % 16] >> (4 * (k / 16))) & 15) - 8;
}
int ValueOf(const BlockBM_Q8& block, int k) { return block.qs[k]; }

void PackValues(const int8_t* values, BlockBM_Q4* block) {
  for (int k = 0; k < 16; ++k) {
    block->qs[k] = static_cast<uint8_t>((values[k] + 8) | (values[k + 16] + 8) << 4);
  }
}
void PackValues(const int8_t* values, BlockBM_Q8* block) { std::copy_n(values, kKept, block->qs); }

template <class Block>
void Decode(const void* blocks, float* values, size_t n) {
  const Block* block = static_cast<const Block*>(blocks);
  for (; n > 0; n -= kBlock, values += kBlock, ++block) {
    int kept[kKept], q[kBlock] = {};
    const int count = ListKept(block->mask, kept);
    for (int k = 0; k < count; ++k) q[kept[k]] = ValueOf(*block, k);
    const float d = HalfToFloat(block->d);
    for (int j = 0; j < kBlock; ++j) values[j] = static_cast<float>(q[j]) * d;
  }
}

// Keeps the 32 values that cost most where they are dropped, of equal ones the larger, then the
// first. So values other than 0 come before zeros.
struct Prune {
  template <class Block>
  void operator()(const float* x, const float* cost, Block* block, int* kept) const {
    int order[kBlock];
    std::iota(order, order + kBlock, 0);
    std::nth_element(order, order + kKept, order + kBlock, [&](int a, int b) {
      if (cost[a] != cost[b]) return cost[a] > cost[b];
      const float size_a = std::fabs(x[a]), size_b = std::fabs(x[b]);
      return size_a != size_b ? size_a > size_b : a < b;
    });
    std::sort(order, order + kKept);
    std::copy_n(order, kKept, kept);
    std::fill(std::begin(block->mask), std::end(block->mask), uint8_t{0});
    for (int k = 0; k < kKept; ++k) {
      block->mask[kept[k] / 8] |= static_cast<uint8_t>(1 << (kept[k] % 8));
    }
  }
};

struct StoreValues {
  template <class Block>
  void operator()(Block& block, const int8_t* q) const {
    PackValues(q, &block);
  }
};

template <class Block>
void Unpack(const void* bytes, BlockParts* parts) {
  const Block& block = *static_cast<const Block*>(bytes);
  *parts = BlockParts();
  parts->d = block.d;
  parts->scale[0] = parts->scale[1] = 1;
  int kept[kKept];
  const int count = ListKept(block.mask, kept);
  for (int k = 0; k < count; ++k) {
    parts->value[kept[k]] = static_cast<int8_t>(ValueOf(block, k));
    parts->kept |= uint64_t{1} << kept[k];
  }
}

template <class Block>
void Pack(const BlockParts& parts, void* bytes) {
  Block block{parts.d, {}, {}};
  int8_t kept[kKept] = {};
  for (int j = 0, k = 0; j < kBlock && k < kKept; ++j) {
    if ((parts.kept >> j & 1) == 0) continue;
    block.mask[j / 8] |= static_cast<uint8_t>(1 << (j % 8));
    kept[k++] = parts.value[j];
  }
  PackValues(kept, &block);
  *static_cast<Block*>(bytes) = block;
}

}  // namespace

const BlockForm kFormBM_Q4 = SparseForm<-8, 7>(Unpack<BlockBM_Q4>, Pack<BlockBM_Q4>);
const BlockForm kFormBM_Q8 = SparseForm<-127, 127>(Unpack<BlockBM_Q8>, Pack<BlockBM_Q8>);

void DecodeBM_Q4(const void* blocks, float* values, size_t n) {
  Decode<BlockBM_Q4>(blocks, values, n);
}

void DecodeBM_Q8(const void* blocks, float* values, size_t n) {
  Decode<BlockBM_Q8>(blocks, values, n);
}

void EncodeBM_Q4(const float* values, const float* weights, void* blocks, size_t n) {
  EncodeHalf4<BlockBM_Q4>(values, weights, blocks, n, Prune(), StoreValues());
}

void EncodeBM_Q8(const float* values, const float* weights, void* blocks, size_t n) {
  EncodeHalf8<BlockBM_Q8>(values, weights, blocks, n, Prune(), StoreValues());
}

}  // namespace edgewise::quant
