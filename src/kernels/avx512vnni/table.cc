#include "kernels/tables.h"

namespace edgewise::kernels {

constinit const Kernels kAvx512Vnni = {.name = "avx512vnni"};

}  // namespace edgewise::kernels
