#include "kernels/cpu.h"

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace edgewise::kernels {

#if defined(__x86_64__)

// __builtin_cpu_supports also checks that the OS saves the wide registers (XGETBV).
// Every CPU with AVX2 has F16C, which gcc 12 does not know by name.
bool CpuHasAvx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

bool CpuHasAvxVnni() { return CpuHasAvx2() && __builtin_cpu_supports("avxvnni"); }

bool CpuHasAvx512Vnni() {
  return CpuHasAvx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

bool CpuHasAvx512Vbmi2() { return CpuHasAvx512Vnni() && __builtin_cpu_supports("avx512vbmi2"); }

#else

bool CpuHasAvx2() { return false; }
bool CpuHasAvxVnni() { return false; }
bool CpuHasAvx512Vnni() { return false; }
bool CpuHasAvx512Vbmi2() { return false; }

#endif

#if defined(__aarch64__)

bool CpuHasDotprod() {
  constexpr unsigned long kHwcapAsimdDotprod = 1ul << 20;
  return (getauxval(AT_HWCAP) & kHwcapAsimdDotprod) != 0;
}

bool CpuHasI8mm() {
  constexpr unsigned long kHwcap2I8mm = 1ul << 13;
  return CpuHasDotprod() && (getauxval(AT_HWCAP2) & kHwcap2I8mm) != 0;
}

#else

bool CpuHasDotprod() { return false; }
bool CpuHasI8mm() { return false; }

#endif

}  // namespace edgewise::kernels
