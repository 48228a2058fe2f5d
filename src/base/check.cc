#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace edgewise::internal {

void CheckFailed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "edgewise: internal error: %s is false at %s:%d; please report this\n",
               condition, file, line);
  std::abort();
}

}  // namespace edgewise::internal
