#include "pipeline/tensor_journal.h"

#include <doctest/doctest.h>

#include <fstream>
#include <sstream>
#include <string>

#include "tests/test_data.h"

namespace edgewise {
namespace {

const std::vector<uint64_t> kSizes = {5, 0, 40, 7};

std::span<const std::byte> Bytes(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

void MustAppend(TensorJournal* journal, size_t tensor, const std::string& bytes, double error) {
  REQUIRE(journal->Begin(tensor));
  REQUIRE(journal->Write(Bytes(bytes.substr(0, bytes.size() / 2))));
  REQUIRE(journal->Write(Bytes(bytes.substr(bytes.size() / 2))));
  REQUIRE(journal->End({error, 2 * error, bytes.size()}));
}

TensorJournal MustOpen(const std::string& path) {
  auto journal = TensorJournal::Open(path, kSizes);
  REQUIRE_MESSAGE(journal, (journal ? "" : journal.error().message));
  return std::move(*journal);
}

TEST_CASE("records come back with their bytes and errors, in any order, over several runs") {
  TemporaryFolder folder;
  const std::string path = folder / "j";
  {
    TensorJournal journal = MustOpen(path);
    CHECK(journal.Find(0) == nullptr);
    MustAppend(&journal, 2, std::string(40, 'c'), 0.5);
    MustAppend(&journal, 0, "hello", 0.25);
  }
  {
    TensorJournal journal = MustOpen(path);
    REQUIRE(journal.Find(2) != nullptr);
    MustAppend(&journal, 1, "", 0);
  }
  const TensorJournal journal = MustOpen(path);
  REQUIRE(journal.Find(0) != nullptr);
  CHECK(std::string(reinterpret_cast<const char*>(journal.Find(0)->bytes.data()), 5) == "hello");
  CHECK(journal.Find(0)->error.squared_error == 0.25);
  CHECK(journal.Find(0)->error.squared_value == 0.5);
  CHECK(journal.Find(0)->error.values == 5);
  CHECK(journal.Find(1) != nullptr);
  CHECK(journal.Find(2) != nullptr);
  CHECK(journal.Find(3) == nullptr);
}

TEST_CASE("cut or damaged anywhere, the records before are kept and the rest is written again") {
  TemporaryFolder folder;
  const std::string path = folder / "j";
  {
    TensorJournal journal = MustOpen(path);
    MustAppend(&journal, 0, "hello", 1);
    MustAppend(&journal, 3, "another", 1);
  }
  const std::string whole = ReadWhole(path);
  const uint64_t first = ParseTensorJournal(Bytes(whole), kSizes).all.size() == 2
                             ? whole.size() - (whole.size() - 5 - 7) / 2 - 7
                             : 0;
  REQUIRE(first == 16 + 5 + 24 + 32);
  for (size_t size = 0; size < whole.size(); ++size) {
    const std::string cut = whole.substr(0, size);
    const JournalRecords records = ParseTensorJournal(Bytes(cut), kSizes);
    CHECK(records.all.size() == (size < first ? 0u : 1u));
    CHECK(records.bytes == (size < first ? 0 : first));
    std::string damaged = whole;
    damaged[size] = static_cast<char>(damaged[size] ^ 0x10);
    CHECK(ParseTensorJournal(Bytes(damaged), kSizes).all.size() == (size < first ? 0u : 1u));
  }
  std::ofstream(path, std::ios::binary) << whole.substr(0, whole.size() - 1);
  {
    TensorJournal journal = MustOpen(path);
    CHECK(journal.Find(3) == nullptr);
    MustAppend(&journal, 3, "another", 1);
  }
  CHECK(ReadWhole(path) == whole);
}

TEST_CASE("records of other tensors end the journal") {
  TemporaryFolder folder;
  const std::string path = folder / "j";
  {
    TensorJournal journal = MustOpen(path);
    MustAppend(&journal, 3, "another", 1);
  }
  const std::string whole = ReadWhole(path);
  CHECK(ParseTensorJournal(Bytes(whole), std::vector<uint64_t>{5, 0, 40}).all.empty());
  CHECK(ParseTensorJournal(Bytes(whole), std::vector<uint64_t>{5, 0, 40, 8}).all.empty());
  CHECK(ParseTensorJournal(Bytes(whole + whole), kSizes).all.size() == 1);
}

}  // namespace
}  // namespace edgewise
