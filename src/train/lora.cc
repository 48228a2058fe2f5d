#include "train/lora.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "base/rng.h"
#include "base/strings.h"
#include "train/parameters.h"

namespace edgewise::train {
namespace {

constexpr uint32_t kMaxRank = 1u << 16;

struct Target {
  const char* name;
  const char* tensor;
  Product product;
  bool ModelSpec::* fused = nullptr;  // what decides whether a model has it
  bool when = false;
};
constexpr Target kTargets[] = {
    {"q", "attn_q", Product::kQkv, &ModelSpec::fused_qkv, false},
    {"k", "attn_k", Product::kQkv, &ModelSpec::fused_qkv, false},
    {"v", "attn_v", Product::kQkv, &ModelSpec::fused_qkv, false},
    {"qkv", "attn_qkv", Product::kQkv, &ModelSpec::fused_qkv, true},
    {"o", "attn_output", Product::kOutput},
    {"gate", "ffn_gate", Product::kGateUp, &ModelSpec::fused_gate_up, false},
    {"up", "ffn_up", Product::kGateUp, &ModelSpec::fused_gate_up, false},
    {"gate_up", "ffn_up", Product::kGateUp, &ModelSpec::fused_gate_up, true},
    {"down", "ffn_down", Product::kDown},
};

bool Has(const ModelSpec& spec, const Target& target) {
  return target.fused == nullptr || spec.*target.fused == target.when;
}

const Target* FindTarget(const std::string& name) {
  const auto* found = std::find_if(std::begin(kTargets), std::end(kTargets),
                                   [&](const Target& target) { return target.name == name; });
  return found == std::end(kTargets) ? nullptr : found;
}

// The names of all targets, or of those that a model has.
std::string TargetNames(const ModelSpec* spec) {
  std::string names;
  for (const Target& target : kTargets) {
    if (spec != nullptr && !Has(*spec, target)) continue;
    names += (names.empty() ? "" : ", ") + std::string(target.name);
  }
  return names;
}

bool Wants(const LoraOptions& options, const Target& target) {
  const std::vector<std::string>& names = options.targets;
  return names.empty() || std::find(names.begin(), names.end(), target.name) != names.end();
}

const Parameter* FindParameter(const ParameterLayout& layout, const std::string& name) {
  for (const Parameter& parameter : layout.all()) {
    if (parameter.name == name) return &parameter;
  }
  return nullptr;
}

size_t OffsetOf(const LayerOffsets& at, Product product) {
  switch (product) {
    case Product::kQkv:
      return at.qkv;
    case Product::kOutput:
      return at.output;
    case Product::kGateUp:
      return at.gate_up;
    case Product::kDown:
      return at.down;
  }
  return kNoParameter;
}

}  // namespace

Status CheckLora(const LoraOptions& options) {
  if (options.rank > kMaxRank) {
    return MakeError(Code::kInvalidArgument, "LoRA's rank must be at most %u, not %u", kMaxRank,
                     options.rank);
  }
  if (!(options.alpha > 0 && std::isfinite(options.alpha))) {
    return MakeError(Code::kInvalidArgument, "LoRA's alpha must be above 0, not %g", options.alpha);
  }
  if (!(options.dropout >= 0 && options.dropout < 1)) {
    return MakeError(Code::kInvalidArgument, "LoRA's dropout must be from 0 to below 1, not %g",
                     options.dropout);
  }
  for (const std::string& name : options.targets) {
    if (FindTarget(name) != nullptr) continue;
    return MakeError(Code::kInvalidArgument, "LoRA target %s: %s are known", Quote(name).c_str(),
                     TargetNames(nullptr).c_str());
  }
  return Ok{};
}

Result<LoraLayout> LoraLayout::Create(const ModelSpec& spec, const LoraOptions& options) {
  EW_TRY(CheckLora(options));
  for (const std::string& name : options.targets) {
    if (Has(spec, *FindTarget(name))) continue;
    return MakeError(Code::kInvalidArgument,
                     "LoRA target %s: this model keeps these matrices another way; its targets are "
                     "%s",
                     Quote(name).c_str(), TargetNames(&spec).c_str());
  }
  const ParameterLayout parameters(spec);
  LoraLayout layout;
  layout.rank_ = options.rank;
  layout.products_.resize(spec.n_layers * kProducts);
  for (uint32_t l = 0; l < spec.n_layers; ++l) {
    for (const Target& target : kTargets) {
      if (!Has(spec, target) || !Wants(options, target)) continue;
      const std::string name = Format("blk.%u.%s.weight", l, target.tensor);
      const Parameter* matrix = FindParameter(parameters, name);
      EW_CHECK(matrix != nullptr);
      const size_t columns = matrix->shape.columns();
      const size_t before = matrix->offset - OffsetOf(parameters.layer(l), target.product);
      layout.products_[l * kProducts + static_cast<size_t>(target.product)].parts.push_back(
          {name, before / columns, matrix->shape.rows(), columns, 0, 0});
    }
  }
  for (ProductLora& product : layout.products_) {
    for (LoraPart& part : product.parts) {
      part.a = layout.size_;
      layout.size_ += part.columns * options.rank;
    }
    for (LoraPart& part : product.parts) {
      part.b = layout.size_;
      layout.size_ += part.rows * options.rank;
    }
  }
  return layout;
}

std::vector<float> FirstAdapters(const LoraLayout& layout, uint64_t seed) {
  std::vector<float> values(layout.size());
  Rng rng(seed);
  for (const ProductLora& product : layout.all()) {
    for (const LoraPart& part : product.parts) {
      const double bound = 1 / std::sqrt(static_cast<double>(part.columns));
      std::generate_n(values.begin() + static_cast<std::ptrdiff_t>(part.a),
                      part.columns * layout.rank(),
                      [&] { return static_cast<float>(bound * (2 * rng.Uniform() - 1)); });
    }
  }
  return values;
}

LoraAdapter ToAdapter(const LoraLayout& layout, const LoraOptions& options,
                      std::span<const float> values) {
  LoraAdapter adapter;
  adapter.alpha = options.alpha;
  const auto copy = [&](size_t first, size_t count) {
    const std::span<const float> run = values.subspan(first, count);
    return std::vector<float>(run.begin(), run.end());
  };
  for (const ProductLora& product : layout.all()) {
    for (const LoraPart& part : product.parts) {
      adapter.pairs.push_back({.weight = part.weight,
                               .rank = layout.rank(),
                               .in = part.columns,
                               .out = part.rows,
                               .a = copy(part.a, part.columns * layout.rank()),
                               .b = copy(part.b, part.rows * layout.rank())});
    }
  }
  return adapter;
}

}  // namespace edgewise::train
