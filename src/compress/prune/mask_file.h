// Masks in files: a mask file, or any pruned model, whose zeros say what is pruned.
//
// A mask file is a GGUF:
//   general.type = "mask"
//   edgewise.mask.columns  u32 for each tensor: weights in a row
//   tensors, named after the weights: I8 (rows, ceil(columns / 8)), bits as in Mask::ToBytes
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"
#include "compress/prune/mask.h"
#include "formats/gguf.h"
#include "formats/metadata.h"
#include "model/checkpoint.h"

namespace edgewise {

// The weights that a mask is of.
struct MaskedWeight {
  std::string name;
  size_t rows = 0, columns = 0;
};

// An opened mask file; immutable, so thread-safe. Move-only.
class MaskFile {
 public:
  // True for the metadata of a mask file.
  static bool Is(const Metadata& metadata);
  // Takes the opened file at `path`. Errors: kBadData (not a mask file, columns that do not fit).
  static Result<MaskFile> Create(GgufFile file, const std::string& path);
  // The same on bytes that the caller keeps alive (tests, fuzzing). Errors also: GgufFile::Parse.
  static Result<MaskFile> Parse(std::span<const std::byte> bytes);

  // In the order of the file.
  std::span<const MaskedWeight> weights() const { return weights_; }
  // Returns the mask of weight `index`. Errors: kBadData (Mask::FromBytes).
  Result<Mask> Load(size_t index) const;

 private:
  MaskFile(GgufFile file, std::string path) : file_(std::move(file)), path_(std::move(path)) {}
  GgufFile file_;
  std::string path_;
  std::vector<MaskedWeight> weights_;
};

// Writes a mask file; nothing appears under its name before Finish. Not thread-safe.
class MaskWriter {
 public:
  // `metadata` tells where the masks come from. Errors: those of GgufWriter.
  static Result<MaskWriter> Create(const std::string& path, bool overwrite, Metadata metadata,
                                   std::vector<MaskedWeight> weights);
  // The mask of weight `index`, each once in any order. Errors: those of GgufWriter;
  // kInvalidArgument (Mask::CheckShape).
  Status Write(size_t index, const Mask& mask);
  // Errors: those of GgufWriter.
  Status Finish() { return file_.Finish(); }

 private:
  MaskWriter(GgufWriter file, std::vector<MaskedWeight> weights)
      : file_(std::move(file)), weights_(std::move(weights)) {}
  GgufWriter file_;
  std::vector<MaskedWeight> weights_;
};

// The masks of several files together; a weight stays where all keep it. Immutable, so thread-safe.
class MaskSet {
 public:
  // Each path is a mask file or a model. Errors: those of MaskFile and Checkpoint::Open.
  static Result<MaskSet> Open(std::span<const std::string> paths);
  // Errors: kInvalidArgument (a file has no such weight, or one of another shape; it is named).
  Status Check(const MaskedWeight& weight) const;
  // Errors: those of Check, MaskFile::Load and Checkpoint::Load.
  Result<Mask> Load(const MaskedWeight& weight) const;

 private:
  struct Source {
    std::string path;
    std::variant<MaskFile, Checkpoint> file;
  };
  static Result<size_t> Find(const Source& source, const MaskedWeight& weight);
  std::vector<Source> sources_;
};

}  // namespace edgewise
