// Times the matrix kernels on one core, a JSON line per instruction set and weight format: 10^9
// operations per second (a product and a sum are two) at 1 to 128 activation rows with weights in
// the cache and at 16 with weights from memory, and bytes of those per second at one. usage:
// linear_kernels [FORMAT ...]
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/process.h"
#include "base/rng.h"
#include "kernels/kernels.h"
#include "quant/packed.h"
#include "tensor/tensor.h"

namespace edgewise {
namespace {

constexpr size_t kColumns = 2048;
constexpr size_t kCachedRows = 256;
constexpr size_t kStreamBytes = 256u << 20;  // far larger than any cache
constexpr int kRounds = 7;

template <class Work>
double BestSeconds(Work work) {
  double best = 1e9;
  for (int round = 0; round < kRounds; ++round) {
    const double start = NowSeconds();
    work();
    best = std::min(best, NowSeconds() - start);
  }
  return best;
}

// `rows` rows as the kernel reads them: copies of one group of random weights.
Result<Tensor> MakeWeights(const DTypeInfo& format, size_t rows) {
  Rng rng(1);
  const size_t row_bytes = format.RowBytes(kColumns);
  std::vector<std::byte> plain(kPackedRows * row_bytes), group(plain.size());
  std::vector<float> values(kColumns);
  for (size_t r = 0; r < kPackedRows; ++r) {
    for (float& v : values) v = static_cast<float>(rng.Gaussian());
    format.encode(values.data(), nullptr, plain.data() + r * row_bytes, kColumns);
  }
  if (IsPacked(format.id)) {
    PackGroup(format.id, plain.data(), row_bytes, kPackedRows, kColumns, group.data());
  } else {
    group = plain;
  }
  EW_TRY(Tensor weights, Tensor::Allocate(DType::kI8, Shape{rows * row_bytes}));
  for (size_t r = 0; r < rows; r += kPackedRows) {
    std::memcpy(weights.mutable_data() + r * row_bytes, group.data(), group.size());
  }
  return weights;
}

Status Measure(const kernels::Kernels& k, const DTypeInfo& format) {
  const size_t row_bytes = format.RowBytes(kColumns);
  const size_t stream_rows = kStreamBytes / row_bytes / kPackedRows * kPackedRows;
  const auto& kernel = k.linear[static_cast<size_t>(format.id)];
  constexpr size_t kTokens = 128;
  EW_TRY(const Tensor weights, MakeWeights(format, stream_rows));
  const size_t x_stride = kernels::ActRowBytes(kernel.act, kColumns);
  EW_TRY(Tensor x, Tensor::Allocate(DType::kI8, Shape{kTokens * x_stride}));
  Rng rng(2);
  std::vector<float> values(kColumns);
  for (size_t t = 0; t < kTokens; ++t) {
    for (float& v : values) v = static_cast<float>(rng.Gaussian());
    std::byte* row = x.mutable_data() + t * x_stride;
    if (kernel.act == kernels::ActFormat::kQ8) {
      k.quantize_q8(values.data(), row, kColumns);
    } else {
      std::memcpy(row, values.data(), x_stride);
    }
  }
  std::vector<float> y(std::max(stream_rows * 16, kCachedRows * kTokens));
  Json line;
  line.Set("isa", k.name).Set("format", format.name);
  const auto seconds = [&](size_t rows, size_t n) {
    return BestSeconds([&] {
      kernel.run({weights.view().data, row_bytes, rows, kColumns, x.view().data, x_stride, n,
                  y.data(), rows});
    });
  };
  const auto gops = [](size_t rows, size_t n, double took) {
    return 2e-9 * static_cast<double>(rows * kColumns * n) / took;
  };
  line.Set("stream_gb_per_s",
           1e-9 * static_cast<double>(stream_rows * row_bytes) / seconds(stream_rows, 1));
  line.Set("stream_gops_16", gops(stream_rows, 16, seconds(stream_rows, 16)));
  for (const size_t n : {1, 2, 4, 8, 16, 128}) {
    line.Set("gops_" + std::to_string(n), gops(kCachedRows, n, seconds(kCachedRows, n)));
  }
  std::printf("%s\n", line.Dump().c_str());
  std::fflush(stdout);
  return Ok{};
}

int Run(int argc, char** argv) {
  for (size_t i = 1; i < kernels::Available().size; ++i) {  // all but scalar
    for (int id = 0; id < kDTypeCount; ++id) {
      const DTypeInfo& format = Info(static_cast<DType>(id));
      if (!kernels::Available().items[i].linear[id].run) continue;
      const bool wanted =
          argc < 2 || std::any_of(
                          argv + 1, argv + argc,
                          [&](const char* name) { return std::strcmp(name, format.name) == 0; });
      if (!wanted) continue;
      const auto status = Measure(kernels::Available().items[i], format);
      if (status) continue;
      std::fprintf(stderr, "linear_kernels: %s\n", status.error().message.c_str());
      return 1;
    }
  }
  return 0;
}

}  // namespace
}  // namespace edgewise

int main(int argc, char** argv) { return edgewise::Run(argc, argv); }
