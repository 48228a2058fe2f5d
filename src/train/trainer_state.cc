// The state of a training run as a GGUF file.
#include <concepts>
#include <iterator>
#include <limits>
#include <type_traits>
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

// Calls visit(key, number) for each number of a state.
template <class State, class Visit>
void VisitNumbers(State& state, Visit visit) {
  visit("training.step", state.step);
  visit("training.updates", state.updates);
  visit("training.skipped", state.skipped);
  visit("training.epoch", state.position.epoch);
  visit("training.document", state.position.document);
  visit("training.token", state.position.token);
  visit("training.best_loss", state.best_loss);
  visit("training.evaluations", state.evaluations);
  visit("training.without_better", state.without_better);
  visit("training.finished", state.finished);
}

Status ReadNumber(const Metadata& metadata, const char* key, bool* number) {
  EW_TRY(*number, metadata.GetBool(key));
  return Ok{};
}
Status ReadNumber(const Metadata& metadata, const char* key, double* number) {
  EW_TRY(*number, metadata.GetDouble(key));
  return Ok{};
}
template <std::unsigned_integral T>
Status ReadNumber(const Metadata& metadata, const char* key, T* number) {
  EW_TRY(const uint64_t value, metadata.GetUint(key));
  if (value > std::numeric_limits<T>::max()) {
    return MakeError(Code::kBadData, "%s is too large", key);
  }
  *number = static_cast<T>(value);
  return Ok{};
}

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
  VisitNumbers(state, [&](const char* key, const auto& number) { metadata.Set(key, number); });
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
  Status read = Ok{};
  VisitNumbers(state, [&](const char* key, auto& number) {
    if (read) read = ReadNumber(metadata, key, &number);
  });
  EW_TRY(std::move(read).In(path));
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
  std::vector<double> numbers;  // which hold integers up to 2^53
  VisitNumbers(*state, [&](const char*, const auto& number) {
    numbers.push_back(static_cast<double>(number));
  });
  uint64_t sizes[std::size(kParts)];
  for (size_t i = 0; i < std::size(kParts); ++i) sizes[i] = (state->*kParts[i].values).size();
  processes.Broadcast(std::as_writable_bytes(std::span(numbers)));
  processes.Broadcast(std::as_writable_bytes(std::span(sizes)));
  auto next = numbers.begin();
  VisitNumbers(*state, [&](const char*, auto& number) {
    number = static_cast<std::remove_reference_t<decltype(number)>>(*next++);
  });
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
