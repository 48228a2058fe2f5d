// The state of a training run as a GGUF file.
#include <algorithm>
#include <bit>
#include <iterator>
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
  bool moment;  // with codes, a scale for each block of them
};
constexpr Part kParts[] = {{"weights", &TrainerState::weights, false, false},
                           {"adam.mean", &TrainerState::mean, false, true},
                           {"adam.variance", &TrainerState::variance, false, true},
                           {"ema", &TrainerState::ema, true, false},
                           {"best", &TrainerState::best, true, false}};
struct CodePart {
  const char* name;
  std::vector<uint8_t> TrainerState::* codes;
};
constexpr CodePart kCodeParts[] = {{"adam.mean.codes", &TrainerState::mean_codes},
                                   {"adam.variance.codes", &TrainerState::variance_codes}};

// Errors: kInvalidArgument (a tensor of another type or size).
Status CheckPart(const TensorView* view, DType type, size_t size, const char* name,
                 const std::string& path) {
  if (view != nullptr && view->dtype == type && view->shape == Shape{size}) return Ok{};
  return MakeError(Code::kInvalidArgument, "%s: %s is not (%zu) %s", path.c_str(), name, size,
                   type == DType::kF32 ? "floats" : "codes");
}

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
  for (const CodePart& part : kCodeParts) {
    const std::vector<uint8_t>& codes = state.*part.codes;
    if (!codes.empty()) tensors.push_back({part.name, DType::kI8, Shape{codes.size()}});
  }
  EW_TRY(GgufWriter writer, GgufWriter::Create(path, true, metadata, std::move(tensors)));
  for (const Part& part : kParts) {
    const std::vector<float>& values = state.*part.values;
    if (!values.empty()) EW_TRY(writer.Write(std::as_bytes(std::span(values))));
  }
  for (const CodePart& part : kCodeParts) {
    const std::vector<uint8_t>& codes = state.*part.codes;
    if (!codes.empty()) EW_TRY(writer.Write(std::as_bytes(std::span(codes))));
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
  for (const CodePart& part : kCodeParts) {
    const TensorView* view = file.tensors().Find(part.name);
    if (view == nullptr) continue;
    EW_TRY(CheckPart(view, DType::kI8, parameters, part.name, path));
    const auto* codes = reinterpret_cast<const uint8_t*>(view->data);
    (state.*part.codes).assign(codes, codes + parameters);
  }
  const size_t moments = state.mean_codes.empty() ? parameters : MomentBlocks(parameters);
  for (const Part& part : kParts) {
    const TensorView* view = file.tensors().Find(part.name);
    if (view == nullptr && part.optional) continue;
    const size_t size = part.moment ? moments : parameters;
    EW_TRY(CheckPart(view, DType::kF32, size, part.name, path));
    std::vector<float>& values = state.*part.values;
    values.resize(size);
    view->Decode(0, size, values.data());
  }
  if (state.mean_codes.size() != state.variance_codes.size()) {
    return MakeError(Code::kInvalidArgument, "%s: has the codes of one moment alone", path.c_str());
  }
  return state;
}

void ShareState(Communicator& processes, TrainerState* state) {
  uint64_t numbers[] = {state->step,
                        state->updates,
                        state->skipped,
                        state->position.epoch,
                        state->position.document,
                        state->position.token,
                        std::bit_cast<uint64_t>(state->best_loss),
                        state->evaluations,
                        state->without_better,
                        state->finished};
  uint64_t sizes[std::size(kParts)];
  for (size_t i = 0; i < std::size(kParts); ++i) sizes[i] = (state->*kParts[i].values).size();
  processes.Broadcast(std::as_writable_bytes(std::span(numbers)));
  processes.Broadcast(std::as_writable_bytes(std::span(sizes)));
  state->step = numbers[0];
  state->updates = numbers[1];
  state->skipped = static_cast<uint32_t>(numbers[2]);
  state->position = {numbers[3], numbers[4], numbers[5]};
  state->best_loss = std::bit_cast<double>(numbers[6]);
  state->evaluations = numbers[7];
  state->without_better = static_cast<uint32_t>(numbers[8]);
  state->finished = numbers[9] != 0;
  for (size_t i = 0; i < std::size(kParts); ++i) {
    std::vector<float>& values = state->*kParts[i].values;
    values.resize(sizes[i]);
    processes.Broadcast(std::as_writable_bytes(std::span(values)));
  }
  uint64_t codes_size = state->mean_codes.size();
  processes.Broadcast(std::as_writable_bytes(std::span(&codes_size, 1)));
  for (const CodePart& part : kCodeParts) {
    std::vector<uint8_t>& codes = state->*part.codes;
    codes.resize(codes_size);
    processes.Broadcast(std::as_writable_bytes(std::span(codes)));
  }
}

}  // namespace edgewise::train
