#include "eval/machine.h"

#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <array>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "base/process.h"
#include "base/strings.h"
#include "eval/percentile.h"
#include "kernels/kernels.h"

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

// Separate sums let the compiler keep several vector loads in flight. Where memory is far from the
// core, reading without prefetches reaches two thirds of the speed.
uint64_t Sum(std::span<const uint64_t> words) {
  constexpr size_t kAhead = 4096 / sizeof(uint64_t), kLine = 64 / sizeof(uint64_t);
  std::array<uint64_t, 16> sums = {};
  size_t i = 0;
  for (; i + sums.size() <= words.size(); i += sums.size()) {
    if (i + kAhead + kLine < words.size()) {
      __builtin_prefetch(&words[i + kAhead]);
      __builtin_prefetch(&words[i + kAhead + kLine]);
    }
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

// Operations per second of all threads together.
double MeasureInt8(ThreadPool* pool, const MachineOptions& options) {
  const auto products = kernels::Active().int8_products;
  std::vector<uint64_t> done(static_cast<size_t>(pool->size()));
  std::vector<double> speeds;
  for (uint64_t rounds = 1024; speeds.size() < static_cast<size_t>(options.repetitions);) {
    const double start = NowSeconds();
    pool->Run([&](int thread) { done[static_cast<size_t>(thread)] = products(rounds); });
    const double took = NowSeconds() - start;
    if (took < options.int8_seconds) {
      rounds *= 2;
      continue;
    }
    const uint64_t all = std::accumulate(done.begin(), done.end(), uint64_t{0});
    speeds.push_back(static_cast<double>(all) / took);
  }
  return Percentile(speeds, 0.5);
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
  limits.how = Format(
      "read: median of %d passes over %s of huge pages, one stream per thread, %d at once; "
      "int8: products of registers (%s)",
      options.repetitions, FormatBytes(options.buffer_bytes).c_str(), pool->size(),
      kernels::Active().name);
  EW_TRY(limits.read_bytes_per_s, MeasureRead(pool, options));
  limits.int8_ops_per_s = MeasureInt8(pool, options);
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
