#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "formats/gguf.h"
#include "tests/test_data.h"

using namespace edgewise;

namespace {

const std::vector<GgufTensorDecl> kTensors = {{"a", DType::kF32, {2, 2}}, {"b", DType::kF32, {3}}};

std::vector<std::byte> Zeros(size_t count) { return std::vector<std::byte>(count); }

size_t FilesIn(const TemporaryFolder& folder) {
  const std::filesystem::directory_iterator files(folder.path());
  return static_cast<size_t>(std::distance(begin(files), end(files)));
}

void CheckRefused(const Metadata& metadata, std::vector<GgufTensorDecl> tensors,
                  std::string_view part) {
  const TemporaryFolder folder;
  const auto size = GgufFileBytes(metadata, tensors);
  REQUIRE_FALSE(size);
  CHECK(size.error().code == Code::kInvalidArgument);
  const auto writer = GgufWriter::Create(folder / "x.gguf", false, metadata, std::move(tensors));
  REQUIRE_FALSE(writer);
  CAPTURE(writer.error().message);
  CHECK(writer.error().code == Code::kInvalidArgument);
  CHECK(writer.error().message.find(part) != std::string::npos);
  CHECK(FilesIn(folder) == 0);
}

}  // namespace

TEST_CASE("nothing appears before Finish, and nothing stays without it") {
  const TemporaryFolder folder;
  const std::string path = folder / "x.gguf";
  {
    auto writer = GgufWriter::Create(path, false, {}, kTensors);
    REQUIRE(writer);
    REQUIRE(writer->Write(Zeros(16)));
    CHECK_FALSE(FileExists(path));
    CHECK(FilesIn(folder) == 1);
  }
  CHECK(FilesIn(folder) == 0);
}

TEST_CASE("a process that ends before Finish leaves no file") {
  const TemporaryFolder folder;
  const std::string path = folder / "x.gguf";
  const auto end_in_child = [&](bool cleans_up) {
    const pid_t child = ::fork();
    if (child == 0) {
      auto writer = GgufWriter::Create(path, false, {}, kTensors);
      if (!writer || !writer->Write(Zeros(16))) ::_exit(1);
      if (cleans_up) RemoveTemporaryFiles();  // as the handlers of SIGINT and SIGTERM do
      ::_exit(0);                             // without destructors, as when killed
    }
    int status = -1;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
  };
  end_in_child(true);
  CHECK(FilesIn(folder) == 0);
  end_in_child(false);
  CHECK_FALSE(FileExists(path));

  // What such an end left behind does not stand in the way.
  auto writer = GgufWriter::Create(path, false, {}, kTensors);
  REQUIRE(writer);
  REQUIRE(writer->Write(Zeros(16)));
  REQUIRE(writer->Write(Zeros(12)));
  REQUIRE(writer->Finish());
  CHECK(GgufFile::Open(path));
}

TEST_CASE("data may come in pieces that end at tensors") {
  const TemporaryFolder folder;
  const std::string path = folder / "x.gguf";
  auto writer = GgufWriter::Create(path, false, {}, kTensors);
  REQUIRE(writer);
  for (const size_t piece : {1, 0, 7, 8, 12}) REQUIRE(writer->Write(Zeros(piece)));
  REQUIRE(writer->Finish());
  CHECK(FilesIn(folder) == 1);
  CHECK(std::filesystem::file_size(path) == writer->total_bytes());
  CHECK(GgufFile::Open(path));
}

TEST_CASE("metadata known late replaces values of the same size") {
  const TemporaryFolder folder;
  const std::string path = folder / "x.gguf";
  Metadata metadata;
  metadata.Set("digest", std::string("0000"));
  auto writer = GgufWriter::Create(path, false, metadata, kTensors);
  REQUIRE(writer);
  REQUIRE(writer->Write(Zeros(16)));
  REQUIRE(writer->Write(Zeros(12)));
  metadata.Set("digest", std::string(400, 'x'));
  const auto too_long = writer->ReplaceMetadata(metadata);
  REQUIRE_FALSE(too_long);
  CHECK(too_long.error().code == Code::kInvalidArgument);
  metadata.Set("digest", std::string("beef"));
  REQUIRE(writer->ReplaceMetadata(metadata));
  REQUIRE(writer->Finish());
  const auto file = GgufFile::Open(path);
  REQUIRE(file);
  CHECK(file->metadata().GetString("digest").value_or("") == "beef");
  CHECK(file->tensors().all().size() == 2);
}

TEST_CASE("an existing file is only replaced on request") {
  const TemporaryFolder folder;
  const std::string path = folder / "x.gguf";
  std::ofstream(path) << "precious";
  const auto refused = GgufWriter::Create(path, false, {}, kTensors);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == Code::kInvalidArgument);
  {
    auto abandoned = GgufWriter::Create(path, true, {}, kTensors);
    REQUIRE(abandoned);
  }
  CHECK(*ReadFile(path, 100) == "precious");

  auto writer = GgufWriter::Create(path, true, {}, kTensors);
  REQUIRE(writer);
  REQUIRE(writer->Write(Zeros(16)));
  REQUIRE(writer->Write(Zeros(12)));
  REQUIRE(writer->Finish());
  CHECK(GgufFile::Open(path));
}

TEST_CASE("writing past a tensor's end and finishing early are errors") {
  const TemporaryFolder folder;
  const std::string path = folder / "x.gguf";
  auto writer = GgufWriter::Create(path, false, {}, kTensors);
  REQUIRE(writer);
  const auto past = writer->Write(Zeros(17));
  REQUIRE_FALSE(past);
  CHECK(past.error().code == Code::kInvalidArgument);
  CHECK(past.error().message.find("\"a\"") != std::string::npos);

  REQUIRE(writer->Write(Zeros(15)));
  CHECK_FALSE(writer->Write(Zeros(2)));
  const auto early = writer->Finish();
  REQUIRE_FALSE(early);
  CHECK(early.error().message.find("15 of 16") != std::string::npos);
  REQUIRE(writer->Write(Zeros(1)));
  CHECK_FALSE(writer->Finish());
  REQUIRE(writer->Write(Zeros(12)));
  CHECK_FALSE(writer->Write(Zeros(1)));
  CHECK_FALSE(FileExists(path));
  REQUIRE(writer->Finish());
  CHECK(FileExists(path));
}

TEST_CASE("bad declarations are refused before a file exists") {
  CheckRefused({}, {{"a", DType::kF32, {1}}, {"a", DType::kF32, {1}}}, "two tensors");
  CheckRefused({}, {{"", DType::kF32, {1}}}, "tensor name");
  CheckRefused({}, {{std::string(64, 'n'), DType::kF32, {1}}}, "64 bytes");
  CheckRefused({}, {{"a", DType::kQ4_K, {2, 255}}}, "\"a\"");
  CheckRefused({}, {{"a", DType::kF32, {2, 0}}}, "empty shape");
  CheckRefused({}, {{"a", DType::kF32, {1ull << 62}}}, "overflows");
  CheckRefused({}, {{"a", DType::kI8, {1ull << 63}}, {"b", DType::kI8, {1ull << 63}}}, "too large");
}

TEST_CASE("metadata that a reader would refuse is not written") {
  Metadata alignment;
  alignment.Set("general.alignment", uint32_t{33});
  CheckRefused(alignment, kTensors, "general.alignment");
  Metadata empty_key;
  empty_key.Set("", uint32_t{1});
  CheckRefused(empty_key, kTensors, "empty metadata key");
  Metadata mixed;
  MetaArray array(std::vector<float>{1});
  array.element = MetaType::kU32;
  mixed.Set("mixed", array);
  CheckRefused(mixed, kTensors, "mixed");
  Metadata bools;
  MetaArray flags(std::vector<uint8_t>{2});
  flags.element = MetaType::kBool;
  bools.Set("bools", flags);
  CheckRefused(bools, kTensors, "a bool of value 2");
}

TEST_CASE("folders that cannot be written to") {
  const TemporaryFolder folder;
  const auto absent = GgufWriter::Create(folder / "absent/x.gguf", false, {}, kTensors);
  REQUIRE_FALSE(absent);
  CHECK(absent.error().code == Code::kIo);
  if (::geteuid() == 0) {
    MESSAGE("skipped: root may write to any folder");
    return;
  }
  std::filesystem::permissions(
      folder.path(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
  const auto closed = GgufWriter::Create(folder / "x.gguf", false, {}, kTensors);
  std::filesystem::permissions(folder.path(), std::filesystem::perms::owner_all);
  REQUIRE_FALSE(closed);
  CHECK(closed.error().code == Code::kIo);
}
