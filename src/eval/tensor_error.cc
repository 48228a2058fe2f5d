#include "eval/tensor_error.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/strings.h"

namespace edgewise {
namespace {

constexpr size_t kRunValues = 16;  // of RoundingPositions::Add
constexpr size_t kRowsTogether = 16;

struct Sums {
  double difference = 0, base = 0, model = 0, product = 0;  // sums of squares, and of w q
  RoundingPositions positions;

  void Merge(const Sums& o) {
    difference += o.difference, base += o.base, model += o.model, product += o.product;
    positions.Merge(o.positions);
  }
};

// Evenly spaced values, several of which share a step, and each the one nearest to its weight.
bool HasSteps(DType type) {
  switch (type) {
    case DType::kIQ4_NL:
    case DType::kIQ4_XS:
      return false;
    default:
      return Info(type).quantized() && !Info(type).sparse();
  }
}

void AddRow(const std::vector<float>& w, const std::vector<float>& q, bool steps, Sums* sums) {
  for (size_t i = 0; i < w.size(); ++i) {
    const double a = w[i], b = q[i];
    sums->difference += (a - b) * (a - b);
    sums->base += a * a;
    sums->model += b * b;
    sums->product += a * b;
  }
  if (steps) sums->positions.Add(w, q);
}

// The sums of every kRowsTogether rows, then of all in their order.
Sums SumRows(const TensorView& base, const TensorView& model, ThreadPool* pool) {
  const size_t rows = base.shape.rows(), columns = base.shape.columns();
  const bool steps = HasSteps(model.dtype) && columns % kRunValues == 0;
  std::vector<Sums> parts((rows + kRowsTogether - 1) / kRowsTogether);
  pool->ParallelFor(parts.size(), 1, [&](size_t begin, size_t end, int) {
    std::vector<float> w(columns), q(columns);
    for (size_t part = begin; part < end; ++part) {
      const size_t last = std::min(rows, (part + 1) * kRowsTogether);
      for (size_t row = part * kRowsTogether; row < last; ++row) {
        base.DecodeRow(row, w.data());
        model.DecodeRow(row, q.data());
        AddRow(w, q, steps, &parts[part]);
      }
    }
  });
  Sums all;
  for (const Sums& part : parts) all.Merge(part);
  return all;
}

Result<size_t> FindMatch(const CheckpointTensor& tensor, const Checkpoint& in,
                         const Checkpoint& from) {
  const auto index = in.Find(tensor.name);
  if (!index) {
    return MakeError(Code::kInvalidArgument, "%s has no tensor %s, which %s has", in.path().c_str(),
                     Quote(tensor.name).c_str(), from.path().c_str());
  }
  const Shape& shape = in.tensors()[*index].shape;
  if (shape == tensor.shape) return *index;
  return MakeError(Code::kInvalidArgument, "tensor %s is %s in %s and %s in %s",
                   Quote(tensor.name).c_str(), shape.ToString().c_str(), in.path().c_str(),
                   tensor.shape.ToString().c_str(), from.path().c_str());
}

Result<TensorError> CompareTensor(const Checkpoint& base, size_t base_index,
                                  const Checkpoint& compressed, size_t index, ThreadPool* pool) {
  TensorError error;
  EW_TRY(const Tensor w, base.Load(base_index));
  EW_TRY(const Tensor q, compressed.Load(index));
  const Sums sums = SumRows(w.view(), q.view(), pool);
  error.name = base.tensors()[base_index].name;
  error.base_dtype = w.view().dtype;
  error.dtype = q.view().dtype;
  error.values = w.view().shape.elements();
  if (sums.difference > 0) error.relative_rmse = std::sqrt(sums.difference / sums.base);
  const double lengths = std::sqrt(sums.base) * std::sqrt(sums.model);
  if (sums.difference > 0) error.cosine = lengths > 0 ? sums.product / lengths : 0;
  error.positions = sums.positions;
  base.DropPages(base_index);
  compressed.DropPages(index);
  return error;
}

}  // namespace

Result<std::vector<TensorError>> CompareTensors(const Checkpoint& base,
                                                const Checkpoint& compressed, ThreadPool* pool,
                                                Progress* progress) {
  for (const CheckpointTensor& tensor : compressed.tensors()) {
    EW_TRY(FindMatch(tensor, base, compressed));
  }
  std::vector<TensorError> errors;
  const size_t count = base.tensors().size();
  for (size_t i = 0; i < count; ++i) {
    progress->Update("tensors", i, count);
    if (progress->Cancelled()) return Error{Code::kCancelled, "the audit was cancelled"};
    EW_TRY(const size_t index, FindMatch(base.tensors()[i], compressed, base));
    EW_TRY(TensorError error, CompareTensor(base, i, compressed, index, pool));
    errors.push_back(std::move(error));
  }
  progress->Update("tensors", count, count);
  return errors;
}

}  // namespace edgewise
