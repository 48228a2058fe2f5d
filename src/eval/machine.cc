#include "eval/machine.h"

#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/process.h"
#include "base/rng.h"
#include "base/strings.h"
#include "eval/percentile.h"
#include "kernels/kernels.h"
#include "quant/dtype.h"
#include "quant/packed.h"
#include "tensor/tensor.h"

namespace edgewise {
namespace {

// Anonymous memory on huge pages where the system gives them: small pages cost a third of one
// core's bandwidth.
class ReadBuffer {
 public:
  static Result<ReadBuffer> Create(size_t bytes) {
    void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) {
      return MakeError(Code::kOutOfMemory, "no memory for a read buffer of %s",
                       FormatBytes(bytes).c_str());
    }
    static_cast<void>(::madvise(data, bytes, MADV_HUGEPAGE));  // only speed depends on it
    return ReadBuffer(static_cast<uint64_t*>(data), bytes);
  }
  ReadBuffer(ReadBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}
  ReadBuffer& operator=(ReadBuffer&&) = delete;
  ~ReadBuffer() {
    if (data_) ::munmap(data_, bytes_);
  }
  // The words of one thread: one contiguous stream per core reads fastest.
  std::span<uint64_t> Part(int thread, int threads) const {
    const size_t words = bytes_ / sizeof(uint64_t);
    const auto bound = [&](int t) {
      return words * static_cast<size_t>(t) / static_cast<size_t>(threads);
    };
    return {data_ + bound(thread), bound(thread + 1) - bound(thread)};
  }

 private:
  ReadBuffer(uint64_t* data, size_t bytes) : data_(data), bytes_(bytes) {}
  uint64_t* data_;
  size_t bytes_;
};

// Separate sums let the compiler keep several vector loads in flight.
uint64_t Sum(std::span<const uint64_t> words) {
  std::array<uint64_t, 16> sums = {};
  size_t i = 0;
  for (; i + sums.size() <= words.size(); i += sums.size()) {
    for (size_t j = 0; j < sums.size(); ++j) sums[j] += words[i + j];
  }
  for (; i < words.size(); ++i) sums[0] += words[i];
  uint64_t total = 0;
  for (const uint64_t sum : sums) total += sum;
  return total;
}

Result<double> MeasureRead(ThreadPool* pool, const MachineOptions& options) {
  EW_TRY(const ReadBuffer buffer, ReadBuffer::Create(options.buffer_bytes));
  const int threads = pool->size();
  // Each thread writes its part first, so that the pages lie near it.
  pool->Run([&](int thread) {
    uint64_t value = static_cast<uint64_t>(thread);
    for (uint64_t& word : buffer.Part(thread, threads)) word = value += 0x9E3779B97F4A7C15ull;
  });
  std::vector<uint64_t> sums(static_cast<size_t>(threads));
  std::vector<double> speeds;
  uint64_t first_sum = 0;
  for (int i = 0; i <= options.repetitions; ++i) {
    const double start = NowSeconds();
    pool->Run(
        [&](int thread) { sums[static_cast<size_t>(thread)] = Sum(buffer.Part(thread, threads)); });
    const double seconds = NowSeconds() - start;
    const uint64_t sum = Sum(sums);  // looked at, so that no reading can be left out
    if (i == 0) first_sum = sum;
    EW_CHECK(sum == first_sum);
    if (i > 0) speeds.push_back(static_cast<double>(options.buffer_bytes) / seconds);
  }
  return Percentile(speeds, 0.5);
}

// One matrix product that stays in a core's caches.
struct Problem {
  DType dtype;
  size_t rows, columns, n;
  double ops() const { return 2.0 * static_cast<double>(rows * columns * n); }
  std::string Name() const {
    return Format("%s (%zu x %zu) times %zu", Info(dtype).name, rows, columns, n);
  }
};

// Its operands; each thread has its own.
class Operands {
 public:
  static Result<Operands> Create(const Problem& problem) {
    const kernels::LinearKernel& kernel =
        kernels::Active().linear[static_cast<size_t>(problem.dtype)];
    Operands o;
    o.problem_ = problem;
    const size_t x_stride = kernels::ActRowBytes(kernel.act, problem.columns);
    const size_t row_bytes = Info(problem.dtype).RowBytes(problem.columns);
    std::vector<std::byte> rows(problem.rows * row_bytes);
    EW_TRY(o.x_, Tensor::Allocate(DType::kI8, Shape{problem.n, x_stride}));
    o.y_.resize(problem.n * problem.rows);
    std::vector<float> values(problem.columns);
    Rng rng(1);
    const auto randomize = [&] {
      for (float& v : values) v = static_cast<float>(rng.Gaussian());
    };
    for (size_t i = 0; i < problem.rows; ++i) {
      randomize();
      Info(problem.dtype)
          .encode(values.data(), nullptr, rows.data() + i * row_bytes, problem.columns);
    }
    const size_t bytes = PackedBytes(problem.dtype, problem.rows, problem.columns);
    EW_TRY(o.w_, Tensor::Allocate(DType::kI8, Shape{bytes}));
    for (size_t i = 0; i < problem.rows; i += kPackedRows) {
      PackGroup(problem.dtype, rows.data() + i * row_bytes, row_bytes,
                std::min(kPackedRows, problem.rows - i), problem.columns,
                o.w_.mutable_data() + i * row_bytes);
    }
    for (size_t j = 0; j < problem.n; ++j) {
      randomize();
      kernels::Active().quantize_q8(values.data(), o.x_.mutable_data() + j * x_stride,
                                    problem.columns);
    }
    return o;
  }

  void Multiply() {
    const kernels::LinearKernel& kernel =
        kernels::Active().linear[static_cast<size_t>(problem_.dtype)];
    kernel.run({.w = w_.view().data,
                .w_stride = Info(problem_.dtype).RowBytes(problem_.columns),
                .rows = problem_.rows,
                .columns = problem_.columns,
                .x = x_.view().data,
                .x_stride = x_.view().row_bytes(),
                .n = problem_.n,
                .y = y_.data(),
                .y_stride = problem_.rows});
  }

 private:
  Problem problem_ = {};
  Tensor w_, x_;
  std::vector<float> y_;
};

// Operations per second of all threads, each on its own copy.
Result<double> MeasureProblem(ThreadPool* pool, const Problem& problem, double seconds,
                              int repetitions) {
  std::vector<Operands> operands;
  for (int t = 0; t < pool->size(); ++t) {
    EW_TRY(Operands own, Operands::Create(problem));
    operands.push_back(std::move(own));
  }
  uint64_t products = 1;
  std::vector<double> speeds;
  while (speeds.size() < static_cast<size_t>(repetitions)) {
    const double start = NowSeconds();
    pool->Run([&](int thread) {
      for (uint64_t i = 0; i < products; ++i) operands[static_cast<size_t>(thread)].Multiply();
    });
    const double took = NowSeconds() - start;
    if (took < seconds) {
      products *= 2;
      continue;
    }
    speeds.push_back(problem.ops() * static_cast<double>(products) * pool->size() / took);
  }
  return Percentile(speeds, 0.5);
}

// The shapes fit the first or the second cache level of common cores.
Status MeasureInt8(ThreadPool* pool, const MachineOptions& options, MachineLimits* limits) {
  Problem best = {};
  double best_speed = 0;
  for (const DType dtype : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_K}) {
    const kernels::LinearKernel& kernel = kernels::Active().linear[static_cast<size_t>(dtype)];
    if (!kernel.run || kernel.act == kernels::ActFormat::kF32 || !Info(dtype).encode) continue;
    for (const auto& [rows, columns, n] :
         {std::array<size_t, 3>{16, 512, 16}, {128, 1024, 64}, {256, 1024, 256}}) {
      const Problem problem = {dtype, rows, columns, n};
      EW_TRY(const double speed, MeasureProblem(pool, problem, options.int8_seconds / 5, 1));
      if (speed > best_speed) best_speed = speed, best = problem;
    }
  }
  if (best_speed == 0) {
    return MakeError(Code::kUnsupported, "the kernel table %s has no int8 product",
                     kernels::Active().name);
  }
  EW_TRY(limits->int8_ops_per_s,
         MeasureProblem(pool, best, options.int8_seconds, options.repetitions));
  limits->how += Format(
      "; int8: our fastest matrix kernel (%s) on operands in cache, %s: what our "
      "kernels reach, not the arithmetic peak of the CPU",
      kernels::Active().name, best.Name().c_str());
  return Ok{};
}

}  // namespace

Result<MachineLimits> MeasureMachine(ThreadPool* pool, const MachineOptions& options) {
  if (options.buffer_bytes < (1u << 20) || options.repetitions < 1 || !(options.int8_seconds > 0)) {
    return Error{Code::kInvalidArgument,
                 "measuring the machine needs a buffer of at least 1 MiB, one repetition and a "
                 "positive time"};
  }
  if (const char* problem = kernels::CheckIsa()) return Error{Code::kInvalidArgument, problem};
  MachineLimits limits;
  limits.threads = pool->size();
  limits.how =
      Format("read: median of %d passes over %s of huge pages, one stream per thread, %d at once",
             options.repetitions, FormatBytes(options.buffer_bytes).c_str(), pool->size());
  EW_TRY(limits.read_bytes_per_s, MeasureRead(pool, options));
  EW_TRY(MeasureInt8(pool, options, &limits));
  return limits;
}

MachineDescription DescribeMachine() {
  MachineDescription machine;
  machine.cpu = CpuModelName();
  machine.isa = kernels::CheckIsa() ? "unknown" : kernels::Active().name;
  machine.cpus = ThreadPool::AvailableCpus();
  utsname name = {};
  if (::uname(&name) == 0)
    machine.system = Format("%s %s %s", name.sysname, name.release, name.machine);
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  const long page_bytes = ::sysconf(_SC_PAGESIZE);
  if (pages > 0 && page_bytes > 0) {
    machine.memory_bytes = static_cast<uint64_t>(pages) * static_cast<uint64_t>(page_bytes);
  }
  return machine;
}

Json ToJson(const MachineLimits& limits) {
  Json object;
  object.Set("read_bytes_per_s", limits.read_bytes_per_s);
  object.Set("int8_ops_per_s", limits.int8_ops_per_s);
  object.Set("threads", limits.threads).Set("how", limits.how);
  return object;
}

Json ToJson(const MachineDescription& machine) {
  Json object;
  object.Set("cpu", machine.cpu).Set("isa", machine.isa).Set("system", machine.system);
  object.Set("cpus", machine.cpus).Set("memory_bytes", machine.memory_bytes);
  return object;
}

}  // namespace edgewise
