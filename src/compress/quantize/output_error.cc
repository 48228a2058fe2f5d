#include "compress/quantize/output_error.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/strings.h"
#include "kernels/kernels.h"

namespace edgewise {
namespace {

constexpr size_t kRows = 32;  // that one product takes together

// tr(D H D^T) of differences d (rows, n); `product` holds as many floats. h empty: the identity.
double Quadratic(const float* d, size_t rows, std::span<const float> h, size_t n, float* product) {
  const float* other = d;
  if (!h.empty()) {
    kernels::LinearArgs args;
    args.w = h.data();
    args.w_stride = args.x_stride = n * sizeof(float);
    args.rows = args.columns = args.y_stride = n;
    args.x = d;
    args.n = rows;
    args.y = product;
    kernels::Active().linear[static_cast<size_t>(DType::kF32)].run(args);
    other = product;
  }
  double sum = 0;
  for (size_t r = 0; r < rows; ++r) {
    sum += kernels::Active().dot_f32(d + r * n, other + r * n, n);
  }
  return sum;
}

// Sums Quadratic over all rows; difference(row, d) writes w - q of one row.
double SumRows(size_t rows, size_t n, std::span<const float> h, ThreadPool* pool,
               FunctionRef<void(size_t row, float* d)> difference) {
  std::vector<double> sums((rows + kRows - 1) / kRows);
  pool->ParallelFor(sums.size(), 1, [&](size_t begin, size_t end, int) {
    std::vector<float> d(kRows * n), product(kRows * n);
    for (size_t chunk = begin; chunk < end; ++chunk) {
      const size_t first = chunk * kRows, count = std::min(kRows, rows - first);
      for (size_t r = 0; r < count; ++r) difference(first + r, d.data() + r * n);
      sums[chunk] = Quadratic(d.data(), count, h, n, product.data());
    }
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

}  // namespace

Status CheckFinite(const std::string& name, std::span<const float> values, size_t columns) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i])) continue;
    return MakeError(Code::kBadData,
                     "tensor %s holds NaN or infinity at row %zu, column %zu: the weights are "
                     "damaged; get the model again",
                     name.c_str(), i / columns, i % columns);
  }
  return Ok{};
}

Result<std::vector<float>> LoadRows(const Checkpoint& model, size_t index, size_t limit) {
  const std::string& name = model.tensors()[index].name;
  EW_TRY(const Tensor tensor, model.Load(index).In(name));
  const TensorView& view = tensor.view();
  const size_t columns = view.shape.columns(), rows = view.shape.rows();
  const size_t count = std::min(rows, limit);
  std::vector<float> values(count * columns);
  for (size_t i = 0; i < count; ++i) {
    view.DecodeRow(i * rows / count, values.data() + i * columns);
  }
  model.DropPages(index);
  EW_TRY(CheckFinite(name, values, columns));
  return values;
}

double OutputError(std::span<const float> w, size_t n, const RowEncoding& encoding,
                   std::span<const float> h, ThreadPool* pool) {
  const DTypeInfo& info = Info(encoding.type);
  const float* importance = encoding.importance.empty() ? nullptr : encoding.importance.data();
  const std::span<const float> scales = encoding.scales;
  return SumRows(w.size() / n, n, h, pool, [&](size_t row, float* d) {
    const float* values = w.data() + row * n;
    std::vector<float> scaled(values, values + n);
    for (size_t c = 0; c < scales.size(); ++c) scaled[c] *= scales[c];
    std::vector<std::byte> blocks(info.RowBytes(n));
    info.encode(scaled.data(), importance, blocks.data(), n);
    info.decode(blocks.data(), d, n);
    for (size_t c = 0; c < scales.size(); ++c) d[c] /= scales[c];
    for (size_t c = 0; c < n; ++c) d[c] = values[c] - d[c];
  });
}

double OutputError(std::span<const float> w, size_t n, DType type, std::span<const std::byte> rows,
                   std::span<const float> h, ThreadPool* pool) {
  const DTypeInfo& info = Info(type);
  return SumRows(w.size() / n, n, h, pool, [&](size_t row, float* d) {
    info.decode(rows.data() + row * info.RowBytes(n), d, n);
    for (size_t c = 0; c < n; ++c) d[c] = w[row * n + c] - d[c];
  });
}

}  // namespace edgewise
