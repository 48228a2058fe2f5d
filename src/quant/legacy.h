// Encoding of the formats with one scale for 32 stored values: legacy types, IQ4_NL and S24.
#pragma once

#include <algorithm>

#include "base/half.h"
#include "quant/scale_search.h"

namespace edgewise::quant {

// Eight blocks of 32 ready for a search, with the scale that each was multiplied by.
struct BlockTile {
  Tile<32> tile;
  PowerOfTwo power[kLanes];
};

// Fills a tile from `n` values, a multiple of 32; lanes beyond them get zeros.
void FillBlocks(const float* values, const float* weights, size_t n, BlockTile& out);
// Rounds each lane's scale to a half and back: `halves` for the file, the result for the tile.
Floats RoundToHalves(Floats values, const BlockTile& blocks, uint16_t* halves);

// Encodes x = d * q blocks: `pack(block, values)` stores 32 grid values. starts[0] is plain
// rounding's scale, which stays where the rounding of d to a half spoils the fitted one.
template <class Grid, class Block, size_t kStarts, class Pack>
void EncodeType0(const float* values, const float* weights, void* out, size_t n,
                 const float (&starts)[kStarts], int ascents, Pack pack) {
  Block* block = static_cast<Block*>(out);
  for (size_t i = 0; i < n; i += 32 * kLanes) {
    const size_t count = std::min<size_t>(n - i, 32 * kLanes);
    BlockTile b;
    FillBlocks(values + i, weights == nullptr ? nullptr : weights + i, count, b);
    const Floats plain = Extreme(b.tile) * Splat(1.0f / starts[0]);
    uint16_t halves[kLanes], plain_halves[kLanes];
    const Floats fitted = RoundToHalves(SearchScale<Grid>(b.tile, starts, ascents).d, b, halves);
    const Floats rounded = RoundToHalves(plain, b, plain_halves);
    float gain[kLanes];
    const Floats fitted_error = FixedError<Grid>(b.tile, fitted, Splat(0.0f));
    const Floats plain_error = FixedError<Grid>(b.tile, rounded, Splat(0.0f));
    Store(plain_error - fitted_error, gain);
    int8_t q[kLanes][32];
    Quantize<Grid>(b.tile, Select(plain_error < fitted_error, rounded, fitted), Splat(0.0f), q);
    for (int lane = 0; lane < static_cast<int>(count / 32); ++lane, ++block) {
      block->d = gain[lane] < 0 ? plain_halves[lane] : halves[lane];
      pack(*block, q[lane]);
    }
  }
}

}  // namespace edgewise::quant
