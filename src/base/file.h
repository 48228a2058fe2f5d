// Files: mapped input, atomic output. Every error message starts with the path.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace edgewise {

// A read-only memory map of a whole regular file; move-only, unmapped on destruction.
// Thread-safe once open. A file truncated by someone else while mapped raises SIGBUS, as with any
// map.
class MappedFile {
 public:
  // Errors: kNotFound (absent, no permission, a directory), kIo.
  static Result<MappedFile> Open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

  // Tells the kernel that these bytes (a part of bytes()) will not be needed again soon; they may
  // be read later all the same. Keeps the resident set small while streaming through a large file.
  void DropPages(std::span<const std::byte> part) const;

 private:
  MappedFile() = default;
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Drops the whole pages of a part of a file that is mapped and shared.
void DropMappedPages(std::span<const std::byte> part);

// Reads a whole file of at most `max_bytes`. Errors: kNotFound, kIo, kBadData (larger than that).
Result<std::string> ReadFile(const std::string& path, uint64_t max_bytes);

// Refuses what is not replaced even where that is wanted: anything but a regular file at `path`.
// Errors: kInvalidArgument.
Status CheckReplaceable(const std::string& path);

// A file that appears under its final name complete, or not at all: written under a temporary name
// in the same directory, fsynced, checked by the caller, renamed. Destroying it before Commit
// removes the temporary. Not thread-safe, except that WriteAt on disjoint ranges may run
// concurrently.
class AtomicFile {
 public:
  // Refuses an existing `path` unless `overwrite`, and anything but a regular file even then.
  // Errors: kInvalidArgument (exists), kIo (no permission, no such directory).
  static Result<AtomicFile> Create(const std::string& path, bool overwrite);
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&& other) noexcept;
  ~AtomicFile();

  // Allocates the blocks of the first `bytes` bytes, so that a full disk is found before the work.
  Status Reserve(uint64_t bytes);
  // Appends at offset(). Errors: kIo (disk full, ...).
  Status Write(std::span<const std::byte> bytes);
  Status Write(std::string_view text) {
    return Write(std::as_bytes(std::span(text.data(), text.size())));
  }
  // Writes at `offset`, without moving offset().
  Status WriteAt(uint64_t offset, std::span<const std::byte> bytes);

  // Fsyncs, runs `verify` on the temporary's path, renames to the final name, fsyncs the directory.
  Status Commit(const std::function<Status(const std::string& temporary_path)>& verify = {});

  uint64_t offset() const { return offset_; }
  const std::string& path() const { return path_; }

 private:
  AtomicFile() = default;
  void Discard();
  std::string path_;
  std::string temporary_;
  int fd_ = -1;
  uint64_t offset_ = 0;
};

// Closes a file descriptor. Move-only.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor();
  int get() const { return fd_; }  // negative: none

 private:
  int fd_ = -1;
};

// A file that grows at its end and stays when the process dies: for journals. Move-only; not
// thread-safe.
class AppendFile {
 public:
  // Creates `path`, or cuts what is there to its first `keep` bytes. Errors: kIo.
  static Result<AppendFile> Open(const std::string& path, uint64_t keep);
  // Errors: kIo (disk full, ...); some of the bytes may be in the file then.
  Status Write(std::span<const std::byte> bytes);
  // Returns when what was written survives a loss of power. Errors: kIo.
  Status Sync();

 private:
  AppendFile() = default;
  std::string path_;
  FileDescriptor fd_;
  uint64_t offset_ = 0;
};

// Renames a file within one file system, replacing `to`, and makes the new name durable. Errors:
// kIo.
Status RenameFile(const std::string& from, const std::string& to);

// The path of a file that somebody makes and that is removed when this goes, or when a signal ends
// the program (RemoveTemporaryFiles). Not copyable.
class TemporaryPath {
 public:
  // Removes what a process that was killed may have left there.
  explicit TemporaryPath(std::string path);
  ~TemporaryPath();
  TemporaryPath(const TemporaryPath&) = delete;
  TemporaryPath& operator=(const TemporaryPath&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Removes the temporaries of every AtomicFile now open. Async-signal-safe: for SIGINT and SIGTERM
// handlers.
void RemoveTemporaryFiles();

bool FileExists(const std::string& path);
bool IsDirectory(const std::string& path);

}  // namespace edgewise
