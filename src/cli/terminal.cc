#include "cli/terminal.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include "base/file.h"
#include "base/process.h"
#include "base/strings.h"

namespace edgewise::cli {
namespace {

volatile sig_atomic_t interruptible = 0;
volatile sig_atomic_t interrupted = 0;

extern "C" void HandleSignal(int signal) {
  if (signal == SIGINT && interruptible && !interrupted) {
    interrupted = 1;
    return;
  }
  RemoveTemporaryFiles();
  ::_exit(128 + signal);
}

class SilentProgress final : public Progress {
 public:
  void Update(std::string_view, uint64_t, uint64_t) override {}
  bool Cancelled() const override { return InterruptScope::Interrupted(); }
};

class ProgressBar final : public Progress {
 public:
  ~ProgressBar() override { Clear(); }
  bool Cancelled() const override { return InterruptScope::Interrupted(); }

  void Update(std::string_view stage, uint64_t done, uint64_t total) override {
    const double now = NowSeconds();
    if (stage != stage_) {
      stage_ = std::string(stage);
      started_ = now;
      drawn_ = 0;
    }
    if (done >= total && total > 0) {
      Clear();
      return;
    }
    if (now - drawn_ < 0.1) return;
    drawn_ = now;
    Draw(done, total, now - started_);
  }

 private:
  static constexpr int kCells = 30;

  void Draw(uint64_t done, uint64_t total, double elapsed) {
    std::string line = "\r\x1B[K" + stage_;
    if (total > 0) {
      const double share = static_cast<double>(done) / static_cast<double>(total);
      const int full = std::clamp(static_cast<int>(share * kCells), 0, kCells);
      line += " [" + std::string(static_cast<size_t>(full), '#') +
              std::string(static_cast<size_t>(kCells - full), '.');
      line += Format("] %3.0f %%", share * 100);
      if (done > 0 && elapsed > 0.5)
        line += "  " + FormatSeconds(elapsed / share - elapsed) + " left";
    } else {
      line += Format(" %llu", static_cast<unsigned long long>(done));
    }
    std::fputs(line.c_str(), stderr);
    std::fflush(stderr);
    visible_ = true;
  }

  void Clear() {
    if (visible_) std::fputs("\r\x1B[K", stderr);
    visible_ = false;
  }

  std::string stage_;
  double started_ = 0, drawn_ = 0;
  bool visible_ = false;
};

}  // namespace

void InstallSignalHandlers() {
  struct sigaction action = {};
  action.sa_handler = HandleSignal;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
}

InterruptScope::InterruptScope() {
  interrupted = 0;
  interruptible = 1;
}
InterruptScope::~InterruptScope() { interruptible = 0; }
bool InterruptScope::Interrupted() { return interrupted != 0; }

std::unique_ptr<Progress> MakeProgressBar(bool quiet) {
  if (quiet || ::isatty(STDERR_FILENO) == 0) return std::make_unique<SilentProgress>();
  return std::make_unique<ProgressBar>();
}

}  // namespace edgewise::cli
