#include "base/scratch.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "base/process.h"

namespace edgewise {
namespace {

// Puts TMPDIR back at the end.
class TemporaryFolderNamed {
 public:
  explicit TemporaryFolderNamed(const char* folder) {
    if (const char* before = std::getenv("TMPDIR")) before_ = before;
    ::setenv("TMPDIR", folder, 1);
  }
  ~TemporaryFolderNamed() {
    if (before_.empty()) {
      ::unsetenv("TMPDIR");
    } else {
      ::setenv("TMPDIR", before_.c_str(), 1);
    }
  }

 private:
  std::string before_;
};

TEST_CASE("what was written is there after its pages were dropped") {
  for (const uint64_t size : {uint64_t{0}, uint64_t{4096}, ScratchMemory::kInMemory + 12345}) {
    CAPTURE(size);
    auto memory = ScratchMemory::Create(size);
    REQUIRE_MESSAGE(memory, (memory ? "" : memory.error().message));
    REQUIRE(memory->bytes().size() == size);
    if (size == 0) continue;
    CHECK(memory->bytes()[size - 1] == std::byte{0});
    std::memset(memory->bytes().data(), 7, size);
    const uint64_t full = ReadMemoryUse().rss_bytes;
    memory->DropPages(memory->bytes());
    if (size > ScratchMemory::kInMemory) CHECK(ReadMemoryUse().rss_bytes + size / 2 < full);
    CHECK(memory->bytes()[0] == std::byte{7});
    CHECK(memory->bytes()[size - 1] == std::byte{7});
    const ScratchMemory moved = *std::move(memory);
    CHECK(moved.bytes()[size / 2] == std::byte{7});
  }
}

TEST_CASE("a folder without room is named, with what to do") {
  const TemporaryFolderNamed named("/nonexistent");
  const auto memory = ScratchMemory::Create(ScratchMemory::kInMemory + 1);
  REQUIRE(!memory);
  CHECK(memory.error().code == Code::kIo);
  CHECK(memory.error().message.find("/nonexistent") != std::string::npos);
  CHECK(memory.error().message.find("TMPDIR") != std::string::npos);
  CHECK(ScratchMemory::Create(4096));
}

}  // namespace
}  // namespace edgewise
