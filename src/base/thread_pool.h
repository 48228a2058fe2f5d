// ThreadPool: fork-join for compute. Workers spin at most 50 us for the next job, then sleep on a
// futex.
#pragma once

#include <cstddef>
#include <memory>
#include <type_traits>

namespace edgewise {

// A non-owning reference to a callable, valid during the call it is passed to.
template <class Signature>
class FunctionRef;
template <class R, class... Args>
class FunctionRef<R(Args...)> {
 public:
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>)
  FunctionRef(F&& f)  // NOLINT(google-explicit-constructor)
      : object_(const_cast<void*>(static_cast<const void*>(&f))),
        call_([](void* object, Args... args) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(object))(static_cast<Args&&>(args)...);
        }) {}
  R operator()(Args... args) const { return call_(object_, static_cast<Args&&>(args)...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

// One job at a time: the calling thread takes part as thread 0. Calls from different threads must
// not overlap. A job must not call its own pool.
class ThreadPool {
 public:
  // `threads` >= 1 is the number of threads that work on a job, the caller's included.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  // Runs job(thread) once on each thread, 0 <= thread < size(); returns when all are done.
  void Run(FunctionRef<void(int thread)> job);

  // Covers [0, count) by body(begin, end, thread) on chunks of `grain` (the last may be shorter),
  // handed out dynamically so that a slow core does not stall the rest; a thread that wakes too late
  // takes none. Which thread gets which chunk is not fixed, so a result may depend on the chunk but
  // must not depend on the thread.
  void ParallelFor(size_t count, size_t grain,
                   FunctionRef<void(size_t begin, size_t end, int thread)> body);

  // The number of CPUs this process may run on (affinity and cgroup quota respected), at least 1.
  static int AvailableCpus();

 private:
  struct Shared;
  void Work(int thread);
  int size_;
  std::unique_ptr<Shared> shared_;
};

}  // namespace edgewise
