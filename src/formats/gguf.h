// GGUF v3 (ggml/docs/gguf.md): reader on a memory map, streaming writer. Knows nothing of
// architectures.
//
// offset        size  field
// 0             4     "GGUF"
// 4             4     version, u32 (2 and 3 are read, 3 is written)
// 8             8     tensor count, u64
// 16            8     metadata count, u64
// 24            ...   metadata: key (u64 length, bytes), type u32, value
// ...           ...   tensor infos: name, rank u32, dims u64 innermost first, type u32, offset
// u64 from the data section aligned       ...   data: each tensor at a multiple of
// general.alignment (32 unless set)
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "formats/metadata.h"
#include "tensor/tensor.h"

namespace edgewise {

inline constexpr uint32_t kGgufDefaultAlignment = 32;

// Type ids of tensors. One in rows has its ggml_type number, as everywhere. A packed one, which
// only Edgewise reads, has this tag ("EW" in the upper half) OR'ed with that number, so that every
// other reader refuses the file. It has two dimensions and a block format; its bytes are those of
// quant/packed_layout.h, its rows padded to a multiple of 16 (PackedBytes).
inline constexpr uint32_t kGgufPackedTag = 0x4557'0000;

// A validated file. Tensor views point into the map and live as long as this object. Immutable, so
// thread-safe; move-only.
class GgufFile {
 public:
  // Maps and checks everything but the tensor values: counts, types, alignment, extents,
  // duplicates. Errors: kNotFound, kIo, kBadData (what and at which byte), kUnsupported (version,
  // tensor type we lack).
  static Result<GgufFile> Open(const std::string& path);
  // The same on bytes that the caller keeps alive (tests, fuzzing).
  static Result<GgufFile> Parse(std::span<const std::byte> bytes);

  const Metadata& metadata() const { return metadata_; }
  const TensorIndex& tensors() const { return tensors_; }
  uint32_t version() const { return version_; }
  uint64_t data_offset() const { return data_offset_; }
  uint64_t file_bytes() const { return file_bytes_; }
  // Null after Parse.
  const MappedFile* map() const { return map_.get(); }

 private:
  std::shared_ptr<MappedFile> map_;
  Metadata metadata_;
  TensorIndex tensors_;
  uint32_t version_ = 0;
  uint64_t data_offset_ = 0;
  uint64_t file_bytes_ = 0;
};

// True when the file begins as a GGUF does. Errors: kNotFound, kIo.
Result<bool> IsGguf(const std::string& path);

struct GgufTensorDecl {
  std::string name;
  DType dtype;
  Shape shape;
  TensorLayout layout = TensorLayout::kRows;
};

// Writes metadata and tensor infos at once, then tensor data, streamed, in declaration order unless
// Begin says otherwise; nothing appears under the final name before Finish. Not thread-safe.
class GgufWriter {
 public:
  // Errors: kInvalidArgument (existing file, duplicate or over-long tensor name, block does not
  // divide a row, metadata that our reader would refuse), kIo (the disk is too full for the whole
  // file, ...).
  static Result<GgufWriter> Create(const std::string& path, bool overwrite,
                                   const Metadata& metadata, std::vector<GgufTensorDecl> tensors);
  // The exact size of the finished file.
  uint64_t total_bytes() const { return total_bytes_; }
  // Makes `tensor`, of which nothing is written yet, the current one. Errors: kInvalidArgument (it
  // is written; the current one is incomplete).
  Status Begin(size_t tensor);
  // Appends to the current tensor; when its size is reached the first unwritten one begins. Never
  // crosses a tensor's end.
  Status Write(std::span<const std::byte> bytes);
  // Writes the header again with other values in the same space, for what is known only after the
  // tensors, such as a digest. Errors: kInvalidArgument (it takes another number of bytes), kIo.
  Status ReplaceMetadata(const Metadata& metadata);
  // Fails unless every tensor is complete; re-opens and checks the file, then renames it into
  // place.
  Status Finish();

 private:
  explicit GgufWriter(AtomicFile file) : file_(std::move(file)) {}
  AtomicFile file_;
  std::vector<GgufTensorDecl> tensors_;
  std::vector<uint64_t> sizes_;    // bytes of each tensor
  std::vector<uint64_t> offsets_;  // absolute
  std::vector<bool> whole_;        // tensors that are written
  size_t current_ = 0;
  uint64_t written_ = 0;  // of the current tensor
  uint64_t total_bytes_ = 0;
};

// Returns the size the file would have, without writing it.
Result<uint64_t> GgufFileBytes(const Metadata& metadata, std::span<const GgufTensorDecl> tensors);
// The part of it before the tensors.
Result<uint64_t> GgufHeaderBytes(const Metadata& metadata, std::span<const GgufTensorDecl> tensors);

}  // namespace edgewise
