#include "eval/linear_timer.h"

#include <algorithm>
#include <cstring>

#include "base/process.h"
#include "base/round_up.h"
#include "base/strings.h"
#include "eval/percentile.h"
#include "kernels/kernels.h"
#include "model/forward.h"
#include "model/weights.h"
#include "quant/packed.h"

namespace edgewise {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kMinPasses = 9;      // over the weights; the median counts
constexpr double kMinSeconds = 0.05;  // of all passes, so that short ones are many
constexpr int kWeightByte = 0x11;     // makes small positive numbers of every float format
constexpr float kActivation = 0.5f;

uint64_t WeightBytes(const LinearShape& shape) {
  return RoundUp(PaddedRows(shape.rows) * Info(shape.type).RowBytes(shape.columns), kAlignment);
}

// The linear layers of `group` with their weights from `data` on.
Result<std::vector<Linear>> Bind(const LinearGroup& group, const std::byte* data) {
  std::vector<Linear> linears;
  for (const LinearShape& shape : group) {
    Linear linear;
    linear.kernel = kernels::Active().linear[static_cast<size_t>(shape.type)];
    if (!linear.kernel.run) {
      return MakeError(Code::kUnsupported, "%s has no kernel here", Info(shape.type).name);
    }
    linear.data = data;
    linear.row_bytes = Info(shape.type).RowBytes(shape.columns);
    linear.rows = shape.rows;
    linear.columns = shape.columns;
    data += WeightBytes(shape);
    linears.push_back(std::move(linear));
  }
  return linears;
}

// One token through the layers of a group.
class Step {
 public:
  static Result<Step> Create(const LinearGroup& group) {
    Step step;
    uint64_t outputs = 0;
    for (const LinearShape& shape : group) outputs += shape.rows;
    EW_TRY(step.input_.Resize(1, group.front().columns));
    EW_TRY(step.output_.Resize(1, outputs));
    step.input_.Begin(group.front().columns);
    std::fill_n(step.input_.floats(0), group.front().columns, kActivation);
    return step;
  }
  void Run(const std::vector<Linear>& linears, ThreadPool* pool) {
    std::vector<const Linear*> users;
    std::vector<LinearJob> jobs;
    float* y = output_.row(0);
    for (const Linear& linear : linears) {
      users.push_back(&linear);
      jobs.push_back({&linear, 0, 1, y, linear.rows});
      y += linear.rows;
    }
    input_.Finish(0, users);
    RunLinears(jobs, input_, pool);
  }

 private:
  Activations input_;
  FloatRows output_;
};

}  // namespace

uint64_t GroupBytes(const LinearGroup& group) {
  uint64_t bytes = 0;
  for (const LinearShape& shape : group) bytes += WeightBytes(shape);
  return bytes;
}

Result<LinearTimer> LinearTimer::Create(uint64_t largest_model, ThreadPool* pool) {
  const uint64_t bytes = std::min(largest_model, kMaxBuffer);
  EW_TRY(Tensor weights, Tensor::AllocateUninitialized(DType::kI8, Shape{bytes}));
  std::memset(weights.mutable_data(), kWeightByte, bytes);
  return LinearTimer(std::move(weights), pool);
}

Result<double> LinearTimer::Seconds(const LinearGroup& group, uint64_t model_bytes) {
  const uint64_t bytes = GroupBytes(group);
  if (bytes > weights_.view().bytes) {
    EW_TRY(weights_, Tensor::AllocateUninitialized(DType::kI8, Shape{bytes}));
    std::memset(weights_.mutable_data(), kWeightByte, bytes);
  }
  const uint64_t room = std::min<uint64_t>(model_bytes, weights_.view().bytes);
  const uint64_t copies = std::max<uint64_t>(1, room / bytes);
  const auto found = known_.find({group, copies});
  if (found != known_.end()) return found->second;
  std::vector<std::vector<Linear>> all;
  for (uint64_t i = 0; i < copies; ++i) {
    EW_TRY(std::vector<Linear> linears, Bind(group, weights_.view().data + i * bytes));
    all.push_back(std::move(linears));
  }
  EW_TRY(Step step, Step::Create(group));
  std::vector<double> passes;
  const double start = NowSeconds();
  for (double before = start; passes.size() <= kMinPasses || before - start < kMinSeconds;) {
    for (const std::vector<Linear>& linears : all) step.Run(linears, pool_);
    const double now = NowSeconds();
    passes.push_back(now - before);
    before = now;
  }
  passes.erase(passes.begin());  // which brings weights and threads up
  const double seconds = Percentile(passes, 0.5) / static_cast<double>(copies);
  known_.emplace(std::pair(group, copies), seconds);
  return seconds;
}

}  // namespace edgewise
