#include "pipeline/step_shape.h"

#include <map>
#include <string>
#include <utility>

#include "base/strings.h"
#include "model/layer_stream.h"

namespace edgewise {

StepShape ShapeOf(const ModelSpec& spec, std::span<const ConvertedTensor> tensors) {
  const std::string output = spec.tied_embeddings ? "token_embd.weight" : "output.weight";
  std::map<std::string, LinearGroup> groups;
  StepShape shape;
  for (const ConvertedTensor& tensor : tensors) {
    const bool looked_up = tensor.name == "token_embd.weight" && !spec.tied_embeddings;
    if (!looked_up) shape.resident_bytes += tensor.bytes;
    if (tensor.shape.rank() != 2 || looked_up) continue;
    std::string key = tensor.name;  // "blk.N.STEM.weight"
    if (key != output) {
      const auto parts = Split(tensor.name, ".");
      if (parts.size() != 4 || parts[0] != "blk") continue;
      key = Format("%s.%d", std::string(parts[1]).c_str(), static_cast<int>(InputOf(parts[2])));
    }
    groups[key].push_back({tensor.to, tensor.shape.rows(), tensor.shape.columns()});
  }
  for (auto& [key, group] : groups) {
    shape.read_bytes += GroupBytes(group);
    shape.groups.push_back(std::move(group));
  }
  return shape;
}

Result<double> LinearSeconds(const StepShape& shape, LinearTimer* timer) {
  double seconds = 0;
  for (const LinearGroup& group : shape.groups) {
    EW_TRY(const double each, timer->Seconds(group, shape.read_bytes));
    seconds += each;
  }
  return seconds;
}

}  // namespace edgewise
