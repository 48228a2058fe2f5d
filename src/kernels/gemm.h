// Products of float matrices for training. Both factors are packed, cut into panels of a few rows
// of a or columns of b ("lanes") with their elements along k side by side as the tile of an
// instruction set takes them; a tile of c then stays in registers along k (Goto and van de Geijn
// 2008). All functions are thread-safe.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace edgewise::kernels {

// A piece of one factor: value (lane, i) is from[lane * lane_stride + i * k_stride]; one of the
// strides is 1. `to` is the place of the piece's first element in its panel, 64-byte aligned.
struct GemmPackArgs {
  const float* from;
  size_t lane_stride;  // floats
  size_t k_stride;     // floats
  size_t lanes;        // > 0; begins with a panel, the last panel may be incomplete
  size_t k;            // begins at a multiple of k_step
  char* to;
  size_t panel_stride;  // bytes from one panel to the next
};

// c (rows, columns), rows c_stride floats apart, = a b, plus c before where `accumulate`.
struct GemmBlockArgs {
  const char* a;  // panels of `rows` lanes, a_stride bytes apart
  size_t a_stride;
  const char* b;  // panels of `columns` lanes, b_stride bytes apart
  size_t b_stride;
  size_t rows;
  size_t columns;
  size_t k;  // > 0, as packed: filled up to a multiple of k_step with zeros
  float* c;
  size_t c_stride;
  bool accumulate;
};

// Each element of c is a sum in an order that depends on k alone. Products of BF16 round the
// factors to nearest even while packing and add in F32; subnormals may count as zero.
struct GemmKernel {
  size_t a_lanes = 0;      // rows of a in a panel
  size_t b_lanes = 0;      // columns of b in a panel
  size_t k_step = 0;       // panels hold a multiple of this along k
  size_t value_bytes = 0;  // of a packed value
  size_t max_k = 0;        // the longest k whose panels fit the first cache levels
  void (*pack_a)(const GemmPackArgs& args) = nullptr;
  void (*pack_b)(const GemmPackArgs& args) = nullptr;
  void (*multiply)(const GemmBlockArgs& args) = nullptr;
  // Does the tile's instructions on registers for `rounds` rounds and returns the operations done
  // (a product and a sum are two): their peak, nothing else.
  uint64_t (*products)(uint64_t rounds) = nullptr;
};

}  // namespace edgewise::kernels
