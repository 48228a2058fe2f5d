#include "kernels/cpu.h"

#if defined(__aarch64__)
#include <sys/auxv.h>
#elif defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
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
bool CpuHasAvx512Bf16() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned kAvx512Bf16 = 1u << 5;
  return CpuHasAvx512Vnni() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) &&
         (eax & kAvx512Bf16) != 0;
}

// Linux gives a process tile registers when it asks for them (arch/x86/xstate.rst); kernels that do
// not know the request leave their bits of XCR0 clear.
bool CpuHasAmx() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned kOsxsave = 1u << 27, kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  constexpr unsigned kTileState = 3u << 17;
  if (!CpuHasAvx512Bf16()) return false;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || (ecx & kOsxsave) == 0) return false;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
  if ((edx & kAmxBf16) == 0 || (edx & kAmxTile) == 0) return false;
  asm("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
  if ((eax & kTileState) != kTileState) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

#else

bool CpuHasAvx2() { return false; }
bool CpuHasAvxVnni() { return false; }
bool CpuHasAvx512Vnni() { return false; }
bool CpuHasAvx512Vbmi2() { return false; }
bool CpuHasAvx512Bf16() { return false; }
bool CpuHasAmx() { return false; }

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
