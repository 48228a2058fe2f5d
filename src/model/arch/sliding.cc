#include "model/arch/sliding.h"

#include <algorithm>

#include "base/strings.h"

namespace edgewise {
namespace {

bool Fits(const std::vector<bool>& slides, uint32_t period) {
  for (size_t layer = 0; layer < slides.size(); ++layer) {
    const bool expected = period == 1 || (period > 1 && (layer + 1) % period != 0);
    if (slides[layer] != expected) return false;
  }
  return true;
}

}  // namespace

Status SetSlidingPattern(const std::vector<bool>& slides, uint32_t window, uint32_t default_period,
                         ModelSpec* spec) {
  if (Fits(slides, default_period)) {
    SetSliding(window, default_period, spec);
    return Ok{};
  }
  for (uint32_t period = 0; period <= slides.size(); ++period) {
    if (!Fits(slides, period)) continue;
    SetSliding(window, period, spec);
    return Ok{};
  }
  return MakeError(Code::kUnsupported,
                   "the layers with a sliding window follow no period of the form: every p-th "
                   "layer sees everything");
}

}  // namespace edgewise
