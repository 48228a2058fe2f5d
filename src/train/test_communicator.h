// Test only: processes that are threads of one.
#pragma once

#include <algorithm>
#include <barrier>
#include <optional>
#include <thread>
#include <vector>

#include "train/communicator.h"

namespace edgewise::train {

class ThreadCommunicator final : public Communicator {
 public:
  struct Shared {
    explicit Shared(int size) : barrier(size), addresses(static_cast<size_t>(size)) {}
    std::barrier<> barrier;
    std::vector<const void*> addresses;  // by rank: what it gives
  };
  ThreadCommunicator(Shared* shared, int rank) : shared_(*shared), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(shared_.addresses.size()); }
  void Collect(std::span<const float> values, int ranks,
               FunctionRef<void(size_t at, std::span<const float> piece)> take) override {
    const Part part = PartOf(values.size(), rank_);
    Exchange(values.data(), [&] {
      for (int r = 0; r < ranks; ++r) take(0, {Of<float>(r) + part.first, part.count});
    });
  }
  void Gather(std::span<const float> part, std::span<float> all) override {
    Exchange(part.data(), [&] {
      for (int r = 0; r < size(); ++r) {
        const Part theirs = PartOf(all.size(), r);
        std::copy_n(Of<float>(r), theirs.count, all.data() + theirs.first);
      }
    });
  }
  void Sum(std::span<double> values) override {
    const std::vector<double> own(values.begin(), values.end());
    Exchange(own.data(), [&] {
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = 0;
        for (int r = 0; r < size(); ++r) values[i] += Of<double>(r)[i];
      }
    });
  }
  void Broadcast(std::span<std::byte> bytes) override {
    Exchange(bytes.data(), [&] {
      if (rank_ != 0) std::copy_n(Of<std::byte>(0), bytes.size(), bytes.data());
    });
  }
  Status Agree(Status status) override {
    std::optional<Error> lowest;
    Exchange(&status, [&] {
      for (int r = 0; r < size() && !lowest; ++r) {
        if (!*Of<Status>(r)) lowest = Of<Status>(r)->error();
      }
    });
    return lowest ? Status(*lowest) : Status(Ok{});
  }

 private:
  template <class T>
  const T* Of(int rank) const {
    return static_cast<const T*>(shared_.addresses[static_cast<size_t>(rank)]);
  }
  // Calls `read` between the moments when all have given their address and when all have read.
  void Exchange(const void* address, FunctionRef<void()> read) {
    shared_.addresses[static_cast<size_t>(rank_)] = address;
    shared_.barrier.arrive_and_wait();
    read();
    shared_.barrier.arrive_and_wait();
  }
  Shared& shared_;
  int rank_;
};

// Runs `body` on each of so many processes.
inline void RunProcesses(int size, FunctionRef<void(Communicator* processes)> body) {
  ThreadCommunicator::Shared shared(size);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      ThreadCommunicator processes(&shared, rank);
      body(&processes);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace edgewise::train
