#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/strings.h"

namespace edgewise {

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) ::close(fd_);
}

namespace {

Error SystemError(Code code, const std::string& path, const char* action, int error) {
  return MakeError(code, "%s: cannot %s: %s", path.c_str(), action, std::strerror(error));
}

// The Error of a failed write: says what to do about the two failures that people meet.
Error WriteError(const std::string& path, int error) {
  const char* advice = error == ENOSPC || error == EDQUOT
                           ? "; free some space or choose another folder"
                       : error == EFBIG ? "; this file system cannot hold a file that large"
                                        : "";
  return MakeError(Code::kIo, "%s: cannot write: %s%s", path.c_str(), std::strerror(error), advice);
}

// Opens a regular file for reading and returns its size through `size`.
Result<int> OpenRegular(const std::string& path, uint64_t* size) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return SystemError(Code::kNotFound, path, "open", errno);
  struct stat info;
  if (::fstat(fd, &info) != 0) {
    const int error = errno;
    ::close(fd);
    return SystemError(Code::kIo, path, "read its size", error);
  }
  if (!S_ISREG(info.st_mode)) {
    ::close(fd);
    return MakeError(Code::kNotFound, "%s: is %s, not a regular file", path.c_str(),
                     S_ISDIR(info.st_mode) ? "a directory" : "a device, pipe or socket");
  }
  *size = static_cast<uint64_t>(info.st_size);
  return fd;
}

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Status WriteAll(int fd, const std::string& path, uint64_t offset,
                std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return WriteError(path, errno);
    offset += static_cast<uint64_t>(count);
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return Ok{};
}

// Paths of unfinished files, in a form that a signal handler may read: slots are claimed and freed
// atomically.
constexpr size_t kMaxUnfinished = 16;
std::atomic<char*> unfinished[kMaxUnfinished];

void Remember(const std::string& path) {
  char* copy = ::strdup(path.c_str());
  for (auto& slot : unfinished) {
    char* empty = nullptr;
    if (copy && slot.compare_exchange_strong(empty, copy)) return;
  }
  std::free(copy);  // more than kMaxUnfinished at once: the rest are removed by destructors only
}

void Forget(const std::string& path) {
  for (auto& slot : unfinished) {
    char* entry = slot.load();
    if (entry && path == entry && slot.compare_exchange_strong(entry, nullptr)) {
      std::free(entry);
      return;
    }
  }
}

}  // namespace

Result<MappedFile> MappedFile::Open(const std::string& path) {
  MappedFile file;
  file.path_ = path;
  uint64_t size = 0;
  EW_TRY(const int raw, OpenRegular(path, &size));
  const FileDescriptor fd(raw);
  file.size_ = size;
  if (size == 0) return file;
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (data == MAP_FAILED) return SystemError(Code::kIo, path, "map", errno);
  file.data_ = static_cast<const std::byte*>(data);
  return file;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::DropPages(std::span<const std::byte> part) const { DropMappedPages(part); }

void DropMappedPages(std::span<const std::byte> part) {
  static const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(part.data()) + page - 1) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(part.data() + part.size()) / page * page;
  // Advice only: a refusal costs memory, not correctness.
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

Result<std::string> ReadFile(const std::string& path, uint64_t max_bytes) {
  uint64_t size = 0;
  EW_TRY(const int raw, OpenRegular(path, &size));
  const FileDescriptor fd(raw);
  if (size > max_bytes) {
    return MakeError(Code::kBadData, "%s: has %llu bytes; at most %llu are read here", path.c_str(),
                     static_cast<unsigned long long>(size),
                     static_cast<unsigned long long>(max_bytes));
  }
  std::string text(size, '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t count = ::read(fd.get(), text.data() + done, text.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return SystemError(Code::kIo, path, "read", errno);
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  text.resize(done);
  return text;
}

Status CheckReplaceable(const std::string& path) {
  struct stat info;
  if (::lstat(path.c_str(), &info) != 0 || S_ISREG(info.st_mode)) return Ok{};
  return MakeError(Code::kInvalidArgument,
                   "%s: exists and is not a regular file, so it is not replaced", path.c_str());
}

Result<AtomicFile> AtomicFile::Create(const std::string& path, bool overwrite) {
  struct stat info;
  if (::lstat(path.c_str(), &info) == 0) {
    if (!overwrite) {
      return MakeError(Code::kInvalidArgument, "%s: already exists; pass --force to replace it",
                       path.c_str());
    }
    EW_TRY(CheckReplaceable(path));
  }
  AtomicFile file;
  file.path_ = path;
  for (int attempt = 0; attempt < 100; ++attempt) {
    file.temporary_ = Format("%s.%d-%d.part", path.c_str(), static_cast<int>(::getpid()), attempt);
    // First remembered, then created: a signal may come as soon as the file exists.
    Remember(file.temporary_);
    file.fd_ = ::open(file.temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file.fd_ >= 0) return file;
    const int error = errno;
    Forget(file.temporary_);
    if (error != EEXIST) return SystemError(Code::kIo, path, "create", error);
  }
  return SystemError(Code::kIo, path, "create", EEXIST);
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::move(other.temporary_)),
      fd_(std::exchange(other.fd_, -1)),
      offset_(std::exchange(other.offset_, 0)) {}

AtomicFile& AtomicFile::operator=(AtomicFile&& other) noexcept {
  if (this != &other) {
    Discard();
    path_ = std::move(other.path_);
    temporary_ = std::move(other.temporary_);
    fd_ = std::exchange(other.fd_, -1);
    offset_ = std::exchange(other.offset_, 0);
  }
  return *this;
}

AtomicFile::~AtomicFile() { Discard(); }

void AtomicFile::Discard() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
  Forget(temporary_);
  fd_ = -1;
}

Status AtomicFile::Reserve(uint64_t bytes) {
  if (bytes == 0) return Ok{};
  const int error = ::posix_fallocate(fd_, 0, static_cast<off_t>(bytes));
  // Some file systems cannot allocate ahead; there the write itself will tell.
  if (error == 0 || error == EOPNOTSUPP || error == EINVAL) return Ok{};
  Error failure = WriteError(path_, error);
  failure.message += Format(" (%s needed)", FormatBytes(bytes).c_str());
  return failure;
}

Status AtomicFile::Write(std::span<const std::byte> bytes) {
  EW_TRY(WriteAt(offset_, bytes));
  offset_ += bytes.size();
  return Ok{};
}

Status AtomicFile::WriteAt(uint64_t offset, std::span<const std::byte> bytes) {
  EW_CHECK(fd_ >= 0);
  return WriteAll(fd_, path_, offset, bytes);
}

Status AtomicFile::Commit(const std::function<Status(const std::string&)>& verify) {
  EW_CHECK(fd_ >= 0);
  if (::fsync(fd_) != 0) return WriteError(path_, errno);
  if (verify) {
    Status checked = verify(temporary_);
    if (!checked) {
      return std::move(checked).error().In(path_ +
                                           ": the file just written does not read back correctly");
    }
  }
  EW_TRY(RenameFile(temporary_, path_));
  Forget(temporary_);
  ::close(std::exchange(fd_, -1));
  return Ok{};
}

Result<AppendFile> AppendFile::Open(const std::string& path, uint64_t keep) {
  AppendFile file;
  file.path_ = path;
  file.fd_ = FileDescriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  if (file.fd_.get() < 0) return SystemError(Code::kIo, path, "open for writing", errno);
  if (::ftruncate(file.fd_.get(), static_cast<off_t>(keep)) != 0) return WriteError(path, errno);
  file.offset_ = keep;
  return file;
}

Status AppendFile::Write(std::span<const std::byte> bytes) {
  EW_TRY(WriteAll(fd_.get(), path_, offset_, bytes));
  offset_ += bytes.size();
  return Ok{};
}

Status AppendFile::Sync() {
  if (::fdatasync(fd_.get()) != 0) return WriteError(path_, errno);
  return Ok{};
}

Status RenameFile(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    return SystemError(Code::kIo, to, "rename the finished file into place", errno);
  }
  const FileDescriptor folder(::open(FolderOf(to).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // The data is safe by now; a folder that cannot be synced only delays when the name is.
  if (folder.get() >= 0) ::fsync(folder.get());
  return Ok{};
}

TemporaryPath::TemporaryPath(std::string path) : path_(std::move(path)) {
  Remember(path_);
  ::unlink(path_.c_str());
}

TemporaryPath::~TemporaryPath() {
  ::unlink(path_.c_str());
  Forget(path_);
}

void RemoveTemporaryFiles() {
  for (auto& slot : unfinished) {
    // Taken out meanwhile, so that no other thread frees it; put back for its owner to free.
    if (char* path = slot.exchange(nullptr)) {
      ::unlink(path);
      slot.store(path);
    }
  }
}

bool FileExists(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0;
}

bool IsDirectory(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

}  // namespace edgewise
