#include "compress/quantize/rotate.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/rng.h"
#include "base/strings.h"
#include "compress/quantize/tensor_changes.h"
#include "kernels/kernels.h"

namespace edgewise {
namespace {

using Vector = std::shared_ptr<const std::vector<float>>;

size_t PowerOfTwoIn(size_t n) { return n & (~n + 1); }

// Rows [first, first + count) of (rows, columns) values times the Hadamard matrix from the left, in
// blocks of the largest power of two that divides `count`: kernels.hadamard of every column.
void MixRows(std::span<float> values, size_t columns, size_t first, size_t count) {
  const size_t size = PowerOfTwoIn(count);
  const float factor = 1.0f / std::sqrt(static_cast<float>(size));
  for (size_t block = first; block < first + count; block += size) {
    for (size_t half = 1; half < size; half *= 2) {
      for (size_t i = 0; i < size; ++i) {
        if (i / half % 2 == 1) continue;
        float* a = values.data() + (block + i) * columns;
        float* b = a + half * columns;
        for (size_t c = 0; c < columns; ++c) {
          const float x = a[c], y = b[c];
          a[c] = x + y;
          b[c] = x - y;
        }
      }
    }
  }
  for (size_t i = first * columns; i < (first + count) * columns; ++i) values[i] *= factor;
}

class Rotator {
 public:
  Rotator(const Checkpoint& model, uint64_t seed)
      : model_(model), spec_(model.spec()), changes_(model) {
    Rng rng(seed);
    std::vector<float> signs(spec_.dim);
    for (float& sign : signs) sign = rng.Next() % 2 == 0 ? 1.0f : -1.0f;
    signs_ = std::make_shared<std::vector<float>>(std::move(signs));
  }
  Result<Rotation> Run();

 private:
  Status Into(const std::string& name, const std::string& norm);
  void OutOf(const std::string& stem);
  Status RotateResidual();
  void RotateValues();

  const Checkpoint& model_;
  const ModelSpec& spec_;
  Vector signs_;  // (dim)
  TensorChanges changes_;
};

// A matrix that reads the stream behind `norm` (none: as it is): W diag(gamma) R.
Status Rotator::Into(const std::string& name, const std::string& norm) {
  std::vector<float> by = *signs_;
  if (!norm.empty()) {
    const auto index = model_.Find(norm);
    EW_CHECK(index.has_value());
    EW_TRY(const Tensor gamma, model_.Load(*index));
    std::vector<float> values(spec_.dim);
    gamma.view().DecodeRow(0, values.data());
    for (size_t i = 0; i < by.size(); ++i) by[i] *= values[i];
  }
  changes_.Add(name, [by = std::move(by)](std::span<float> values) {
    ScaleColumns(values, by);
    kernels::Active().hadamard(values.data(), values.size() / by.size(), by.size());
  });
  return Ok{};
}

// A matrix that writes to the stream, and its bias: R^T W.
void Rotator::OutOf(const std::string& stem) {
  changes_.Add(stem + ".weight", [signs = signs_](std::span<float> values) {
    ScaleRows(values, *signs);
    MixRows(values, values.size() / signs->size(), 0, signs->size());
  });
  changes_.Add(stem + ".bias", [signs = signs_](std::span<float> values) {
    ScaleColumns(values, *signs);
    kernels::Active().hadamard(values.data(), 1, values.size());
  });
}

Status Rotator::RotateResidual() {
  const auto ones = [](std::span<float> values) { std::fill(values.begin(), values.end(), 1.0f); };
  EW_TRY(Into("token_embd.weight", ""));
  for (uint32_t layer = 0; layer < spec_.n_layers; ++layer) {
    const std::string prefix = Format("blk.%u.", layer);
    for (const char* stem : {"attn_q", "attn_k", "attn_v", "attn_qkv"}) {
      EW_TRY(Into(prefix + stem + ".weight", prefix + "attn_norm.weight"));
    }
    for (const char* stem : {"ffn_gate", "ffn_up"}) {
      EW_TRY(Into(prefix + stem + ".weight", prefix + "ffn_norm.weight"));
    }
    OutOf(prefix + "attn_output");
    OutOf(prefix + "ffn_down");
    changes_.Add(prefix + "attn_norm.weight", ones);
    changes_.Add(prefix + "ffn_norm.weight", ones);
  }
  EW_TRY(Into("output.weight", "output_norm.weight"));
  changes_.Add("output_norm.weight", ones);
  return Ok{};
}

void Rotator::RotateValues() {
  const size_t dim = spec_.dim, head = spec_.head_dim, kv_heads = spec_.n_kv_heads;
  const size_t first = spec_.fused_qkv ? spec_.q_dim() + spec_.kv_dim() : 0;
  for (uint32_t layer = 0; layer < spec_.n_layers; ++layer) {
    const std::string prefix = Format("blk.%u.", layer);
    const std::string stem = prefix + (spec_.fused_qkv ? "attn_qkv" : "attn_v");
    changes_.Add(stem + ".weight", [=](std::span<float> values) {
      for (size_t h = 0; h < kv_heads; ++h) MixRows(values, dim, first + h * head, head);
    });
    changes_.Add(stem + ".bias", [=](std::span<float> values) {
      kernels::Active().hadamard(values.data() + first, kv_heads, head);
    });
    changes_.Add(prefix + "attn_output.weight", [=](std::span<float> values) {
      kernels::Active().hadamard(values.data(), values.size() / head, head);
    });
  }
}

Result<Rotation> Rotator::Run() {
  Rotation rotation{model_, false, false};
  rotation.residual = !spec_.tied_embeddings && !spec_.post_norms && spec_.norm == NormKind::kRms &&
                      PowerOfTwoIn(spec_.dim) > 1;
  rotation.values = PowerOfTwoIn(spec_.head_dim) > 1;
  if (!rotation.residual && !rotation.values) {
    return MakeError(Code::kUnsupported,
                     "nothing of this model can be rotated: %u columns and heads of %u", spec_.dim,
                     spec_.head_dim);
  }
  if (rotation.residual) EW_TRY(RotateResidual());
  if (rotation.values) RotateValues();
  rotation.model = std::move(changes_).Apply();
  return rotation;
}

}  // namespace

Result<Rotation> Rotate(const Checkpoint& model, uint64_t seed) {
  return Rotator(model, seed).Run();
}

}  // namespace edgewise
