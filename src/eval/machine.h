// What this machine can do at most: the yardstick of `bench` and `doctor`.
#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"
#include "base/result.h"
#include "base/thread_pool.h"

namespace edgewise {

struct MachineLimits {
  double read_bytes_per_s = 0;  // memory read by all threads of the pool together
  double int8_ops_per_s = 0;    // multiplications and additions of the active kernel table
  int threads = 0;
  std::string how;  // what was measured, in words, for reports
};

struct MachineOptions {
  uint64_t buffer_bytes = 512ull << 20;  // read buffer; must be far larger than the last cache
  int repetitions = 5;                   // the median counts
  double int8_seconds = 0.05;            // at least, per repetition
};

// Measures for about a second. Errors: kInvalidArgument (a buffer below 1 MiB, no repetitions),
// kOutOfMemory.
Result<MachineLimits> MeasureMachine(ThreadPool* pool, const MachineOptions& options = {});

// Facts for reports: CPU, threads, kernel table, system.
struct MachineDescription {
  std::string cpu;
  std::string isa;     // the active kernel table
  std::string system;  // "Linux 6.1.0 x86_64"
  int cpus = 0;        // that this process may use
  uint64_t memory_bytes = 0;
};
MachineDescription DescribeMachine();

Json ToJson(const MachineLimits& limits);
Json ToJson(const MachineDescription& machine);

}  // namespace edgewise
