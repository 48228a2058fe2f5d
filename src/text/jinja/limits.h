// Bounds on what one template may cost, whatever it says.
#pragma once

#include <cstdint>

namespace edgewise {

struct JinjaLimits {
  uint64_t max_steps = 1'000'000;  // one per evaluated node, list element and 256 bytes of text
  uint64_t max_output_bytes = 16u << 20;  // of the output, and of any one string
  int max_depth = 64;                     // nested constructs, macro calls, nested values
  uint64_t max_template_bytes = 1u << 20;
};

}  // namespace edgewise
