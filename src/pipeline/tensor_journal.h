// TensorJournal: the finished tensors of a GGUF in the making, so that a run that was killed goes
// on with the first unfinished one. A file of records that is only appended to:
//   "EWTJ", u32 tensor, u64 bytes | the bytes | f64 squared error, f64 squared value, u64 values,
//   SHA-256 of all of the record before it
// Whatever follows the first record that is cut short or damaged is dropped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "base/sha256.h"
#include "compress/quantize/quantize.h"
#include "formats/gguf.h"

namespace edgewise {

struct JournalRecord {
  size_t tensor = 0;
  std::span<const std::byte> bytes;
  EncodeError error;
};

struct JournalRecords {
  std::vector<JournalRecord> all;  // into the parsed bytes; no tensor twice
  uint64_t bytes = 0;              // of these records
};

// Returns the whole records at the start of `bytes` that are of tensors with these `sizes`.
JournalRecords ParseTensorJournal(std::span<const std::byte> bytes,
                                  std::span<const uint64_t> sizes);

// Move-only; not thread-safe.
class TensorJournal {
 public:
  // Opens or creates `path` for tensors of `sizes` bytes. Errors: kIo, kNotFound (not a file).
  static Result<TensorJournal> Open(const std::string& path, std::vector<uint64_t> sizes);
  // The same for the tensors of a plan, by their index in it. Errors: kBadData too (a shape).
  static Result<TensorJournal> Open(const std::string& path, std::span<const TensorPlan> plan);
  // What an earlier run finished of `tensor`, or null. Valid as long as the journal.
  const JournalRecord* Find(size_t tensor) const;
  // True where an earlier run finished `tensor`, or this one has begun it.
  bool Holds(size_t tensor) const { return Find(tensor) != nullptr || appended_.contains(tensor); }

  // Appends a record: its tensor, its bytes in pieces, its error. Errors: kIo.
  Status Begin(size_t tensor);
  Status Write(std::span<const std::byte> bytes);
  Status End(const EncodeError& error);

 private:
  TensorJournal(std::shared_ptr<MappedFile> map, AppendFile file)
      : map_(std::move(map)), file_(std::move(file)) {}
  Status Append(std::span<const std::byte> bytes);
  std::shared_ptr<MappedFile> map_;  // of the earlier runs' records; null: none
  AppendFile file_;
  std::vector<uint64_t> sizes_;
  std::unordered_map<size_t, JournalRecord> found_;
  std::unordered_set<size_t> appended_;
  std::optional<Sha256> sha_;  // of the record being written
  uint64_t unsynced_ = 0;      // bytes
  double synced_at_ = 0;       // NowSeconds()
};

// A GGUF in the making whose finished tensors are kept in a journal too, if there is one.
class JournaledWriter {
 public:
  JournaledWriter(GgufWriter file, std::optional<TensorJournal> journal)
      : file_(std::move(file)), journal_(std::move(journal)) {}
  GgufWriter& file() { return file_; }
  // What an earlier run finished of `tensor`, or null.
  const JournalRecord* Finished(size_t tensor) const {
    return journal_ ? journal_->Find(tensor) : nullptr;
  }
  // A tensor, as GgufWriter and TensorJournal take it. Errors: those of both.
  Status Begin(size_t tensor);
  Status Write(std::span<const std::byte> bytes);
  Status End(const EncodeError& error);
  // Writes the whole tensor that an earlier run finished.
  Status Copy(const JournalRecord& record);

 private:
  GgufWriter file_;
  std::optional<TensorJournal> journal_;
};

}  // namespace edgewise
