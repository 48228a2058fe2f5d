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

// A job is open for workers to join until the caller closes it, and is over when all who joined
// have left. So a worker that the system is slow to wake holds up nobody.
struct ThreadPool::Shared {
  static constexpr uint32_t kOpen = 1u << 15, kJoined = kOpen - 1;

  std::atomic<uint32_t> generation{0};  // one more for each job
  std::atomic<uint32_t> state{0};       // low half of the generation, kOpen, workers that joined
  std::atomic<uint32_t> left{0};        // workers that joined and are done
  std::atomic<bool> stop{false};
  const FunctionRef<void(int)>* job = nullptr;
  bool spin = true;
  std::vector<std::thread> workers;

  void Open(const FunctionRef<void(int)>& work) {
    const uint32_t next = generation.load(std::memory_order_relaxed) + 1;
    job = &work;
    left.store(0, std::memory_order_relaxed);
    state.store(next << 16 | kOpen, std::memory_order_release);
    generation.store(next, std::memory_order_release);
    generation.notify_all();
  }
  // False when that job is closed.
  bool Join(uint32_t of) {
    uint32_t seen = state.load(std::memory_order_relaxed);
    do {
      if ((seen & ~kJoined) != (of << 16 | kOpen)) return false;
    } while (!state.compare_exchange_weak(seen, seen + 1, std::memory_order_acquire,
                                          std::memory_order_relaxed));
    return true;
  }
  void Leave() {
    left.fetch_add(1, std::memory_order_release);
    left.notify_one();
  }
  // Lets no more workers in; returns how many joined.
  uint32_t Close() { return state.fetch_and(~kOpen, std::memory_order_relaxed) & kJoined; }
  void WaitUntilLeft(uint32_t count) {
    for (uint32_t now = left.load(std::memory_order_acquire); now != count;
         now = left.load(std::memory_order_acquire)) {
      WaitWhileEqual(left, now, spin);
    }
  }
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
    seen = shared.generation.load(std::memory_order_acquire);
    if (shared.stop.load(std::memory_order_acquire)) return;
    if (!shared.Join(seen)) continue;
    (*shared.job)(thread);
    shared.Leave();
  }
}

void ThreadPool::Run(FunctionRef<void(int)> job) {
  if (size_ == 1) return job(0);
  shared_->Open(job);
  job(0);
  shared_->WaitUntilLeft(static_cast<uint32_t>(size_ - 1));
  shared_->Close();
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
  const auto take_chunks = [&](int thread) {
    for (;;) {
      const size_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= count) return;
      body(begin, std::min(count, begin + grain), thread);
    }
  };
  const FunctionRef<void(int)> job = take_chunks;
  shared_->Open(job);
  job(0);
  shared_->WaitUntilLeft(shared_->Close());
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
