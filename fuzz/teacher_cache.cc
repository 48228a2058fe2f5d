// Fuzzes the reader of teacher caches: its header, and records as if their digests were right.
#include "train/teacher_cache.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

namespace {

// The first byte says how many tokens of how many are kept; records follow.
void DecodeRecords(std::span<const std::byte> bytes) {
  const auto first = std::to_integer<uint32_t>(bytes[0]);
  const edgewise::train::TopKShape shape = {1 + first % 8, 8 + first / 8};
  std::vector<int32_t> ids(shape.k);
  std::vector<float> log_p(shape.values());
  for (bytes = bytes.subspan(1); bytes.size() >= shape.record_bytes();
       bytes = bytes.subspan(shape.record_bytes())) {
    if (!edgewise::train::DecodeTopK(shape, bytes.data(), ids.data(), log_p.data())) continue;
    for (const int32_t id : ids) {
      if (id < 0 || id >= static_cast<int32_t>(shape.vocabulary)) std::abort();
    }
    for (const float x : log_p) {
      if (!std::isfinite(x) || x > 0.01f) std::abort();
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  if (size > 0) DecodeRecords(bytes);
  const auto cache = edgewise::train::TeacherCache::Parse(bytes);
  if (!cache) {
    if (cache.error().message.empty()) std::abort();
    return 0;
  }
  std::vector<int32_t> ids(cache->info().shape.k);
  std::vector<float> log_p(cache->info().shape.values());
  for (uint64_t i = 0; i < cache->info().targets; ++i) {
    (void)cache->Read(i, ids.data(), log_p.data());
  }
  return 0;
}
