// Communicator: the processes that train one model together (data parallel). Each has all weights
// and computes the gradients of its share of a step's batches.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "base/result.h"
#include "base/thread_pool.h"

namespace edgewise::train {

// Rank 0 is the process that writes files and prints. Except for rank, size and PartOf every member
// is collective: all processes call it, in the same order, from one thread each. A process that
// another loses contact with ends them all. This class is a process alone; others derive from it.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const { return 0; }
  virtual int size() const { return 1; }

  // Which of `n` values `rank` adds up: the parts of the ranks lie one behind the other.
  struct Part {
    size_t first, count;
  };
  Part PartOf(size_t n, int rank) const;

  // Hands this rank's part of the `values` of ranks 0, 1, ... below `ranks` to `take`, piece by
  // piece, in this order for each value: a sum is that of one process that has all of them. `at`
  // counts from the beginning of the part. `values` has the same size everywhere.
  virtual void Collect(std::span<const float> values, int ranks,
                       FunctionRef<void(size_t at, std::span<const float> piece)> take);
  // Puts the parts of all ranks together in `all`, on every rank.
  virtual void Gather(std::span<const float> part, std::span<float> all);
  // Adds the values of all ranks up, on every rank; exact where one of them gives other than 0.
  virtual void Sum(std::span<double>) {}
  // Gives everyone the bytes of rank 0.
  virtual void Broadcast(std::span<std::byte>) {}
  // Returns the error of the lowest rank that has one, on every rank: so all end together.
  virtual Status Agree(Status status) { return status; }
};

// The processes of `given`, or this one alone where it is null.
Communicator& OrAlone(Communicator* given);

template <class T>
Result<T> Agree(Communicator& processes, Result<T> result) {
  EW_TRY(processes.Agree(result ? Status(Ok{}) : Status(Error(result.error()))));
  return result;
}

// Joins the processes that a launcher (mpirun) started beside this one. Called at most once. It
// must outlive all that uses it; a process that exits while it is there ends the others. Errors:
// kUnsupported (several were started, and the program has no MPI).
Result<std::unique_ptr<Communicator>> JoinProcesses();

// The MPI library of this program, "Open MPI v4.1.4"; empty: none (edgewise-mpi has one).
std::string MpiVersion();

}  // namespace edgewise::train
