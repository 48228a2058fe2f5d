#include "kernels/tables.h"

namespace edgewise::kernels {

constinit const Kernels kAvx2 = {.name = "avx2"};

}  // namespace edgewise::kernels
