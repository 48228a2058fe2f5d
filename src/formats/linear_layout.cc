#include "formats/linear_layout.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/strings.h"

namespace edgewise {

Status CheckPart(const char* what, const TensorView& part, std::initializer_list<DType> types,
                 const Shape& shape) {
  if (std::find(types.begin(), types.end(), part.dtype) == types.end()) {
    std::vector<std::string> names;
    for (const DType type : types) names.emplace_back(Info(type).name);
    return MakeError(Code::kBadData, "%s has type %s; %s is expected", what, Info(part.dtype).name,
                     Join(names, " or ").c_str());
  }
  if (part.shape != shape) {
    return MakeError(Code::kBadData, "%s has shape %s; %s is expected", what,
                     part.shape.ToString().c_str(), shape.ToString().c_str());
  }
  return Ok{};
}

Result<std::vector<float>> ReadFloatPart(const char* what, const TensorView& part) {
  std::vector<float> values(part.shape.elements());
  part.Decode(0, values.size(), values.data());
  const auto bad =
      std::find_if(values.begin(), values.end(), [](float v) { return !std::isfinite(v); });
  if (bad != values.end()) {
    return MakeError(Code::kBadData, "%s holds %g at %zu", what, static_cast<double>(*bad),
                     static_cast<size_t>(bad - values.begin()));
  }
  return values;
}

}  // namespace edgewise
