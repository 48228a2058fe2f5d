#include "kernels/tables.h"

namespace edgewise::kernels {

constinit const Kernels kNeon = {.name = "neon"};

}  // namespace edgewise::kernels
