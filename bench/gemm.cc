// Times the matrix products of training, a JSON line per shape, use and precision: 10^9 operations
// per second (a product and a sum are two) of ours and, where the build found it, of OpenBLAS, the
// shares of the peaks measured beside them, and the least time by operations and by bytes; or the
// peaks alone. usage: gemm [THREADS [f32|bf16|both [ROUNDS [peak]]]]
#include <time.h>

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

// Seconds of a round of work: as the clock on the wall has them, and the processor's divided by the
// threads, which a busy neighbour disturbs less.
struct Seconds {
  double wall, processor;
};

double ProcessorSeconds(clockid_t clock) {
  timespec now = {};
  ::clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Operations per second of processor time of a thread that multiplies registers.
double Peak(const kernels::GemmKernel& kernel) {
  constexpr uint64_t kRounds = 1 << 15;
  double best = 0;
  for (int round = 0; round < 9; ++round) {
    const double start = ProcessorSeconds(CLOCK_THREAD_CPUTIME_ID);
    const auto operations = static_cast<double>(kernel.products(kRounds));
    best = std::max(best, operations / (ProcessorSeconds(CLOCK_THREAD_CPUTIME_ID) - start));
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

// Medians of `rounds` after one that is not counted.
template <class Work>
Seconds Time(size_t threads, size_t rounds, Work work) {
  std::vector<double> wall, processor;
  for (size_t round = 0; round <= rounds; ++round) {
    const double start = NowSeconds(), used = ProcessorSeconds(CLOCK_PROCESS_CPUTIME_ID);
    work();
    if (round == 0) continue;
    wall.push_back(NowSeconds() - start);
    processor.push_back((ProcessorSeconds(CLOCK_PROCESS_CPUTIME_ID) - used) /
                        static_cast<double>(threads));
  }
  return {Median(wall), Median(processor)};
}

void Multiply(Gemm& gemm, const Shape& s, Buffers& buffers) {
  const bool weight = s.use == Shape::kWeightGradient, output = s.use == Shape::kOutput;
  gemm.Multiply({buffers.a.data(), weight ? s.m : s.k, weight},
                {buffers.b.data(), output ? s.k : s.n, output}, s.m, s.n, s.k, buffers.c.data(),
                s.n, weight);
}

#ifdef EDGEWISE_OPENBLAS
void MultiplyByPeer(const Shape& s, Buffers& buffers) {
  const auto size = [](size_t n) { return static_cast<blasint>(n); };
  const bool weight = s.use == Shape::kWeightGradient, output = s.use == Shape::kOutput;
  cblas_sgemm(CblasRowMajor, weight ? CblasTrans : CblasNoTrans, output ? CblasTrans : CblasNoTrans,
              size(s.m), size(s.n), size(s.k), 1.0f, buffers.a.data(), size(weight ? s.m : s.k),
              buffers.b.data(), size(output ? s.k : s.n), weight ? 1.0f : 0.0f, buffers.c.data(),
              size(s.n));
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

const kernels::GemmKernel& KernelOf(Precision precision) {
  const kernels::Kernels& table = kernels::Active();
  return precision == Precision::kF32 ? table.gemm_f32 : table.gemm_bf16;
}

void Measure(ThreadPool* pool, Precision precision, size_t rounds) {
  const kernels::Kernels& table = kernels::Active();
  const bool f32 = precision == Precision::kF32;
  const auto threads = static_cast<size_t>(pool->size());
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
    const Seconds ours = Time(threads, rounds, [&] { Multiply(gemm, s, buffers); });
    const double peak = Peak(KernelOf(precision)) * static_cast<double>(threads);
    Json line;
    line.Set("layer", s.name).Set("use", kUses[s.use]).Set("precision", f32 ? "f32" : "bf16");
    line.Set("isa", table.name).Set("threads", pool->size());
    line.Set("m", s.m).Set("n", s.n).Set("k", s.k).Set("ms", 1e3 * ours.wall);
    line.Set("gflops", 1e-9 * operations / ours.wall);
    line.Set("processor_gflops", 1e-9 * operations / ours.processor);
    line.Set("peak_gflops", 1e-9 * peak).Set("peak_share", operations / ours.processor / peak);
    line.Set("limit_operations_ms", 1e3 * operations / peak);
    line.Set("limit_bytes_ms", 1e3 * bytes / bandwidth);
#ifdef EDGEWISE_OPENBLAS
    openblas_set_num_threads(pool->size());
    const Seconds peer = Time(threads, rounds, [&] { MultiplyByPeer(s, buffers); });
    line.Set("openblas_core", openblas_get_corename());
    line.Set("openblas_f32_gflops", 1e-9 * operations / peer.wall);
    line.Set("openblas_f32_processor_gflops", 1e-9 * operations / peer.processor);
    line.Set("ratio", peer.wall / ours.wall);
    line.Set("processor_ratio", peer.processor / ours.processor);
#endif
    std::printf("%s\n", line.Dump().c_str());
    std::fflush(stdout);
  }
}

void PrintPeak(Precision precision, int threads) {
  Json line;
  line.Set("precision", precision == Precision::kF32 ? "f32" : "bf16").Set("threads", threads);
  line.Set("isa", kernels::Active().name);
  line.Set("peak_gflops", 1e-9 * Peak(KernelOf(precision)) * threads);
  std::printf("%s\n", line.Dump().c_str());
}

int Run(int argc, char** argv) {
  if (const char* error = kernels::CheckIsa()) {
    std::fprintf(stderr, "gemm: %s\n", error);
    return 1;
  }
  ThreadPool pool(argc > 1 ? std::max(1, std::atoi(argv[1])) : ThreadPool::AvailableCpus());
  const std::string precision = argc > 2 ? argv[2] : "both";
  const size_t rounds = argc > 3 ? static_cast<size_t>(std::max(1, std::atoi(argv[3]))) : 7;
  const bool peak = argc > 4 && argv[4] == std::string("peak");
  for (const Precision each : {Precision::kF32, Precision::kBf16}) {
    if (precision == (each == Precision::kF32 ? "bf16" : "f32")) continue;
    if (peak) {
      PrintPeak(each, pool.size());
    } else {
      Measure(&pool, each, rounds);
    }
  }
  return 0;
}

}  // namespace
}  // namespace edgewise::train

int main(int argc, char** argv) { return edgewise::train::Run(argc, argv); }
