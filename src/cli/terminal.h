// Signals and the progress bar: the parts of the program that know about a terminal.
#pragma once

#include <memory>

#include "base/progress.h"

namespace edgewise::cli {

// SIGINT and SIGTERM remove unfinished output files and end the process with 130 or 143. SIGPIPE is
// ignored, so that a closed pipe shows as a write error.
void InstallSignalHandlers();

// While one of these lives, the first SIGINT only sets Interrupted(); a second one ends the process
// as usual.
class InterruptScope {
 public:
  InterruptScope();
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;
  static bool Interrupted();
};

// A bar with ETA on stderr when that is a terminal and `quiet` is false; nothing otherwise.
std::unique_ptr<Progress> MakeProgressBar(bool quiet);

}  // namespace edgewise::cli
