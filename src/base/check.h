// EW_CHECK: an invariant of our own code. Never reachable from a file, a flag or a request.
#pragma once

namespace edgewise::internal {
[[noreturn]] void CheckFailed(const char* condition, const char* file, int line);
}  // namespace edgewise::internal

#define EW_CHECK(condition)     \
  (static_cast<bool>(condition) \
       ? static_cast<void>(0)   \
       : ::edgewise::internal::CheckFailed(#condition, __FILE__, __LINE__))
