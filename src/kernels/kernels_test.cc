#include "kernels/kernels.h"

#include <doctest/doctest.h>

namespace edgewise::kernels {

TEST_CASE("row sizes") {
  CHECK(ActRowBytes(ActFormat::kF32, 7) == 28);
  CHECK(ActRowBytes(ActFormat::kQ8_32, 64) == 80);
  CHECK(ActRowBytes(ActFormat::kQ8_256, 512) == 584);
  CHECK(KvRowBytes(KvFormat::kF32, 48) == 192);
  CHECK(KvRowBytes(KvFormat::kF16, 48) == 96);
  CHECK(KvRowBytes(KvFormat::kQ8_0, 64) == 68);
  CHECK(KvRowBytes(KvFormat::kQ8_0, 48) == 0);
}

}  // namespace edgewise::kernels
