// Changes of the weights of a model that leave its function as it is, collected tensor by tensor.
#pragma once

#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "model/checkpoint.h"

namespace edgewise {

// Row r of (by.size(), columns) values times by[r].
inline void ScaleRows(std::span<float> values, const std::vector<float>& by) {
  const size_t columns = values.size() / by.size();
  for (size_t i = 0; i < values.size(); ++i) values[i] *= by[i / columns];
}
// Column c of (rows, by.size()) values times by[c].
inline void ScaleColumns(std::span<float> values, const std::vector<float>& by) {
  for (size_t i = 0; i < values.size(); ++i) values[i] *= by[i % by.size()];
}

// Not thread-safe; what Apply returns is.
class TensorChanges {
 public:
  explicit TensorChanges(const Checkpoint& model) : model_(model) {}
  // Adds a step after those of tensor `name`, where the model has it.
  void Add(const std::string& name, TensorChange step) {
    const auto index = model_.Find(name);
    if (!index) return;
    TensorChange& change = changes_[*index];
    change = Then(std::move(change), std::move(step));
  }
  // The changed model; its changed tensors are F32.
  Checkpoint Apply() && { return model_.Changed(std::move(changes_)); }

 private:
  Checkpoint model_;
  std::unordered_map<size_t, TensorChange> changes_;
};

}  // namespace edgewise
