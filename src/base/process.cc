#include "base/process.h"

#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace edgewise {
namespace {

struct Close {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, Close>;

}  // namespace

MemoryUse ReadMemoryUse() {
  MemoryUse use;
  const File status(std::fopen("/proc/self/status", "r"));
  char line[256];
  while (status && std::fgets(line, sizeof(line), status.get())) {
    unsigned long long kib = 0;
    if (std::sscanf(line, "VmHWM: %llu", &kib) == 1) use.peak_rss_bytes = kib * 1024;
    if (std::sscanf(line, "VmRSS: %llu", &kib) == 1) use.rss_bytes = kib * 1024;
    if (std::sscanf(line, "RssAnon: %llu", &kib) == 1) use.anonymous_bytes = kib * 1024;
  }
  return use;
}

void ReleaseFreeMemory() {
#ifdef __GLIBC__
  ::malloc_trim(0);
#endif
}

bool ResetPeakRss() {
  const File clear(std::fopen("/proc/self/clear_refs", "w"));
  return clear && std::fputs("5", clear.get()) >= 0 && std::fflush(clear.get()) == 0;
}

std::string CpuModelName() {
  const File info(std::fopen("/proc/cpuinfo", "r"));
  char line[512];
  while (info && std::fgets(line, sizeof(line), info.get())) {
    if (std::strncmp(line, "model name", 10) != 0 && std::strncmp(line, "Model", 5) != 0) continue;
    const char* value = std::strchr(line, ':');
    if (!value) continue;
    std::string name(value + 1);
    while (!name.empty() && (name.back() == '\n' || name.back() == ' ')) name.pop_back();
    return name.substr(
        name.find_first_not_of(' ') == std::string::npos ? 0 : name.find_first_not_of(' '));
  }
  return "unknown CPU";
}

double NowSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace edgewise
