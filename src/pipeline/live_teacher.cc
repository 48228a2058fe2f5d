#include "pipeline/live_teacher.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/strings.h"
#include "train/network.h"
#include "train/parameters.h"
#include "train/runtime_teacher.h"
#include "train/trainer.h"

namespace edgewise {
namespace {

uint64_t KvBytes(const ModelSpec& spec, size_t sequence) {
  return uint64_t{2} * spec.n_layers * spec.kv_dim() * sequence * sizeof(uint16_t);
}

}  // namespace

Result<TeacherEngine> ParseTeacherEngine(std::string_view name) {
  if (name == "floats") return TeacherEngine::kFloats;
  if (name == "runtime") return TeacherEngine::kRuntime;
  return MakeError(Code::kInvalidArgument, "%s: no such engine; known are floats, runtime",
                   Quote(name).c_str());
}

std::string TeacherEngineName(const TeacherOptions& options) {
  if (options.engine == TeacherEngine::kRuntime) return "runtime";
  return std::string("floats-") + train::PrecisionName(options.precision);
}

uint64_t TeacherBytes(const Checkpoint& checkpoint, const TeacherOptions& options) {
  const ModelSpec& spec = checkpoint.spec();
  if (options.engine == TeacherEngine::kFloats) {
    return train::ParameterLayout(spec).size() * sizeof(float) +
           train::ActivationBytes(spec, {}, options.batch.tokens, false);
  }
  const uint64_t rows = std::min(options.batch.tokens, train::kTeacherRows);
  uint64_t bytes = KvBytes(spec, options.batch.sequence) + rows * spec.vocab_size * sizeof(float);
  for (const CheckpointTensor& tensor : checkpoint.tensors()) {
    const auto size = TensorBytes(tensor.dtype, tensor.shape, tensor.layout);
    if (size) bytes += *size;
  }
  return bytes;
}

Result<std::unique_ptr<LiveTeacher>> LiveTeacher::Create(const Checkpoint& checkpoint,
                                                         const TeacherOptions& options,
                                                         ThreadPool* pool,
                                                         train::LayerVisitor* visitor) {
  EW_CHECK(visitor == nullptr || options.engine == TeacherEngine::kFloats);
  const ModelSpec& spec = checkpoint.spec();
  std::unique_ptr<LiveTeacher> live(new LiveTeacher(spec, options, pool));
  if (options.engine == TeacherEngine::kRuntime) {
    EW_TRY(live->model_, Model::Load(checkpoint, pool));
    EW_TRY(live->teacher_, train::RuntimeTeacher::Create(
                               *live->model_, static_cast<uint32_t>(options.batch.sequence), pool));
    return live;
  }
  EW_TRY(live->weights_, train::LoadParameters(checkpoint, train::ParameterLayout(spec)));
  live->ops_ = train::MakeCpuOps(pool, options.precision);
  EW_TRY(train::Network network, train::Network::Create(spec, live->ops_.get(), {}));
  live->teacher_ =
      std::make_unique<train::NetworkTeacher>(std::move(network), live->weights_.data(), visitor);
  return live;
}

Result<double> LiveTeacher::HeldOutLoss(const train::Corpus& corpus, const Progress& progress) {
  train::CrossEntropyLoss loss(pool_);
  return train::HeldOutLoss(
      corpus, batch_, progress, [&](const train::Batch& batch) -> Result<double> {
        double sum = 0;
        EW_TRY(train::EachTeacherRows(teacher_.get(), batch, vocab_size_,
                                      [&](std::span<const uint32_t> rows, float* logits) -> Status {
                                        EW_TRY(const double part,
                                               loss.Rows(batch, rows, vocab_size_, 1.0f, logits));
                                        sum += part;
                                        return Ok{};
                                      }));
        return sum;
      });
}

}  // namespace edgewise
