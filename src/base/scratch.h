// ScratchMemory: working memory that may lie on disk, for what is larger than the parts of it that
// are in use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "base/result.h"

namespace edgewise {

// Zeroed bytes. Up to kInMemory of them are plain memory; more are a mapped file without a name in
// the folder of temporary files ($TMPDIR, else /tmp), whose space is reserved. Move-only; unmapped
// on destruction.
class ScratchMemory {
 public:
  static constexpr uint64_t kInMemory = 64u << 20;

  // Errors: kIo (no such folder, no permission, disk full), kOutOfMemory.
  static Result<ScratchMemory> Create(uint64_t bytes);
  ScratchMemory() = default;
  ScratchMemory(ScratchMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  ScratchMemory& operator=(ScratchMemory&& other) noexcept;
  ~ScratchMemory();

  std::span<std::byte> bytes() const { return {data_, size_}; }
  // Lets go of the pages of these bytes, which are in a file, until they are used again. Nothing is
  // lost.
  void DropPages(std::span<const std::byte> part) const;

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace edgewise
