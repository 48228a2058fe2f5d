// Relations between tokens on the CPU, by blocks of queries.
#pragma once

#include <memory>
#include <vector>

#include "base/thread_pool.h"
#include "train/ops.h"

namespace edgewise::train {

// One caller at a time. A piece of work is a head of one sequence, so that no two threads add to
// the same gradient.
class CpuRelations {
 public:
  CpuRelations(ThreadPool* pool, Precision precision);
  ~CpuRelations();
  // As Ops::MatchRelations.
  double Match(const RelationShape& shape, ConstRows target, ConstRows x, float scale, Rows dx);

 private:
  struct Worker;
  struct Item {
    size_t row, length, head;
  };
  ThreadPool* pool_;
  std::vector<std::unique_ptr<Worker>> workers_;  // by thread
  std::vector<Item> items_;
  std::vector<double> sums_;  // of the items
};

}  // namespace edgewise::train
