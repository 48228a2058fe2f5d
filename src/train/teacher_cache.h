// TeacherCache: what a teacher says of each target of a corpus, in a file, so that any number of
// students can learn from it without the teacher.
//
// A GGUF:
//   general.type = "teacher-cache", and keys of TeacherCacheInfo under edgewise.teacher_cache.
//   tensor "blocks", I8 (ceil(targets / 256), 256 record_bytes + 32): records of train/top_k.h in
//   the order of the corpus, zeros after the last, and the SHA-256 of
//     SHA-256 of all of the file before the tensor | u64 number of the block | its records
// Nothing may follow the tensor. So no byte can change, and no block move, without being found.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/progress.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "formats/gguf.h"
#include "train/corpus.h"
#include "train/loss.h"
#include "train/top_k.h"

namespace edgewise::train {

inline constexpr uint64_t kCacheBlockRecords = 256;

// What decides the content of a cache.
struct TeacherCacheInfo {
  uint64_t targets = 0;
  TopKShape shape;
  double temperature = 1;
  uint64_t sequence = 0;  // the context of a token begins at a multiple of it in its document
  std::string engine;     // that ran the teacher: "runtime", "floats-bf16" or "floats-f32"
  // Digests: of the teacher's files, of its tokens, of the data file, of the tokens made of that
  // (CorpusDigest).
  std::string teacher, vocabulary, data, corpus;

  uint64_t blocks() const { return (targets + kCacheBlockRecords - 1) / kCacheBlockRecords; }
  bool operator==(const TeacherCacheInfo&) const = default;
  uint64_t block_bytes() const { return kCacheBlockRecords * shape.record_bytes() + 32; }
};
// Errors: kInvalidArgument (a value out of range, named).
Status CheckCacheInfo(const TeacherCacheInfo& info);

// SHA-256 of all tokens, of what of them is learned and of where documents end, in hexadecimals.
std::string CorpusDigest(const Corpus& corpus);

// Numbers the targets of a corpus: the learned tokens but the first of each document. The corpus
// must outlive it. Immutable.
class TargetIndex {
 public:
  explicit TargetIndex(const Corpus& corpus);
  uint64_t size() const { return starts_.back(); }
  // The number of the first target after token `token` of a document.
  uint64_t After(const Origin& token) const;

 private:
  const Corpus* corpus_;
  std::vector<uint64_t> starts_;  // the first target of each document, and the end
};

// Writes a cache to a file that stays when the process dies. Move-only; not thread-safe.
class TeacherCacheWriter {
 public:
  // Goes on after the whole blocks that `path` holds of this cache, or begins. `metadata` tells
  // where the cache comes from. Errors: kInvalidArgument (CheckCacheInfo), kIo.
  static Result<TeacherCacheWriter> Open(const std::string& path, const TeacherCacheInfo& info,
                                         Metadata metadata);
  uint64_t records() const { return records_; }  // so far
  // Appends whole records. Errors: kInvalidArgument (more than there are targets), kIo.
  Status Append(std::span<const std::byte> records);
  // Makes the whole file durable. Errors: kInvalidArgument (records are missing), kIo.
  Status Finish();

 private:
  TeacherCacheWriter(const TeacherCacheInfo& info, std::string header, AppendFile file);
  Status EndBlock();
  TeacherCacheInfo info_;
  std::string header_digest_;
  AppendFile file_;
  std::vector<std::byte> block_;
  uint64_t records_ = 0;
  double synced_at_ = 0;  // NowSeconds()
};

// A checked file. Immutable, so thread-safe; move-only.
class TeacherCache {
 public:
  // True for the metadata of a cache.
  static bool Is(const Metadata& metadata);
  // Reads all of the file once, in bounded memory, and checks every block. Errors: those of
  // GgufFile; kBadData (no cache; damaged: where), kCancelled.
  static Result<TeacherCache> Open(const std::string& path, ThreadPool* pool, Progress* progress);
  // The same on bytes that the caller keeps alive (tests, fuzzing).
  static Result<TeacherCache> Parse(std::span<const std::byte> bytes);

  const TeacherCacheInfo& info() const { return info_; }
  uint64_t file_bytes() const { return file_.file_bytes(); }
  // Reads a record (< info().targets) as DecodeTopK does. Errors: kBadData, with its number.
  Status Read(uint64_t record, int32_t* ids, float* log_p) const;
  // Lets go of the pages that were read.
  void DropPages() const;

 private:
  explicit TeacherCache(GgufFile file) : file_(std::move(file)) {}
  static Result<TeacherCache> Create(GgufFile file, std::span<const std::byte> bytes);
  const std::byte* Block(uint64_t block) const { return blocks_ + block * info_.block_bytes(); }
  bool BlockIsWhole(uint64_t block) const;
  Status CheckBlocks(ThreadPool* pool, Progress* progress) const;
  GgufFile file_;
  TeacherCacheInfo info_;
  std::string header_digest_;
  const std::byte* blocks_ = nullptr;
};

// Distillation from a cache (DistillationTopK), whose temperature `loss` must have. Batches must be
// of `corpus`, whole (BatchOptions). Cache, corpus and pool must outlive it.
class CachedLoss final : public TokenLoss {
 public:
  CachedLoss(const DistillationLoss& loss, const TeacherCache* cache, const Corpus& corpus,
             ThreadPool* pool)
      : loss_(loss), cache_(cache), index_(corpus), pool_(pool) {}
  // Errors: kInvalidArgument (a batch of no corpus, or of tokens that the cache has not).
  Status Begin(const Batch& batch) override;
  Result<double> Rows(const Batch& batch, std::span<const uint32_t> rows, size_t vocab, float scale,
                      float* logits) override;

 private:
  DistillationLoss loss_;
  const TeacherCache* cache_;
  TargetIndex index_;
  ThreadPool* pool_;
  std::vector<uint64_t> records_;  // of the batch's rows that have targets
  std::vector<int32_t> ids_;       // (threads, k)
  std::vector<float> work_;        // (threads, values and TopKWork)
  std::vector<double> losses_;
};

}  // namespace edgewise::train
