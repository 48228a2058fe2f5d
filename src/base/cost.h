// Cost: what a piece of work takes on this machine, estimated before it is done.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "base/process.h"
#include "base/result.h"

namespace edgewise {

struct Cost {
  double seconds = 0;
  uint64_t bytes = 0;  // of memory at its peak, beside what the process has already
};

// Of one after the other.
inline Cost Then(Cost a, Cost b) { return {a.seconds + b.seconds, std::max(a.bytes, b.bytes)}; }

// Runs `work`, which returns a Status. Returns its seconds. Errors: those of `work`.
template <class Work>
Result<double> Seconds(Work work) {
  const double start = NowSeconds();
  EW_TRY(work());
  return NowSeconds() - start;
}

}  // namespace edgewise
