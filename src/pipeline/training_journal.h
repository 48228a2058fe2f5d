// The log and the state of a training run, kept in its journal's folder.
#pragma once

#include <cstdint>
#include <string>

#include "base/process.h"
#include "base/result.h"
#include "train/trainer.h"

namespace edgewise {

// Not thread-safe.
class TrainingJournal final : public train::TrainingObserver {
 public:
  // `run` tells runs apart (train::SaveState). The state is saved every `save_every` steps, 0 for
  // never, and where the last one is five minutes old.
  TrainingJournal(const std::string& folder, std::string run, uint64_t save_every);

  // Takes up the state of a run that stopped, if there is one. The log of steps after it is left
  // out. Errors: those of train::LoadState and ReadFile.
  Status Load(train::TrainerState* state);
  // Errors: those of Save.
  Status OnStep(const train::StepReport& report, const train::TrainerState& state) override;
  // The log first: it may be ahead of the state, never behind it. Errors: those of AtomicFile and
  // train::SaveState.
  Status Save(const train::TrainerState& state);

  const std::string& log() const { return log_; }  // a line of JSON for each step
  double tokens_per_s() const { return seconds_ > 0 ? static_cast<double>(tokens_) / seconds_ : 0; }
  uint64_t skipped() const { return skipped_; }  // steps of this process

 private:
  std::string state_path_, log_path_, run_;
  uint64_t save_every_;
  std::string log_;
  uint64_t lines_ = 0, tokens_ = 0, skipped_ = 0;
  double seconds_ = 0;
  double saved_ = NowSeconds();
};

}  // namespace edgewise
