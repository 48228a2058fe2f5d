// What this CPU and operating system can run.
#pragma once

namespace edgewise::kernels {

bool CpuHasAvx2();        // AVX2, FMA, F16C, and ymm state enabled by the OS
bool CpuHasAvx512Vnni();  // AVX-512 F, BW, DQ, VL, VNNI, and zmm state enabled by the OS
bool CpuHasDotprod();     // Armv8.2 SDOT and UDOT

}  // namespace edgewise::kernels
