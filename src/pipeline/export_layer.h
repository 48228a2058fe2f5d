// One linear layer on its way to another tool's layout: which tensors stand for it, and their
// bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "formats/safetensors_writer.h"
#include "tensor/tensor.h"

namespace edgewise {

enum class ExportTarget : uint8_t { kGptq, kAwq, kBnbNf4, kBnbInt8 };

struct LayerFormat {
  ExportTarget target = ExportTarget::kGptq;
  uint32_t bits = 4;          // kGptq: 2, 3, 4 or 8; others have one size
  uint64_t group_size = 128;  // kGptq, kAwq: columns; 0: one group of all columns
  bool symmetric = true;      // kGptq: zero points in the middle of the codes
};

// Errors: kUnsupported (the layout cannot hold a matrix of this shape).
Status CheckLayer(const LayerFormat& format, const Shape& shape);

// The tensors that stand for "stem.weight" of `shape`, which CheckLayer accepts.
std::vector<SafetensorsDecl> LayerParts(const LayerFormat& format, const std::string& stem,
                                        const Shape& shape);

struct EncodedLayer {
  std::vector<std::vector<std::byte>> parts;  // in the order of LayerParts
  double squared_error = 0;                   // of the decoded values
};

// Encodes finite `values` of `shape` (rows, columns), by least squares weighted by `weights`
// (columns; null: 1 each; bitsandbytes' formats have no choice to weight). The result does not
// depend on the pool's size.
EncodedLayer EncodeLayer(const LayerFormat& format, const Shape& shape,
                         std::span<const float> values, const float* weights, ThreadPool* pool);

}  // namespace edgewise
