// Times the matrix products of training, a JSON line per shape, use and precision: 10^9 operations
// per second (a product and a sum are two) of ours and, where the build found it, of OpenBLAS, the
// shares of the peaks measured beside them, and the least time by operations and by bytes. usage:
// gemm [THREADS [f32|bf16|both [ROUNDS]]]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/process.h"
#include "base/rng.h"
#include "kernels/kernels.h"
#include "train/gemm.h"

#ifdef EDGEWISE_OPENBLAS
#include <cblas.h>
#endif

namespace edgewise::train {
namespace {

struct Shape {
  const char* name;
  size_t m, n, k;
  enum Use { kOutput, kInputGradient, kWeightGradient } use;
};

struct Buffers {
  std::vector<float> a, b, c;
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Operations per second of every thread multiplying registers.
double Peak(ThreadPool* pool, const kernels::GemmKernel& kernel) {
  constexpr uint64_t kRounds = 1 << 18;
  double best = 0;
  for (int round = 0; round < 9; ++round) {
    std::vector<uint64_t> done(static_cast<size_t>(pool->size()));
    const double start = NowSeconds();
    pool->Run([&](int thread) { done[static_cast<size_t>(thread)] = kernel.products(kRounds); });
    const double seconds = NowSeconds() - start;
    best = std::max(best, static_cast<double>(done[0] * done.size()) / seconds);
  }
  return best;
}

// Bytes per second that all threads read and write, from memory that no cache holds.
double Bandwidth(ThreadPool* pool) {
  std::vector<float> from(64 << 20), to(from.size());
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    const double start = NowSeconds();
    pool->ParallelFor(from.size(), 1 << 16, [&](size_t begin, size_t end, int) {
      std::memcpy(to.data() + begin, from.data() + begin, (end - begin) * sizeof(float));
    });
    best = std::max(best, 3.0 * static_cast<double>(from.size() * sizeof(float)) /
                              (NowSeconds() - start));  // a written line is read first
  }
  return best;
}

double Time(Gemm& gemm, const Shape& s, Buffers& buffers, size_t rounds) {
  const Matrix a{buffers.a.data(), s.use == Shape::kWeightGradient ? s.m : s.k,
                 s.use == Shape::kWeightGradient};
  const Matrix b{buffers.b.data(), s.use == Shape::kOutput ? s.k : s.n, s.use == Shape::kOutput};
  const bool accumulate = s.use == Shape::kWeightGradient;
  std::vector<double> seconds;
  for (size_t round = 0; round <= rounds; ++round) {
    const double start = NowSeconds();
    gemm.Multiply(a, b, s.m, s.n, s.k, buffers.c.data(), s.n, accumulate);
    if (round > 0) seconds.push_back(NowSeconds() - start);
  }
  return Median(seconds);
}

#ifdef EDGEWISE_OPENBLAS
double TimePeer(const Shape& s, Buffers& buffers, size_t rounds) {
  const auto size = [](size_t n) { return static_cast<blasint>(n); };
  std::vector<double> seconds;
  for (size_t round = 0; round <= rounds; ++round) {
    const double start = NowSeconds();
    cblas_sgemm(CblasRowMajor, s.use == Shape::kWeightGradient ? CblasTrans : CblasNoTrans,
                s.use == Shape::kOutput ? CblasTrans : CblasNoTrans, size(s.m), size(s.n),
                size(s.k), 1.0f, buffers.a.data(),
                size(s.use == Shape::kWeightGradient ? s.m : s.k), buffers.b.data(),
                size(s.use == Shape::kOutput ? s.k : s.n),
                s.use == Shape::kWeightGradient ? 1.0f : 0.0f, buffers.c.data(), size(s.n));
    if (round > 0) seconds.push_back(NowSeconds() - start);
  }
  return Median(seconds);
}
#endif

// The two linear layers of a block and the output of a model of `dim`, in all three uses.
std::vector<Shape> Shapes() {
  std::vector<Shape> shapes;
  const auto layer = [&](const char* name, size_t tokens, size_t in, size_t out) {
    shapes.push_back({name, tokens, out, in, Shape::kOutput});
    shapes.push_back({name, tokens, in, out, Shape::kInputGradient});
    shapes.push_back({name, out, in, tokens, Shape::kWeightGradient});
  };
  layer("288 to 768", 2048, 288, 768);
  layer("288 to 32000", 512, 288, 32000);
  layer("512 to 1024", 2048, 512, 1024);
  layer("512 to 8192", 512, 512, 8192);
  layer("768 to 2048", 2048, 768, 2048);
  layer("768 to 32000", 512, 768, 32000);
  layer("2048 to 5632", 2048, 2048, 5632);
  layer("2048 to 32000", 512, 2048, 32000);
  return shapes;
}

void Measure(ThreadPool* pool, Precision precision, size_t rounds) {
  const kernels::Kernels& table = kernels::Active();
  const bool f32 = precision == Precision::kF32;
  const double peak = Peak(pool, f32 ? table.gemm_f32 : table.gemm_bf16);
  const double bandwidth = Bandwidth(pool);
  Gemm gemm(pool, precision);
  constexpr const char* kUses[] = {"y = x w^T", "dx = dy w", "dw += dy^T x"};
  for (const Shape& s : Shapes()) {
    Buffers buffers;
    Rng rng(1);
    for (auto [values, size] : {std::pair{&buffers.a, s.m * s.k}, {&buffers.b, s.k * s.n}}) {
      values->resize(size);
      for (float& value : *values) value = static_cast<float>(rng.Uniform() - 0.5);
    }
    buffers.c.resize(s.m * s.n);
    const double operations = 2.0 * static_cast<double>(s.m) * static_cast<double>(s.n * s.k);
    const double bytes =
        4.0 * static_cast<double>(buffers.a.size() + buffers.b.size() + 2 * buffers.c.size());
    const double seconds = Time(gemm, s, buffers, rounds);
    Json line;
    line.Set("layer", s.name).Set("use", kUses[s.use]).Set("precision", f32 ? "f32" : "bf16");
    line.Set("isa", table.name).Set("threads", pool->size());
    line.Set("m", s.m).Set("n", s.n).Set("k", s.k).Set("ms", 1e3 * seconds);
    line.Set("gflops", 1e-9 * operations / seconds).Set("peak_gflops", 1e-9 * peak);
    line.Set("peak_share", operations / seconds / peak);
    line.Set("limit_operations_ms", 1e3 * operations / peak);
    line.Set("limit_bytes_ms", 1e3 * bytes / bandwidth);
#ifdef EDGEWISE_OPENBLAS
    openblas_set_num_threads(pool->size());
    const double peer = TimePeer(s, buffers, rounds);
    line.Set("openblas_f32_gflops", 1e-9 * operations / peer).Set("ratio", peer / seconds);
#endif
    std::printf("%s\n", line.Dump().c_str());
    std::fflush(stdout);
  }
}

int Run(int argc, char** argv) {
  if (const char* error = kernels::CheckIsa()) {
    std::fprintf(stderr, "gemm: %s\n", error);
    return 1;
  }
  ThreadPool pool(argc > 1 ? std::max(1, std::atoi(argv[1])) : ThreadPool::AvailableCpus());
  const std::string precision = argc > 2 ? argv[2] : "both";
  const size_t rounds = argc > 3 ? static_cast<size_t>(std::max(1, std::atoi(argv[3]))) : 7;
  if (precision != "bf16") Measure(&pool, Precision::kF32, rounds);
  if (precision != "f32") Measure(&pool, Precision::kBf16, rounds);
  return 0;
}

}  // namespace
}  // namespace edgewise::train

int main(int argc, char** argv) { return edgewise::train::Run(argc, argv); }
