// The header of a GGUF file, shared by the reader and the writer, which checks by it what it is
// about to write.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "formats/metadata.h"
#include "tensor/tensor.h"

namespace edgewise {

struct GgufTensorDecl;

inline constexpr uint32_t kGgufVersion = 3;
inline constexpr const char* kGgufAlignmentKey = "general.alignment";

struct GgufHeader {
  uint32_t version = 0;
  uint64_t alignment = 0;
  uint64_t data_offset = 0;
  Metadata metadata;
  TensorIndex tensors;            // views without data where only the header is at hand
  std::vector<uint64_t> offsets;  // of each tensor, from the start of the file
};

// Parses and checks the header at the start of `bytes`, for a file of `file_bytes` in all. Errors:
// kBadData, kUnsupported, kOutOfMemory.
Result<GgufHeader> ParseGgufHeader(std::span<const std::byte> bytes, uint64_t file_bytes);

// Returns the bytes of a file before the tensors, for one that is written by other means than
// GgufWriter. Errors: as GgufWriter::Create.
Result<std::string> BuildGgufHeader(const Metadata& metadata,
                                    std::span<const GgufTensorDecl> tensors);

// Returns general.alignment, or the default where it is absent. Errors: kBadData.
Result<uint64_t> GgufAlignment(const Metadata& metadata);

// Returns `offset` rounded up to a multiple of `alignment`; sizes of files are far from overflow.
inline uint64_t AlignUp(uint64_t offset, uint64_t alignment) {
  return (offset + alignment - 1) / alignment * alignment;
}

}  // namespace edgewise
