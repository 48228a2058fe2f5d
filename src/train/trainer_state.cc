// The state of a training run as a GGUF file.
#include <algorithm>
#include <utility>

#include "base/strings.h"
#include "formats/gguf.h"
#include "train/trainer.h"

namespace edgewise::train {
namespace {

constexpr const char* kArchitecture = "edgewise-training";  // no model: other readers refuse it
constexpr uint32_t kVersion = 1;

struct Part {
  const char* name;
  std::vector<float> TrainerState::* values;
  bool optional;
};
constexpr Part kParts[] = {{"weights", &TrainerState::weights, false},
                           {"adam.mean", &TrainerState::mean, false},
                           {"adam.variance", &TrainerState::variance, false},
                           {"ema", &TrainerState::ema, true},
                           {"best", &TrainerState::best, true}};

}  // namespace

Status SaveState(const TrainerState& state, const std::string& run, const std::string& path) {
  Metadata metadata;
  metadata.Set("general.architecture", std::string(kArchitecture));
  metadata.Set("training.version", kVersion);
  metadata.Set("training.run", run);
  metadata.Set("training.step", state.step);
  metadata.Set("training.updates", state.updates);
  metadata.Set("training.skipped", state.skipped);
  metadata.Set("training.epoch", state.position.epoch);
  metadata.Set("training.document", state.position.document);
  metadata.Set("training.token", state.position.token);
  metadata.Set("training.best_loss", state.best_loss);
  metadata.Set("training.evaluations", state.evaluations);
  metadata.Set("training.without_better", state.without_better);
  metadata.Set("training.finished", state.finished);
  std::vector<GgufTensorDecl> tensors;
  for (const Part& part : kParts) {
    const std::vector<float>& values = state.*part.values;
    if (!values.empty()) tensors.push_back({part.name, DType::kF32, Shape{values.size()}});
  }
  EW_TRY(GgufWriter writer, GgufWriter::Create(path, true, metadata, std::move(tensors)));
  for (const Part& part : kParts) {
    const std::vector<float>& values = state.*part.values;
    if (!values.empty()) EW_TRY(writer.Write(std::as_bytes(std::span(values))));
  }
  return writer.Finish();
}

Result<TrainerState> LoadState(const std::string& path, const std::string& run, size_t parameters) {
  EW_TRY(const GgufFile file, GgufFile::Open(path));
  const Metadata& metadata = file.metadata();
  EW_TRY(const std::string kind, metadata.GetString("general.architecture", "").In(path));
  EW_TRY(const uint64_t version, metadata.GetUint("training.version", 0).In(path));
  if (kind != kArchitecture || version != kVersion) {
    return MakeError(Code::kInvalidArgument, "%s: not the state of a training run of this version",
                     path.c_str());
  }
  EW_TRY(const std::string of, metadata.GetString("training.run").In(path));
  if (of != run) {
    return MakeError(Code::kInvalidArgument,
                     "%s: the state of another run: its model, data or options differ; remove it "
                     "to begin anew, or go on with the options from before",
                     path.c_str());
  }
  TrainerState state;
  EW_TRY(state.step, metadata.GetUint("training.step").In(path));
  EW_TRY(state.updates, metadata.GetUint("training.updates").In(path));
  EW_TRY(const uint64_t skipped, metadata.GetUint("training.skipped").In(path));
  state.skipped = static_cast<uint32_t>(skipped);
  EW_TRY(state.position.epoch, metadata.GetUint("training.epoch").In(path));
  EW_TRY(state.position.document, metadata.GetUint("training.document").In(path));
  EW_TRY(state.position.token, metadata.GetUint("training.token").In(path));
  EW_TRY(state.best_loss, metadata.GetDouble("training.best_loss").In(path));
  EW_TRY(state.evaluations, metadata.GetUint("training.evaluations").In(path));
  EW_TRY(const uint64_t without, metadata.GetUint("training.without_better").In(path));
  state.without_better = static_cast<uint32_t>(without);
  EW_TRY(state.finished, metadata.GetBool("training.finished").In(path));
  for (const Part& part : kParts) {
    const TensorView* view = file.tensors().Find(part.name);
    if (view == nullptr && part.optional) continue;
    if (view == nullptr || view->dtype != DType::kF32 || view->shape != Shape{parameters}) {
      return MakeError(Code::kInvalidArgument, "%s: %s is not (%zu) floats", path.c_str(),
                       part.name, parameters);
    }
    std::vector<float>& values = state.*part.values;
    values.resize(parameters);
    view->Decode(0, parameters, values.data());
  }
  return state;
}

}  // namespace edgewise::train
