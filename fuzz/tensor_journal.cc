// Fuzzes the reader of tensor journals: the records are whole, of the right sizes, and none twice.
#include "pipeline/tensor_journal.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <span>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr uint64_t kSizes[] = {0, 1, 5, 7, 40, UINT64_MAX, UINT64_MAX - 80};
  const auto records = edgewise::ParseTensorJournal(std::as_bytes(std::span(data, size)), kSizes);
  if (records.bytes > size) std::abort();
  std::set<size_t> seen;
  for (const auto& record : records.all) {
    if (record.bytes.size() != kSizes[record.tensor]) std::abort();
    if (!seen.insert(record.tensor).second) std::abort();
  }
  return 0;
}
