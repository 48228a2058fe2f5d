// LoRA (Hu et al. 2021): W stays what it is, and y = W x + (alpha / rank) B A drop(x) is learned by
// two thin matrices, A (rank, in) and B (out, rank).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/lora_adapter.h"
#include "model/spec.h"

namespace edgewise::train {

struct LoraOptions {
  uint32_t rank = 0;  // 0: no adapters, all weights are learned
  double alpha = 16;
  double dropout = 0;  // share of the adapters' inputs, the same for all that have one input
  // Of "q", "k", "v", "o", "gate", "up", "down"; "qkv" and "gate_up" where a file has these in one
  // tensor. Empty: all linear layers.
  std::vector<std::string> targets = {};

  float scale() const { return static_cast<float>(alpha / rank); }
};
// Errors: kInvalidArgument (a value out of range, an unknown target).
Status CheckLora(const LoraOptions& options);

// The products of a layer. Matrices with one input are one product.
enum class Product : uint8_t { kQkv, kOutput, kGateUp, kDown };
inline constexpr Product kAllProducts[] = {Product::kQkv, Product::kOutput, Product::kGateUp,
                                           Product::kDown};
inline constexpr size_t kProducts = 4;

// The adapter of one matrix.
struct LoraPart {
  std::string weight;      // GGUF: "blk.0.attn_q.weight"
  size_t first_row, rows;  // of the product's output
  size_t columns;          // of its input
  size_t a, b;             // where they begin in the run, in floats
};
// Those of a product. Their A lie one behind the other: (parts.size() * rank, columns).
struct ProductLora {
  std::vector<LoraPart> parts;
  size_t a() const { return parts.front().a; }
};

// The order of all adapters of a model in one run of floats. Immutable.
class LoraLayout {
 public:
  // Errors: kInvalidArgument (a target that this model does not have, with those that it has).
  static Result<LoraLayout> Create(const ModelSpec& spec, const LoraOptions& options);

  size_t size() const { return size_; }  // floats
  uint32_t rank() const { return rank_; }
  const ProductLora& of(uint32_t layer, Product product) const {
    return products_[layer * kProducts + static_cast<size_t>(product)];
  }
  std::span<const ProductLora> all() const { return products_; }

 private:
  std::vector<ProductLora> products_;
  size_t size_ = 0;
  uint32_t rank_ = 0;
};

// Returns adapters that change nothing yet: A uniform in +-1/sqrt(in), which is PEFT's
// kaiming_uniform_ with a = sqrt(5), and B zero. The same seed gives the same on every machine.
std::vector<float> FirstAdapters(const LoraLayout& layout, uint64_t seed);

// Returns what `values`, in the order of the layout, hold.
LoraAdapter ToAdapter(const LoraLayout& layout, const LoraOptions& options,
                      std::span<const float> values);

}  // namespace edgewise::train
