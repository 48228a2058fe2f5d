#include "train/teacher_cache.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/bytes.h"
#include "base/process.h"
#include "base/sha256.h"
#include "base/strings.h"
#include "formats/gguf_header.h"

namespace edgewise::train {
namespace {

using U64 = unsigned long long;
using Digest = std::array<uint8_t, 32>;

constexpr const char* kTypeKey = "general.type";
constexpr const char* kType = "teacher-cache";
constexpr const char* kTensor = "blocks";
constexpr uint64_t kVersion = 1;
constexpr uint64_t kSlabBytes = 64u << 20;  // that are checked between two looks at Progress
constexpr double kSyncSeconds = 1;

constexpr const char* kVersionKey = "edgewise.teacher_cache.version";
constexpr const char* kTargetsKey = "edgewise.teacher_cache.targets";
constexpr const char* kTopKey = "edgewise.teacher_cache.top_k";
constexpr const char* kVocabularySizeKey = "edgewise.teacher_cache.vocabulary_size";
constexpr const char* kTemperatureKey = "edgewise.teacher_cache.temperature";
constexpr const char* kSequenceKey = "edgewise.teacher_cache.sequence";

struct TextKey {
  const char* key;
  std::string TeacherCacheInfo::* value;
};
constexpr TextKey kTexts[] = {
    {"edgewise.teacher_cache.engine", &TeacherCacheInfo::engine},
    {"edgewise.teacher_cache.teacher_sha256", &TeacherCacheInfo::teacher},
    {"edgewise.teacher_cache.vocabulary_sha256", &TeacherCacheInfo::vocabulary},
    {"edgewise.teacher_cache.data_sha256", &TeacherCacheInfo::data},
    {"edgewise.teacher_cache.corpus_sha256", &TeacherCacheInfo::corpus},
};

Result<TeacherCacheInfo> ReadInfo(const Metadata& metadata) {
  EW_TRY(const uint64_t version, metadata.GetUint(kVersionKey));
  if (version != kVersion) {
    return MakeError(Code::kUnsupported, "a teacher cache of version %llu; %llu is known",
                     static_cast<U64>(version), static_cast<U64>(kVersion));
  }
  TeacherCacheInfo info;
  EW_TRY(info.targets, metadata.GetUint(kTargetsKey));
  EW_TRY(const uint64_t k, metadata.GetUint(kTopKey));
  EW_TRY(const uint64_t vocabulary, metadata.GetUint(kVocabularySizeKey));
  if (k > INT32_MAX || vocabulary > INT32_MAX) {
    return MakeError(Code::kBadData, "%llu of %llu tokens are out of range", static_cast<U64>(k),
                     static_cast<U64>(vocabulary));
  }
  info.shape = {static_cast<uint32_t>(k), static_cast<uint32_t>(vocabulary)};
  EW_TRY(info.temperature, metadata.GetDouble(kTemperatureKey));
  EW_TRY(info.sequence, metadata.GetUint(kSequenceKey));
  for (const TextKey& text : kTexts) {
    EW_TRY(info.*text.value, metadata.GetString(text.key));
  }
  if (const Status fits = CheckCacheInfo(info); !fits) {
    return Error{Code::kBadData, fits.error().message};
  }
  return info;
}

Result<std::string> Header(const TeacherCacheInfo& info, Metadata metadata) {
  EW_TRY(CheckCacheInfo(info));
  metadata.Set(kTypeKey, std::string(kType));
  metadata.Set(kVersionKey, kVersion);
  metadata.Set(kTargetsKey, info.targets);
  metadata.Set(kTopKey, info.shape.k);
  metadata.Set(kVocabularySizeKey, info.shape.vocabulary);
  metadata.Set(kTemperatureKey, info.temperature);
  metadata.Set(kSequenceKey, info.sequence);
  for (const TextKey& text : kTexts) metadata.Set(text.key, info.*text.value);
  const GgufTensorDecl tensor = {kTensor, DType::kI8, Shape{info.blocks(), info.block_bytes()}};
  return BuildGgufHeader(metadata, std::span(&tensor, 1));
}

std::span<const std::byte> Bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string DigestOf(std::span<const std::byte> bytes) {
  Sha256 sha;
  sha.Update(bytes);
  const Digest digest = sha.Finish();
  return {digest.begin(), digest.end()};
}

Digest BlockDigest(const std::string& header_digest, uint64_t block,
                   std::span<const std::byte> records) {
  Sha256 sha;
  sha.Update(Bytes(header_digest));
  sha.Update(std::as_bytes(std::span(&block, 1)));
  sha.Update(records);
  return sha.Finish();
}

// True for a block whose digest, behind its records, is right.
bool IsWhole(const std::string& header_digest, uint64_t block, const std::byte* bytes,
             size_t record_bytes) {
  const size_t size = kCacheBlockRecords * record_bytes;
  const Digest digest = BlockDigest(header_digest, block, {bytes, size});
  return std::memcmp(digest.data(), bytes + size, digest.size()) == 0;
}

// How many whole blocks follow the header in the file at `path`, if that is its header.
Result<uint64_t> WholeBlocks(const std::string& path, const TeacherCacheInfo& info,
                             std::span<const std::byte> header) {
  if (!FileExists(path)) return uint64_t{0};
  EW_TRY(const MappedFile map, MappedFile::Open(path));
  const auto bytes = map.bytes();
  if (bytes.size() < header.size() || !std::equal(header.begin(), header.end(), bytes.begin())) {
    return uint64_t{0};
  }
  const std::string digest = DigestOf(header);
  const uint64_t all = std::min((bytes.size() - header.size()) / info.block_bytes(), info.blocks());
  for (uint64_t block = 0; block < all; ++block) {
    const auto part = bytes.subspan(header.size() + block * info.block_bytes(), info.block_bytes());
    if (!IsWhole(digest, block, part.data(), info.shape.record_bytes())) return block;
    map.DropPages(part);
  }
  return all;
}

}  // namespace

Status CheckCacheInfo(const TeacherCacheInfo& info) {
  const TopKShape& shape = info.shape;
  if (shape.vocabulary < 2 || shape.k < 1 || shape.k > shape.vocabulary) {
    return MakeError(Code::kInvalidArgument,
                     "%u tokens of a vocabulary of %u cannot be kept: from 1 to all can", shape.k,
                     shape.vocabulary);
  }
  if (info.targets == 0 || info.sequence < 2) {
    return MakeError(Code::kInvalidArgument,
                     "%llu targets in sequences of %llu tokens: there must be a target, and "
                     "sequences of 2 tokens",
                     static_cast<U64>(info.targets), static_cast<U64>(info.sequence));
  }
  uint64_t bytes = 0;
  if (MulOverflows(info.targets / kCacheBlockRecords + 1, info.block_bytes(), &bytes)) {
    return MakeError(Code::kInvalidArgument, "%llu records of %llu bytes are too many",
                     static_cast<U64>(info.targets), static_cast<U64>(shape.record_bytes()));
  }
  return CheckLoss({.temperature = info.temperature});
}

std::string CorpusDigest(const Corpus& corpus) {
  Sha256 sha;
  for (size_t d = 0; d < corpus.size(); ++d) {
    const auto tokens = corpus.tokens(d);
    const uint64_t size = tokens.size();
    sha.Update(std::as_bytes(std::span(&size, 1)));
    sha.Update(std::as_bytes(tokens));
    sha.Update(std::as_bytes(corpus.learned(d)));
  }
  return ToHex(sha.Finish());
}

TargetIndex::TargetIndex(const Corpus& corpus) : corpus_(&corpus), starts_{0} {
  for (size_t d = 0; d < corpus.size(); ++d) {
    const auto learned = corpus.learned(d);
    const auto first = learned.begin() + !learned.empty();
    starts_.push_back(starts_.back() +
                      static_cast<uint64_t>(learned.end() - first -
                                            std::count(first, learned.end(), uint8_t{0})));
  }
}

uint64_t TargetIndex::After(const Origin& token) const {
  const auto before = corpus_->learned(token.document).subspan(1, token.token);
  const auto context = std::count(before.begin(), before.end(), uint8_t{0});
  return starts_[token.document] + before.size() - static_cast<uint64_t>(context);
}

TeacherCacheWriter::TeacherCacheWriter(const TeacherCacheInfo& info, std::string header_digest,
                                       AppendFile file)
    : info_(info),
      header_digest_(std::move(header_digest)),
      file_(std::move(file)),
      synced_at_(NowSeconds()) {}

Result<TeacherCacheWriter> TeacherCacheWriter::Open(const std::string& path,
                                                    const TeacherCacheInfo& info,
                                                    Metadata metadata) {
  EW_TRY(const std::string header, Header(info, std::move(metadata)));
  EW_TRY(const uint64_t blocks, WholeBlocks(path, info, Bytes(header)));
  const uint64_t kept = blocks == 0 ? 0 : header.size() + blocks * info.block_bytes();
  EW_TRY(AppendFile file, AppendFile::Open(path, kept));
  if (kept == 0) EW_TRY(file.Write(Bytes(header)));
  TeacherCacheWriter writer(info, DigestOf(Bytes(header)), std::move(file));
  writer.records_ = std::min(blocks * kCacheBlockRecords, info.targets);
  return writer;
}

Status TeacherCacheWriter::Append(std::span<const std::byte> records) {
  const uint64_t record_bytes = info_.shape.record_bytes();
  const uint64_t count = records.size() / record_bytes;
  if (records.size() % record_bytes != 0 || count > info_.targets - records_) {
    return MakeError(Code::kInvalidArgument, "%zu bytes of records are too many for %llu targets",
                     records.size(), static_cast<U64>(info_.targets));
  }
  while (!records.empty()) {
    const uint64_t room = kCacheBlockRecords * record_bytes - block_.size();
    const auto part = records.first(std::min<uint64_t>(room, records.size()));
    block_.insert(block_.end(), part.begin(), part.end());
    records = records.subspan(part.size());
    records_ += part.size() / record_bytes;
    if (part.size() == room || records_ == info_.targets) EW_TRY(EndBlock());
  }
  return Ok{};
}

Status TeacherCacheWriter::EndBlock() {
  block_.resize(kCacheBlockRecords * info_.shape.record_bytes());
  const Digest digest = BlockDigest(header_digest_, (records_ - 1) / kCacheBlockRecords, block_);
  const auto bytes = std::as_bytes(std::span(digest));
  block_.insert(block_.end(), bytes.begin(), bytes.end());
  EW_TRY(file_.Write(block_));
  block_.clear();
  if (NowSeconds() - synced_at_ < kSyncSeconds) return Ok{};
  synced_at_ = NowSeconds();
  return file_.Sync();
}

Status TeacherCacheWriter::Finish() {
  if (records_ != info_.targets) {
    return MakeError(Code::kInvalidArgument, "%llu records for %llu targets",
                     static_cast<U64>(records_), static_cast<U64>(info_.targets));
  }
  return file_.Sync();
}

bool TeacherCache::Is(const Metadata& metadata) {
  const auto type = metadata.GetString(kTypeKey);
  return type && *type == kType;
}

Result<TeacherCache> TeacherCache::Create(GgufFile file, std::span<const std::byte> bytes) {
  if (!Is(file.metadata())) {
    return MakeError(Code::kBadData,
                     "no teacher cache: %s is not \"%s\"; `edgewise distill cache` makes one",
                     kTypeKey, kType);
  }
  TeacherCache cache(std::move(file));
  EW_TRY(cache.info_, ReadInfo(cache.file_.metadata()));
  const auto tensors = cache.file_.tensors().all();
  const uint64_t blocks = cache.info_.blocks(), block_bytes = cache.info_.block_bytes();
  if (blocks > bytes.size() / block_bytes) {
    return MakeError(Code::kBadData, "is too small for its %llu blocks of %llu bytes",
                     static_cast<U64>(blocks), static_cast<U64>(block_bytes));
  }
  const Shape shape{blocks, block_bytes};
  const uint64_t end = cache.file_.data_offset() + shape.elements();
  if (tensors.size() != 1 || tensors[0].name != kTensor || tensors[0].view.dtype != DType::kI8 ||
      tensors[0].view.shape != shape ||
      tensors[0].view.data != bytes.data() + cache.file_.data_offset() || bytes.size() != end) {
    return MakeError(Code::kBadData, "must hold the tensor %s of %s bytes and nothing more",
                     kTensor, shape.ToString().c_str());
  }
  cache.blocks_ = tensors[0].view.data;
  cache.header_digest_ = DigestOf(bytes.first(cache.file_.data_offset()));
  return cache;
}

bool TeacherCache::BlockIsWhole(uint64_t block) const {
  return IsWhole(header_digest_, block, Block(block), info_.shape.record_bytes());
}

Status TeacherCache::CheckBlocks(ThreadPool* pool, Progress* progress) const {
  const uint64_t all = info_.blocks(), bytes = info_.block_bytes();
  const uint64_t slab = std::max<uint64_t>(1, kSlabBytes / bytes);
  std::atomic<uint64_t> damaged = all;
  for (uint64_t first = 0; first < all; first += slab) {
    const uint64_t count = std::min(slab, all - first);
    pool->ParallelFor(count, 1, [&](size_t begin, size_t end, int) {
      for (uint64_t block = first + begin; block < first + end; ++block) {
        if (BlockIsWhole(block)) continue;
        uint64_t lowest = damaged;
        while (block < lowest && !damaged.compare_exchange_weak(lowest, block)) {
        }
      }
    });
    if (damaged < all) {
      const uint64_t at = file_.data_offset() + damaged * bytes;
      return MakeError(Code::kBadData,
                       "damaged: block %llu (bytes %llu to %llu) or the header does not have its "
                       "SHA-256; make the cache again",
                       static_cast<U64>(damaged.load()), static_cast<U64>(at),
                       static_cast<U64>(at + bytes));
    }
    if (file_.map() != nullptr) file_.map()->DropPages({Block(first), count * bytes});
    progress->Update("checking the cache", first + count, all);
    if (progress->Cancelled()) return Error{Code::kCancelled, "stopped"};
  }
  return Ok{};
}

Result<TeacherCache> TeacherCache::Open(const std::string& path, ThreadPool* pool,
                                        Progress* progress) {
  EW_TRY(GgufFile file, GgufFile::Open(path));
  const auto bytes = file.map()->bytes();
  EW_TRY(TeacherCache cache, Create(std::move(file), bytes).In(path));
  EW_TRY(cache.CheckBlocks(pool, progress).In(path));
  return cache;
}

Result<TeacherCache> TeacherCache::Parse(std::span<const std::byte> bytes) {
  EW_TRY(GgufFile file, GgufFile::Parse(bytes));
  EW_TRY(TeacherCache cache, Create(std::move(file), bytes));
  ThreadPool pool(1);
  NoProgress progress;
  EW_TRY(cache.CheckBlocks(&pool, &progress));
  return cache;
}

Status TeacherCache::Read(uint64_t record, int32_t* ids, float* log_p) const {
  const std::byte* at =
      Block(record / kCacheBlockRecords) + record % kCacheBlockRecords * info_.shape.record_bytes();
  return DecodeTopK(info_.shape, at, ids, log_p)
      .In(Format("record %llu of the cache", static_cast<U64>(record)));
}

void TeacherCache::DropPages() const {
  if (file_.map() != nullptr) {
    file_.map()->DropPages({blocks_, info_.blocks() * info_.block_bytes()});
  }
}

Status CachedLoss::Begin(const Batch& batch) {
  if (batch.origins.size() != batch.lengths.size()) {
    return MakeError(Code::kInvalidArgument, "a cache is of the tokens of a corpus");
  }
  cache_->DropPages();
  records_.resize(batch.size());
  size_t row = 0;
  for (size_t s = 0; s < batch.lengths.size(); ++s) {
    uint64_t record = index_.After(batch.origins[s]);
    for (uint32_t i = 0; i < batch.lengths[s]; ++i, ++row) {
      records_[row] = record;
      record += batch.targets[row] != kNoTarget;
    }
    if (record > cache_->info().targets || batch.origins[s].token % cache_->info().sequence != 0) {
      return MakeError(Code::kInvalidArgument,
                       "a sequence at token %llu of document %llu is not one of the cache's",
                       static_cast<U64>(batch.origins[s].token),
                       static_cast<U64>(batch.origins[s].document));
    }
  }
  return Ok{};
}

Result<double> CachedLoss::Rows(const Batch& batch, std::span<const uint32_t> rows, size_t vocab,
                                float scale, float* logits) {
  const TopKShape& shape = cache_->info().shape;
  if (vocab != shape.vocabulary) {
    return MakeError(Code::kInvalidArgument, "the cache is of %u tokens, the student of %zu",
                     shape.vocabulary, vocab);
  }
  const auto threads = static_cast<size_t>(pool_->size());
  const size_t work_size = shape.values() + TopKWork(vocab, shape.k);
  ids_.resize(threads * shape.k);
  work_.resize(threads * work_size);
  losses_.resize(rows.size());
  std::vector<Status> problems(threads, Ok{});
  pool_->ParallelFor(rows.size(), 1, [&](size_t begin, size_t end, int thread) {
    const auto t = static_cast<size_t>(thread);
    int32_t* ids = ids_.data() + t * shape.k;
    float* log_p = work_.data() + t * work_size;
    for (size_t i = begin; i < end && problems[t]; ++i) {
      problems[t] = cache_->Read(records_[rows[i]], ids, log_p);
      if (!problems[t]) break;
      losses_[i] = DistillationTopK(loss_, vocab, batch.targets[rows[i]], {ids, shape.k}, log_p,
                                    scale, logits + i * vocab, log_p + shape.values());
    }
  });
  for (const Status& problem : problems) EW_TRY(Status(problem));
  return std::accumulate(losses_.begin(), losses_.end(), 0.0);
}

}  // namespace edgewise::train
