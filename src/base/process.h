// Facts about this process and machine, read from /proc.
#pragma once

#include <cstdint>
#include <string>

namespace edgewise {

struct MemoryUse {
  uint64_t peak_rss_bytes = 0;   // VmHWM: all resident pages at their peak
  uint64_t rss_bytes = 0;        // VmRSS now
  uint64_t anonymous_bytes = 0;  // RssAnon now: without mapped files
};

MemoryUse ReadMemoryUse();
// Gives what the heap holds free back to the system, where the C library can: then rss_bytes tells
// what is in use.
void ReleaseFreeMemory();
// Forgets the peak so far, so that the next reading covers only what follows; false where the
// kernel refuses.
bool ResetPeakRss();

// "AMD EPYC 9555" or what /proc/cpuinfo says; "unknown CPU" otherwise.
std::string CpuModelName();

// Monotonic seconds since an arbitrary start.
double NowSeconds();

}  // namespace edgewise
