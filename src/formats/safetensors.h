// safetensors: u64 header length, JSON header {name: {dtype, shape, data_offsets}}, data without
// gaps.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "tensor/tensor.h"

namespace edgewise {

// One validated file. Views live as long as this object. Immutable, so thread-safe; move-only.
class SafetensorsFile {
 public:
  // Errors: kNotFound, kIo, kBadData (rules of the reference reader: contiguous sorted extents,
  // exact file length, no duplicate names), kUnsupported (a dtype we lack).
  static Result<SafetensorsFile> Open(const std::string& path);
  static Result<SafetensorsFile> Parse(std::span<const std::byte> bytes);

  // U8 comes as I8 with the same bits: models use it for packed codes only.
  const TensorIndex& tensors() const { return tensors_; }
  // The "__metadata__" pairs.
  std::span<const std::pair<std::string, std::string>> metadata() const { return metadata_; }
  const MappedFile* map() const { return map_.get(); }

 private:
  std::shared_ptr<MappedFile> map_;
  TensorIndex tensors_;
  std::vector<std::pair<std::string, std::string>> metadata_;
};

}  // namespace edgewise
