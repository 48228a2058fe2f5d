// Causal attention on the CPU, forward and backward, by blocks of queries.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "train/gemm.h"
#include "train/ops.h"

namespace edgewise::train {

// One caller at a time. A piece of work is a key/value head of one sequence with the query heads
// that share it, so that no two threads add to the same gradient.
class CpuAttention {
 public:
  // `precision`: of the factors of its products.
  CpuAttention(ThreadPool* pool, Precision precision);
  ~CpuAttention();
  // As Ops::Attend and Ops::AttendBackward.
  void Forward(const AttentionShape& shape, ConstRows qkv, Rows out, float* log_sums);
  void Backward(const AttentionShape& shape, ConstRows qkv, ConstRows out, const float* log_sums,
                ConstRows dout, Rows dqkv);
  // As Ops::AttendLast.
  void ForwardLast(const AttentionShape& shape, std::span<const size_t> starts, ConstRows qkv,
                   Rows out, float* log_sums);

 private:
  struct Worker;
  struct Item {
    size_t row, length, kv_head;
  };
  template <class Body>
  void ForEachBlock(const AttentionShape& shape, Body&& body);
  ThreadPool* pool_;
  std::vector<std::unique_ptr<Worker>> workers_;  // by thread
  std::vector<Item> items_;
};

}  // namespace edgewise::train
