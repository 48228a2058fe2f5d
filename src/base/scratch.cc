#include "base/scratch.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "base/file.h"
#include "base/strings.h"

namespace edgewise {
namespace {

Error Failed(const std::string& folder, uint64_t bytes, int error) {
  return MakeError(Code::kIo, "%s: no temporary file of %s there: %s; TMPDIR names another folder",
                   folder.c_str(), FormatBytes(bytes).c_str(), std::strerror(error));
}

Result<FileDescriptor> CreateTemporary(uint64_t bytes) {
  const char* named = std::getenv("TMPDIR");
  const std::string folder = named != nullptr && *named != '\0' ? named : "/tmp";
  std::string name = folder + "/edgewise-XXXXXX";
  FileDescriptor file(::mkostemp(name.data(), O_CLOEXEC));
  if (file.get() < 0) return Failed(folder, bytes, errno);
  ::unlink(name.c_str());
  // Reserved, because a full disk would otherwise end the process at some later write.
  const int error = ::posix_fallocate(file.get(), 0, static_cast<off_t>(bytes));
  if (error != 0) return Failed(folder, bytes, error);
  return file;
}

}  // namespace

Result<ScratchMemory> ScratchMemory::Create(uint64_t bytes) {
  ScratchMemory memory;
  if (bytes == 0) return memory;
  FileDescriptor file;
  if (bytes > kInMemory) {
    EW_TRY(file, CreateTemporary(bytes));
  }
  const int flags = bytes > kInMemory ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
  void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, file.get(), 0);
  if (data == MAP_FAILED) {
    return MakeError(Code::kOutOfMemory, "%s of working memory: %s", FormatBytes(bytes).c_str(),
                     std::strerror(errno));
  }
  memory.data_ = static_cast<std::byte*>(data);
  memory.size_ = bytes;
  return memory;
}

ScratchMemory& ScratchMemory::operator=(ScratchMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

ScratchMemory::~ScratchMemory() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

void ScratchMemory::DropPages(std::span<const std::byte> part) const {
  if (size_ > kInMemory) DropMappedPages(part);
}

}  // namespace edgewise
