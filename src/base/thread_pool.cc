#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <thread>
#include <vector>

#include "base/check.h"

namespace edgewise {
namespace {

constexpr auto kSpin = std::chrono::microseconds(20);

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Returns when *value differs from `old`: spins for a moment, then sleeps on a futex.
template <class T>
void WaitWhileEqual(std::atomic<T>& value, T old, bool spin) {
  if (spin) {
    const auto deadline = std::chrono::steady_clock::now() + kSpin;
    do {
      for (int i = 0; i < 64; ++i) {
        if (value.load(std::memory_order_acquire) != old) return;
        Pause();
      }
    } while (std::chrono::steady_clock::now() < deadline);
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

}  // namespace

struct ThreadPool::Shared {
  std::atomic<uint32_t> generation{0};  // one more for each job
  std::atomic<int> running{0};          // workers that have not finished the job
  std::atomic<bool> stop{false};
  const FunctionRef<void(int)>* job = nullptr;
  bool spin = true;
  std::vector<std::thread> workers;
};

ThreadPool::ThreadPool(int threads) : size_(threads), shared_(std::make_unique<Shared>()) {
  EW_CHECK(threads >= 1);
  // With more threads than CPUs a spinning thread takes the CPU from the one it waits for.
  shared_->spin = threads <= AvailableCpus();
  for (int thread = 1; thread < threads; ++thread) {
    shared_->workers.emplace_back([this, thread] { Work(thread); });
  }
}

ThreadPool::~ThreadPool() {
  shared_->stop.store(true, std::memory_order_release);
  shared_->generation.fetch_add(1, std::memory_order_release);
  shared_->generation.notify_all();
  for (std::thread& worker : shared_->workers) worker.join();
}

void ThreadPool::Work(int thread) {
  Shared& shared = *shared_;
  uint32_t seen = 0;
  for (;;) {
    WaitWhileEqual(shared.generation, seen, shared.spin);
    ++seen;
    if (shared.stop.load(std::memory_order_acquire)) return;
    (*shared.job)(thread);
    if (shared.running.fetch_sub(1, std::memory_order_acq_rel) == 1) shared.running.notify_one();
  }
}

void ThreadPool::Run(FunctionRef<void(int)> job) {
  if (size_ == 1) return job(0);
  Shared& shared = *shared_;
  shared.job = &job;
  shared.running.store(size_ - 1, std::memory_order_relaxed);
  shared.generation.fetch_add(1, std::memory_order_release);
  shared.generation.notify_all();
  job(0);
  for (int left = shared.running.load(std::memory_order_acquire); left != 0;
       left = shared.running.load(std::memory_order_acquire)) {
    WaitWhileEqual(shared.running, left, shared.spin);
  }
}

void ThreadPool::ParallelFor(size_t count, size_t grain,
                             FunctionRef<void(size_t, size_t, int)> body) {
  EW_CHECK(grain > 0);
  if (count == 0) return;
  if (size_ == 1 || count <= grain) {
    for (size_t begin = 0; begin < count; begin += grain)
      body(begin, std::min(count, begin + grain), 0);
    return;
  }
  std::atomic<size_t> next{0};
  Run([&](int thread) {
    for (;;) {
      const size_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= count) return;
      body(begin, std::min(count, begin + grain), thread);
    }
  });
}

int ThreadPool::AvailableCpus() {
  static const int cpus = [] {
    cpu_set_t set;
    int count = 1;
    if (::sched_getaffinity(0, sizeof(set), &set) == 0) count = std::max(1, CPU_COUNT(&set));
    // cgroup v2: "max 100000" or "<quota> <period>" in microseconds.
    if (std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
      long long quota = 0, period = 0;
      if (std::fscanf(file, "%lld %lld", &quota, &period) == 2 && quota > 0 && period > 0) {
        count = std::clamp(static_cast<int>((quota + period - 1) / period), 1, count);
      }
      std::fclose(file);
    }
    return count;
  }();
  return cpus;
}

}  // namespace edgewise
