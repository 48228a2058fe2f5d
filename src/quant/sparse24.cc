// S24_Q4, S24_Q8, S24_F16, S24_BF16: two of every four consecutive values kept ("2:4", Mishra et
// al. 2021, "Accelerating sparse deep neural networks"), rounded as those of Q4_0, Q8_0, F16 and
// BF16 are.
#include <algorithm>
#include <cmath>
#include <iterator>

#include "quant/codecs.h"
#include "quant/forms.h"
#include "quant/sparse.h"

namespace edgewise::quant {
namespace {

constexpr int kBlock = kSparseBlock, kKept = kSparseKept;
constexpr int kHalvesBlock = 16;

// Where a block keeps the position of kept value k.
int AtByte(int k) { return 4 * (k / 16) + k % 4; }
int AtShift(int k) { return 2 * (k / 4 % 4); }
template <class Block>
int ElementOf(const Block& block, int k) {
  return 4 * (k / 2) + ((block.at[AtByte(k)] >> AtShift(k)) & 3);
}

// The same of its value in S24_Q4.
int NibbleByte(int k) { return 4 * (k / 8) + k % 4; }
int NibbleShift(int k) { return 4 * (k / 4 % 2); }

int ValueOf(const BlockS24_Q4& block, int k) {
  const int code = (block.qs[NibbleByte(k)] >> NibbleShift(k)) & 15;
  return (code ^ 8) - 8;
}
int ValueOf(const BlockS24_Q8& block, int k) { return block.qs[k]; }

void PackValues(const int8_t* values, BlockS24_Q4* block) {
  std::fill(std::begin(block->qs), std::end(block->qs), uint8_t{0});
  for (int k = 0; k < kKept; ++k) {
    block->qs[NibbleByte(k)] |= static_cast<uint8_t>((values[k] & 15) << NibbleShift(k));
  }
}
void PackValues(const int8_t* values, BlockS24_Q8* block) { std::copy_n(values, kKept, block->qs); }

template <class Block>
void Decode(const void* blocks, float* values, size_t n) {
  const Block* block = static_cast<const Block*>(blocks);
  for (; n > 0; n -= kBlock, values += kBlock, ++block) {
    int q[kBlock] = {};
    for (int k = 0; k < kKept; ++k) q[ElementOf(*block, k)] += ValueOf(*block, k);
    const float d = HalfToFloat(block->d);
    for (int j = 0; j < kBlock; ++j) values[j] = static_cast<float>(q[j]) * d;
  }
}

// The two of four values to keep, in their order: those that cost most where they are dropped,
// then the larger ones, then the first. So values other than 0 come before zeros.
struct Pair {
  int first, second;
};
Pair Choose(const float* x, const float* cost) {
  const auto before = [&](int a, int b) {
    return cost[a] != cost[b] ? cost[a] > cost[b] : std::fabs(x[a]) > std::fabs(x[b]);
  };
  Pair pair = {0, 1};
  if (before(1, 0)) pair = {1, 0};
  for (int j = 2; j < 4; ++j) {
    if (before(j, pair.first)) {
      pair = {j, pair.first};
    } else if (before(j, pair.second)) {
      pair.second = j;
    }
  }
  return pair.first < pair.second ? pair : Pair{pair.second, pair.first};
}

// Writes which values of a block are kept, and lists them.
struct Prune {
  template <class Block>
  void operator()(const float* x, const float* cost, Block* block, int* kept) const {
    std::fill(std::begin(block->at), std::end(block->at), uint8_t{0});
    for (int j = 0, k = 0; j < kBlock; j += 4) {
      const Pair pair = Choose(x + j, cost + j);
      for (const int position : {pair.first, pair.second}) {
        block->at[AtByte(k)] |= static_cast<uint8_t>(position << AtShift(k));
        kept[k++] = j + position;
      }
    }
  }
};

struct StoreValues {
  template <class Block>
  void operator()(Block& block, const int8_t* q) const {
    PackValues(q, &block);
  }
};

// Values at one element are added up, as Decode does.
template <class Block>
void Unpack(const void* bytes, BlockParts* parts) {
  const Block& block = *static_cast<const Block*>(bytes);
  *parts = BlockParts();
  parts->d = block.d;
  parts->scale[0] = parts->scale[1] = 1;
  for (int k = 0; k < kKept; ++k) {
    const int element = ElementOf(block, k);
    parts->value[element] = static_cast<int8_t>(parts->value[element] + ValueOf(block, k));
    parts->kept |= uint64_t{1} << element;
  }
}

template <class Block>
void Pack(const BlockParts& parts, void* bytes) {
  Block block{parts.d, {}, {}};
  int8_t kept[kKept] = {};
  for (int j = 0, k = 0; j < kBlock; ++j) {
    if (j % 4 == 0) k = j / 2;  // also where a four keeps fewer
    if ((parts.kept >> j & 1) == 0) continue;
    block.at[AtByte(k)] |= static_cast<uint8_t>((j % 4) << AtShift(k));
    kept[k++] = parts.value[j];
  }
  PackValues(kept, &block);
  *static_cast<Block*>(bytes) = block;
}

template <float (*Convert)(uint16_t)>
void DecodeHalves(const void* blocks, float* values, size_t n) {
  const BlockS24_F16* block = static_cast<const BlockS24_F16*>(blocks);
  std::fill_n(values, n, 0.0f);
  for (; n > 0; n -= kHalvesBlock, values += kHalvesBlock, ++block) {
    for (int k = 0; k < kHalvesBlock / 2; ++k) {
      values[4 * (k / 2) + (block->at[k / 4] >> (2 * (k % 4)) & 3)] = Convert(block->kept[k]);
    }
  }
}

// Values beyond `largest`, which would round to infinity, become the largest finite one.
template <uint16_t (*Convert)(float)>
void EncodeHalves(const float* values, const float* weights, float largest, void* blocks,
                  size_t n) {
  BlockS24_F16* block = static_cast<BlockS24_F16*>(blocks);
  for (size_t i = 0; i < n; i += kHalvesBlock, ++block) {
    float cost[kHalvesBlock];
    DropCosts(values + i, weights == nullptr ? nullptr : weights + i, kHalvesBlock, cost);
    *block = {};
    for (int g = 0; g < kHalvesBlock / 4; ++g) {
      const float* four = values + i + 4 * g;
      const Pair pair = Choose(four, cost + 4 * g);
      block->at[g / 2] |= static_cast<uint8_t>((pair.first | pair.second << 2) << (4 * (g % 2)));
      block->kept[2 * g] = Convert(std::clamp(four[pair.first], -largest, largest));
      block->kept[2 * g + 1] = Convert(std::clamp(four[pair.second], -largest, largest));
    }
  }
}

}  // namespace

const BlockForm kFormS24_Q4 = SparseForm<-8, 7>(Unpack<BlockS24_Q4>, Pack<BlockS24_Q4>);
const BlockForm kFormS24_Q8 = SparseForm<-127, 127>(Unpack<BlockS24_Q8>, Pack<BlockS24_Q8>);

void DecodeS24_Q4(const void* blocks, float* values, size_t n) {
  Decode<BlockS24_Q4>(blocks, values, n);
}

void DecodeS24_Q8(const void* blocks, float* values, size_t n) {
  Decode<BlockS24_Q8>(blocks, values, n);
}

void EncodeS24_Q4(const float* values, const float* weights, void* blocks, size_t n) {
  EncodeHalf4<BlockS24_Q4>(values, weights, blocks, n, Prune(), StoreValues());
}

void EncodeS24_Q8(const float* values, const float* weights, void* blocks, size_t n) {
  EncodeHalf8<BlockS24_Q8>(values, weights, blocks, n, Prune(), StoreValues());
}

void DecodeS24_F16(const void* blocks, float* values, size_t n) {
  DecodeHalves<HalfToFloat>(blocks, values, n);
}

void DecodeS24_BF16(const void* blocks, float* values, size_t n) {
  DecodeHalves<Bf16ToFloat>(blocks, values, n);
}

void EncodeS24_F16(const float* values, const float* weights, void* blocks, size_t n) {
  EncodeHalves<FloatToHalf>(values, weights, 65504.0f, blocks, n);
}

void EncodeS24_BF16(const float* values, const float* weights, void* blocks, size_t n) {
  EncodeHalves<FloatToBf16>(values, weights, 0x1.FEp127f, blocks, n);
}

}  // namespace edgewise::quant
