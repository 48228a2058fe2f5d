#include "model/hf_layout.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "model/arch/arch.h"

namespace edgewise {

std::vector<float> MoveHeadRows(const std::vector<float>& values, uint64_t rows, uint32_t heads,
                                bool to_gguf) {
  const uint64_t columns = values.size() / rows, head = rows / heads;
  std::vector<float> moved(values.size());
  for (uint64_t row = 0; row < rows; ++row) {
    const uint64_t halves = HalvesRow(row, head);
    const uint64_t from = to_gguf ? halves : row, to = to_gguf ? row : halves;
    std::copy_n(values.data() + from * columns, columns, moved.data() + to * columns);
  }
  return moved;
}

Result<std::vector<float>> LoadForHf(const Checkpoint& model, const NeededTensor& needed) {
  EW_TRY(const Architecture* architecture, FindArchitecture(model.spec().architecture));
  const auto index = model.Find(needed.name);
  EW_CHECK(index.has_value());  // a checkpoint has what its spec needs
  EW_TRY(const Tensor tensor, model.Load(*index));
  std::vector<float> values(needed.shape.elements());
  tensor.view().Decode(0, values.size(), values.data());
  model.DropPages(*index);
  if (architecture->norms_add_one && IsNorm(needed)) {
    for (float& value : values) value -= 1.0f;
  }
  if (needed.permuted_heads == 0) return values;
  return MoveHeadRows(values, needed.shape[0], needed.permuted_heads, false);
}

}  // namespace edgewise
