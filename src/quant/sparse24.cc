// S24_Q4 and S24_Q8: two of every four consecutive values kept ("2:4", Mishra et al. 2021,
// "Accelerating sparse deep neural networks"), rounded as those of Q4_0 and Q8_0 are.
#include <algorithm>
#include <cmath>
#include <iterator>

#include "quant/codecs.h"
#include "quant/forms.h"
#include "quant/legacy.h"

namespace edgewise::quant {
namespace {

constexpr int kBlock = 64, kKept = 32;

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

// Writes which values of a block are kept, and returns them with their weights.
void Prune(const float* x, const float* weights, uint8_t* at, float* kept, float* kept_weights) {
  const float* usable = UsableWeights(weights, kBlock);
  const float scale = Normalizer(x, kBlock).scale;
  const float weight_scale = usable == nullptr ? 1.0f : Normalizer(usable, kBlock).scale;
  float cost[kBlock];
  for (int j = 0; j < kBlock; ++j) {
    const float value = x[j] * scale;
    cost[j] = value * value * (usable == nullptr ? 1.0f : usable[j] * weight_scale + 1e-6f);
  }
  std::fill(at, at + 8, uint8_t{0});
  for (int j = 0, k = 0; j < kBlock; j += 4) {
    const Pair pair = Choose(x + j, cost + j);
    for (const int position : {pair.first, pair.second}) {
      at[AtByte(k)] |= static_cast<uint8_t>(position << AtShift(k));
      kept[k] = x[j + position];
      kept_weights[k] = usable == nullptr ? 1.0f : usable[j + position];
      ++k;
    }
  }
}

template <class Grid, class Block, size_t kStarts>
void Encode(const float* values, const float* weights, void* blocks, size_t n,
            const float (&starts)[kStarts], int ascents) {
  Block* block = static_cast<Block*>(blocks);
  float kept[kLanes * kKept], kept_weights[kLanes * kKept];
  for (size_t i = 0; i < n;) {
    const int count = static_cast<int>(std::min<size_t>((n - i) / kBlock, kLanes));
    for (int b = 0; b < count; ++b, i += kBlock) {
      Prune(values + i, weights == nullptr ? nullptr : weights + i, block[b].at, kept + kKept * b,
            kept_weights + kKept * b);
    }
    EncodeType0<Grid, Block>(kept, weights == nullptr ? nullptr : kept_weights, block,
                             static_cast<size_t>(kKept * count), starts, ascents,
                             [](Block& out, const int8_t* q) { PackValues(q, &out); });
    block += count;
  }
}

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

// One scale for the block, in groups as wide as those of dense formats.
template <class Block, int16_t kLow, int16_t kHigh>
constexpr BlockForm kForm = {kBlock / 2, kLow, kHigh,         nullptr,     1,   1,
                             0,          0,    Unpack<Block>, Pack<Block>, true};

}  // namespace

const BlockForm kFormS24_Q4 = kForm<BlockS24_Q4, -8, 7>;
const BlockForm kFormS24_Q8 = kForm<BlockS24_Q8, -127, 127>;

void DecodeS24_Q4(const void* blocks, float* values, size_t n) {
  Decode<BlockS24_Q4>(blocks, values, n);
}

void DecodeS24_Q8(const void* blocks, float* values, size_t n) {
  Decode<BlockS24_Q8>(blocks, values, n);
}

void EncodeS24_Q4(const float* values, const float* weights, void* blocks, size_t n) {
  static constexpr float kStarts[] = {-8.0f, -7.0f, -7.5f, -8.5f, -9.0f, 6.8f, 7.3f, 7.9f};
  Encode<IntegerGrid<-8, 7>, BlockS24_Q4>(values, weights, blocks, n, kStarts, 2);
}

void EncodeS24_Q8(const float* values, const float* weights, void* blocks, size_t n) {
  static constexpr float kStarts[] = {127.0f, 126.2f, 125.4f, 124.3f, 123.1f, 121.7f};
  Encode<IntegerGrid<-127, 127>, BlockS24_Q8>(values, weights, blocks, n, kStarts, 1);
}

}  // namespace edgewise::quant
