#include "base/file.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/strings.h"
#include "tests/test_data.h"

namespace edgewise {
namespace {

size_t FilesIn(const std::string& folder) {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder)) ++count;
  return count;
}

TEST_CASE("an atomic file appears only when committed") {
  TemporaryFolder folder;
  const std::string path = folder / "out.bin";
  {
    auto file = AtomicFile::Create(path, false);
    REQUIRE(file);
    REQUIRE(file->Write("hello "));
    REQUIRE(file->Write("world"));
    CHECK(!FileExists(path));
    CHECK(FilesIn(folder.path()) == 1);
    REQUIRE(file->Commit());
  }
  CHECK(*ReadFile(path, 100) == "hello world");
  CHECK(FilesIn(folder.path()) == 1);
}

TEST_CASE("an abandoned or unverified atomic file leaves nothing and keeps the old file") {
  TemporaryFolder folder;
  const std::string path = folder / "out.bin";
  std::ofstream(path) << "old";
  {
    auto file = AtomicFile::Create(path, true);
    REQUIRE(file);
    REQUIRE(file->Write("new"));
  }
  CHECK(*ReadFile(path, 100) == "old");
  {
    auto file = AtomicFile::Create(path, true);
    REQUIRE(file->Write("new"));
    const Status status =
        file->Commit([](const std::string&) -> Status { return Error{Code::kBadData, "bad sum"}; });
    REQUIRE(!status);
    CHECK(status.error().message.find("bad sum") != std::string::npos);
  }
  CHECK(*ReadFile(path, 100) == "old");
  CHECK(FilesIn(folder.path()) == 1);
}

TEST_CASE("temporaries can be removed from a signal handler") {
  TemporaryFolder folder;
  auto file = AtomicFile::Create(folder / "out.bin", false);
  REQUIRE(file);
  CHECK(FilesIn(folder.path()) == 1);
  RemoveTemporaryFiles();
  CHECK(FilesIn(folder.path()) == 0);
}

TEST_CASE("creating refuses what it should") {
  TemporaryFolder folder;
  std::ofstream(folder / "there") << "x";
  CHECK(AtomicFile::Create(folder / "there", false).error().code == Code::kInvalidArgument);
  CHECK(AtomicFile::Create(folder.path(), true).error().code == Code::kInvalidArgument);
  CHECK(AtomicFile::Create(folder / "no/such/folder", true).error().code == Code::kIo);
}

TEST_CASE("reserving more than the disk holds fails before anything is written") {
  TemporaryFolder folder;
  auto file = AtomicFile::Create(folder / "huge", false);
  REQUIRE(file);
  const Status status = file->Reserve(uint64_t{1} << 60);
  REQUIRE(!status);
  CHECK(status.error().code == Code::kIo);
}

TEST_CASE("mapping and reading name the path and the reason") {
  TemporaryFolder folder;
  CHECK(MappedFile::Open(folder / "absent").error().code == Code::kNotFound);
  CHECK(MappedFile::Open(folder / "absent").error().message.find("absent: cannot open") !=
        std::string::npos);
  CHECK(MappedFile::Open(folder.path()).error().message.find("is a directory") !=
        std::string::npos);
  std::ofstream(folder / "empty");
  auto empty = MappedFile::Open(folder / "empty");
  REQUIRE(empty);
  CHECK(empty->bytes().empty());
  std::ofstream(folder / "data") << "12345";
  auto data = MappedFile::Open(folder / "data");
  REQUIRE(data);
  CHECK(data->bytes().size() == 5);
  data->DropPages(data->bytes());
  CHECK(static_cast<char>(data->bytes()[4]) == '5');
  CHECK(ReadFile(folder / "data", 4).error().code == Code::kBadData);
}

TEST_CASE("an appended file stays, and goes on behind what is to be kept") {
  TemporaryFolder folder;
  const std::string path = folder / "journal";
  const auto bytes = [](std::string_view text) {
    return std::as_bytes(std::span(text.data(), text.size()));
  };
  {
    auto file = AppendFile::Open(path, 0);
    REQUIRE(file);
    REQUIRE(file->Write(bytes("first,")));
    REQUIRE(file->Write(bytes("second")));
    REQUIRE(file->Sync());
  }
  {
    auto file = AppendFile::Open(path, 6);
    REQUIRE(file);
    REQUIRE(file->Write(bytes("next")));
  }
  CHECK(*ReadFile(path, 100) == "first,next");
  REQUIRE(RenameFile(path, folder / "renamed"));
  CHECK(!FileExists(path));
  CHECK(*ReadFile(folder / "renamed", 100) == "first,next");
  CHECK(!RenameFile(path, folder / "renamed"));
  CHECK(!AppendFile::Open(folder / "absent/journal", 0));
}

}  // namespace
}  // namespace edgewise
