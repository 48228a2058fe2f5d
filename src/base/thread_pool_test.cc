#include "base/thread_pool.h"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace edgewise {
namespace {

TEST_CASE("every thread runs each job once") {
  for (const int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads);
    std::vector<int> runs(static_cast<size_t>(threads));
    for (int job = 0; job < 200; ++job)
      pool.Run([&](int thread) { ++runs[static_cast<size_t>(thread)]; });
    for (const int count : runs) CHECK(count == 200);
  }
}

TEST_CASE("chunks cover the range exactly once") {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (const size_t count : {0u, 1u, 2u, 16u, 17u, 1000u}) {
      std::vector<std::atomic<int>> seen(count);
      pool.ParallelFor(count, 16, [&](size_t begin, size_t end, int thread) {
        CHECK(begin < end);
        CHECK(end - begin <= 16);
        CHECK(begin % 16 == 0);
        CHECK(thread < threads);
        for (size_t i = begin; i < end; ++i) seen[i].fetch_add(1);
      });
      for (const auto& hits : seen) REQUIRE(hits.load() == 1);
    }
  }
}

TEST_CASE("workers wake up after sleeping") {
  ThreadPool pool(3);
  std::atomic<int> runs{0};
  for (int job = 0; job < 5; ++job) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    pool.Run([&](int) { runs.fetch_add(1); });
  }
  CHECK(runs.load() == 15);
}

TEST_CASE("jobs of both kinds follow each other without losing a thread or a chunk") {
  ThreadPool pool(5);  // more than this machine may have
  for (int round = 0; round < 3000; ++round) {
    std::atomic<int> sum{0}, threads{0};
    pool.ParallelFor(7, 1, [&](size_t begin, size_t, int) { sum += static_cast<int>(begin); });
    CHECK(sum == 21);
    if (round % 8 != 0) continue;
    pool.Run([&](int thread) { threads += 1 << 4 * thread; });
    CHECK(threads == 0x11111);
  }
}

TEST_CASE("a slow thread does not stall the rest of the range") {
  ThreadPool pool(2);
  std::atomic<int> by_thread[2] = {};
  pool.ParallelFor(64, 1, [&](size_t, size_t, int thread) {
    if (thread == 1) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    std::this_thread::sleep_for(std::chrono::microseconds(100));
    by_thread[thread].fetch_add(1);
  });
  CHECK(by_thread[0].load() + by_thread[1].load() == 64);
  CHECK(by_thread[0].load() > by_thread[1].load());
}

}  // namespace
}  // namespace edgewise
