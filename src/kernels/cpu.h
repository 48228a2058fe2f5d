// What this CPU and operating system can run.
#pragma once

namespace edgewise::kernels {

bool CpuHasAvx2();         // AVX2, FMA, F16C, and ymm state enabled by the OS
bool CpuHasAvxVnni();      // AVX2 as above and AVX-VNNI
bool CpuHasAvx512Vnni();   // AVX-512 F, BW, DQ, VL, VNNI, and zmm state enabled by the OS
bool CpuHasAvx512Vbmi2();  // as AVX-512 VNNI, and VBMI2
bool CpuHasAvx512Bf16();   // as AVX-512 VNNI, and AVX512_BF16
bool CpuHasAmx();          // as BF16, and AMX-TILE and AMX-BF16; asks the OS for tile registers
bool CpuHasDotprod();      // Armv8.2 SDOT and UDOT
bool CpuHasI8mm();         // SDOT and Armv8.6 SMMLA

}  // namespace edgewise::kernels
