#include "kernels/tables.h"

namespace edgewise::kernels {

constinit const Kernels kDotprod = {.name = "dotprod"};

}  // namespace edgewise::kernels
