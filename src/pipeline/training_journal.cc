#include "pipeline/training_journal.h"

#include <algorithm>
#include <utility>

#include "base/file.h"
#include "base/json.h"
#include "pipeline/output_path.h"

namespace edgewise {
namespace {

using train::TrainerState;

constexpr uint64_t kMaxLogBytes = uint64_t{1} << 30;
constexpr double kSaveSeconds = 300;  // a state is never older, however long steps take

Json LogLine(const train::StepReport& report) {
  Json line{JsonObject{}};
  line.Set("step", report.step).Set("loss", report.loss);
  if (report.layer_loss != 0) line.Set("layer_loss", report.layer_loss);
  line.Set("gradient_norm", report.gradient_norm).Set("learning_rate", report.learning_rate);
  line.Set("tokens", report.tokens).Set("seconds", report.seconds);
  if (report.held_out) line.Set("held_out_loss", *report.held_out);
  if (report.held_out_divergence) line.Set("held_out_kl", *report.held_out_divergence);
  if (report.skipped) line.Set("skipped", true);
  return line;
}

}  // namespace

TrainingJournal::TrainingJournal(const std::string& folder, std::string run, uint64_t save_every)
    : state_path_(folder + "/state.gguf"),
      log_path_(folder + "/log.jsonl"),
      run_(std::move(run)),
      save_every_(save_every) {}

Status TrainingJournal::Load(TrainerState* state) {
  if (!FileExists(state_path_)) return Ok{};
  EW_TRY(TrainerState kept, train::LoadState(state_path_, run_, state->weights.size()));
  *state = std::move(kept);
  EW_TRY(const std::string text, ReadFile(log_path_, kMaxLogBytes));
  for (size_t begin = 0; lines_ < state->step && begin < text.size(); ++lines_) {
    const size_t end = std::min(text.find('\n', begin), text.size() - 1) + 1;
    log_.append(text, begin, end - begin);
    begin = end;
  }
  return Ok{};
}

Status TrainingJournal::OnStep(const train::StepReport& report, const TrainerState& state) {
  log_ += LogLine(report).Dump() + "\n";
  ++lines_;
  tokens_ += report.tokens;
  seconds_ += report.seconds;
  skipped_ += report.skipped;
  const bool due = save_every_ > 0 && report.step % save_every_ == 0;
  return due || NowSeconds() - saved_ > kSaveSeconds ? Save(state) : Status(Ok{});
}

Status TrainingJournal::Save(const TrainerState& state) {
  EW_TRY(WriteTextFile(log_path_, log_));
  saved_ = NowSeconds();
  return train::SaveState(state, run_, state_path_);
}

}  // namespace edgewise
