#include "model/lora_adapter.h"

#include <memory>
#include <span>
#include <unordered_map>
#include <utility>

#include "base/strings.h"

namespace edgewise {
namespace {

// values (out, in) += scale * B A.
void AddProduct(const LoraPair& pair, float scale, bool keep_zeros, std::span<float> values) {
  std::vector<float> sum(pair.in);
  for (uint64_t row = 0; row < pair.out; ++row) {
    std::fill(sum.begin(), sum.end(), 0.0f);
    for (uint64_t r = 0; r < pair.rank; ++r) {
      const float factor = scale * pair.b[row * pair.rank + r];
      const float* a = pair.a.data() + r * pair.in;
      for (uint64_t i = 0; i < pair.in; ++i) sum[i] += factor * a[i];
    }
    float* to = values.data() + row * pair.in;
    for (uint64_t i = 0; i < pair.in; ++i) {
      if (!keep_zeros || to[i] != 0) to[i] += sum[i];
    }
  }
}

}  // namespace

Result<Checkpoint> MergeAdapter(const Checkpoint& model, LoraAdapter adapter, bool keep_zeros) {
  const auto shared = std::make_shared<const LoraAdapter>(std::move(adapter));
  std::unordered_map<size_t, TensorChange> changes;
  for (const LoraPair& pair : shared->pairs) {
    const auto index = model.Find(pair.weight);
    if (!index) {
      return MakeError(Code::kInvalidArgument,
                       "the adapter changes %s, which %s does not have: it is of another model",
                       pair.weight.c_str(), model.path().c_str());
    }
    const Shape& shape = model.tensors()[*index].shape;
    if (shape != Shape{pair.out, pair.in}) {
      return MakeError(Code::kInvalidArgument,
                       "the adapter changes a %s of [%llu, %llu], that of %s is %s: it is of "
                       "another model",
                       pair.weight.c_str(), static_cast<unsigned long long>(pair.out),
                       static_cast<unsigned long long>(pair.in), model.path().c_str(),
                       shape.ToString().c_str());
    }
    const auto scale = static_cast<float>(shared->alpha / static_cast<double>(pair.rank));
    changes.emplace(*index, [shared, &pair, scale, keep_zeros](std::span<float> values) {
      AddProduct(pair, scale, keep_zeros, values);
    });
  }
  return model.Changed(std::move(changes));
}

}  // namespace edgewise
