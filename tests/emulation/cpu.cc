// Stands in for kernels/cpu.cc where every level is emulated: all of them run.
#include "kernels/cpu.h"

namespace edgewise::kernels {

bool CpuHasAvx2() { return true; }
bool CpuHasAvxVnni() { return true; }
bool CpuHasAvx512Vnni() { return true; }
bool CpuHasAvx512Vbmi2() { return true; }
bool CpuHasDotprod() { return false; }
bool CpuHasI8mm() { return false; }

}  // namespace edgewise::kernels
