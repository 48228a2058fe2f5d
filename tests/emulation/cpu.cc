// Stands in for kernels/cpu.cc where levels are emulated: those run.
#include "kernels/cpu.h"

namespace edgewise::kernels {

bool CpuHasAvx2() { return true; }
bool CpuHasAvxVnni() { return true; }
bool CpuHasAvx512Vnni() { return true; }
bool CpuHasAvx512Vbmi2() { return true; }
bool CpuHasAvx512Bf16() { return false; }  // neither of these two is
bool CpuHasAmx() { return false; }
bool CpuHasDotprod() { return false; }
bool CpuHasI8mm() { return false; }

}  // namespace edgewise::kernels
