// Writes safetensors files (see safetensors.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/result.h"

namespace edgewise {

// A tensor to be written; `dtype` as the format names it: "F32", "F16", "BF16", "I32", "U8", ...
struct SafetensorsDecl {
  std::string name;
  std::string dtype;
  std::vector<uint64_t> shape;
};

// Writes one file, tensor by tensor in any order; it appears complete or not at all. The tensors
// lie in the file as the reference writer puts them: by falling size of a value, so that each is
// aligned, then in the order of their declaration. Move-only, not thread-safe.
class SafetensorsWriter {
 public:
  // Errors: kInvalidArgument (an existing file, two tensors of a name, a dtype that we do not
  // write), kBadData (a shape of too many bytes), kIo (no permission, the disk is too full for the
  // whole file, ...).
  static Result<SafetensorsWriter> Create(
      const std::string& path, bool overwrite, std::vector<SafetensorsDecl> tensors,
      const std::vector<std::pair<std::string, std::string>>& metadata);
  // Exact size of the finished file.
  uint64_t total_bytes() const { return total_bytes_; }
  // Writes all bytes of tensor `index` of the declaration, once. Errors: kIo.
  Status Write(size_t index, std::span<const std::byte> bytes);
  // Fails unless every tensor is written; re-opens and checks the file, then renames it into place.
  Status Finish();

 private:
  struct Extent {
    uint64_t begin = 0;  // in the file
    uint64_t bytes = 0;
    bool written = false;
  };
  explicit SafetensorsWriter(AtomicFile file) : file_(std::move(file)) {}

  AtomicFile file_;
  std::vector<SafetensorsDecl> tensors_;
  std::vector<Extent> extents_;  // of each tensor
  uint64_t total_bytes_ = 0;
};

}  // namespace edgewise
