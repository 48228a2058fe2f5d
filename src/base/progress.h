// Progress: how long work tells its caller where it is, and learns that it should stop. The library
// never prints.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace edgewise {

// Implemented by the command line (a bar on stderr) and by tests. Update is called from the thread
// that does the work, Cancelled from any.
class Progress {
 public:
  virtual ~Progress() = default;
  // `done` of `total` units of `stage` are finished; total 0 means unknown.
  virtual void Update(std::string_view stage, uint64_t done, uint64_t total) = 0;
  // True when the work should stop with kCancelled. Checked between units.
  virtual bool Cancelled() const { return false; }
};

// Reports nothing, is never cancelled.
class NoProgress final : public Progress {
 public:
  void Update(std::string_view, uint64_t, uint64_t) override {}
};

}  // namespace edgewise
