#include "pipeline/tensor_journal.h"

#include <cstring>
#include <utility>

#include "base/process.h"
#include "base/strings.h"

namespace edgewise {
namespace {

constexpr uint32_t kMagic = 0x4A545745;  // "EWTJ"

struct Header {
  uint32_t magic;
  uint32_t tensor;
  uint64_t bytes;
};
static_assert(sizeof(Header) == 16);

struct Trailer {
  double squared_error;
  double squared_value;
  uint64_t values;
};
static_assert(sizeof(Trailer) == 24);

constexpr size_t kDigestBytes = 32;

// What a loss of power may cost: the work of a second, or this much of it.
constexpr double kSyncSeconds = 1;
constexpr uint64_t kSyncBytes = 64u << 20;

template <class T>
std::span<const std::byte> BytesOf(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

}  // namespace

JournalRecords ParseTensorJournal(std::span<const std::byte> bytes,
                                  std::span<const uint64_t> sizes) {
  JournalRecords records;
  std::vector<bool> seen(sizes.size());
  while (bytes.size() >= sizeof(Header)) {
    Header header;
    std::memcpy(&header, bytes.data(), sizeof(header));
    const uint64_t around = sizeof(Header) + sizeof(Trailer) + kDigestBytes;
    if (header.magic != kMagic || header.tensor >= sizes.size() || seen[header.tensor] ||
        header.bytes != sizes[header.tensor] || bytes.size() < around ||
        bytes.size() - around < header.bytes) {
      break;
    }
    const auto hashed = bytes.first(sizeof(Header) + header.bytes + sizeof(Trailer));
    Sha256 sha;
    sha.Update(hashed);
    if (std::memcmp(sha.Finish().data(), hashed.data() + hashed.size(), kDigestBytes) != 0) break;
    Trailer trailer;
    std::memcpy(&trailer, hashed.data() + sizeof(Header) + header.bytes, sizeof(trailer));
    records.all.push_back({header.tensor,
                           hashed.subspan(sizeof(Header), header.bytes),
                           {trailer.squared_error, trailer.squared_value, trailer.values}});
    seen[header.tensor] = true;
    bytes = bytes.subspan(around + header.bytes);
    records.bytes += around + header.bytes;
  }
  return records;
}

Result<TensorJournal> TensorJournal::Open(const std::string& path, std::vector<uint64_t> sizes) {
  std::shared_ptr<MappedFile> map;
  JournalRecords records;
  if (FileExists(path)) {
    EW_TRY(MappedFile mapped, MappedFile::Open(path));
    map = std::make_shared<MappedFile>(std::move(mapped));
    records = ParseTensorJournal(map->bytes(), sizes);
    map->DropPages(map->bytes());
  }
  EW_TRY(AppendFile file, AppendFile::Open(path, records.bytes));
  TensorJournal journal(std::move(map), std::move(file));
  for (const JournalRecord& record : records.all) journal.found_.emplace(record.tensor, record);
  journal.sizes_ = std::move(sizes);
  journal.synced_at_ = NowSeconds();
  return journal;
}

Result<TensorJournal> TensorJournal::Open(const std::string& path,
                                          std::span<const TensorPlan> plan) {
  std::vector<uint64_t> sizes;
  for (const TensorPlan& tensor : plan) {
    EW_TRY(const uint64_t size,
           TensorBytes(tensor.to, tensor.shape, tensor.layout).In(tensor.name));
    sizes.push_back(size);
  }
  return Open(path, std::move(sizes));
}

const JournalRecord* TensorJournal::Find(size_t tensor) const {
  const auto found = found_.find(tensor);
  return found == found_.end() ? nullptr : &found->second;
}

Status TensorJournal::Append(std::span<const std::byte> bytes) {
  sha_->Update(bytes);
  unsynced_ += bytes.size();
  return file_.Write(bytes);
}

Status TensorJournal::Begin(size_t tensor) {
  sha_.emplace();
  appended_.insert(tensor);
  return Append(BytesOf(Header{kMagic, static_cast<uint32_t>(tensor), sizes_[tensor]}));
}

Status TensorJournal::Write(std::span<const std::byte> bytes) { return Append(bytes); }

Status TensorJournal::End(const EncodeError& error) {
  EW_TRY(Append(BytesOf(Trailer{error.squared_error, error.squared_value, error.values})));
  EW_TRY(file_.Write(BytesOf(sha_->Finish())));
  if (unsynced_ < kSyncBytes && NowSeconds() - synced_at_ < kSyncSeconds) return Ok{};
  EW_TRY(file_.Sync());
  unsynced_ = 0;
  synced_at_ = NowSeconds();
  return Ok{};
}

Status JournaledWriter::Begin(size_t tensor) {
  EW_TRY(file_.Begin(tensor));
  return journal_ ? journal_->Begin(tensor) : Status(Ok{});
}

Status JournaledWriter::Write(std::span<const std::byte> bytes) {
  EW_TRY(file_.Write(bytes));
  return journal_ ? journal_->Write(bytes) : Status(Ok{});
}

Status JournaledWriter::End(const EncodeError& error) {
  return journal_ ? journal_->End(error) : Status(Ok{});
}

Status JournaledWriter::Copy(const JournalRecord& record) {
  EW_TRY(file_.Begin(record.tensor));
  return file_.Write(record.bytes);
}

}  // namespace edgewise
