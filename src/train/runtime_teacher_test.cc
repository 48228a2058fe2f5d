// The runtime as a teacher: its logits are the forward pass's, whatever rows are asked for.
#include "train/runtime_teacher.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "model/tiny_model.h"
#include "train/test_batch.h"

namespace edgewise::train {
namespace {

TEST_CASE("rows of packed sequences have the forward pass's logits, bit for bit") {
  const auto model = LoadTestModel(SourcePath("models/edgewise-stories-3M"));
  const size_t vocab = model->spec().vocab_size;
  Batch batch;
  std::vector<std::vector<float>> expected;
  ThreadPool pool(2);
  for (const uint32_t length : {40u, 1u, 70u, 9u}) {
    const std::vector<int32_t> tokens = TinyTokens(length, vocab, length);
    AppendSequence(tokens, &batch);
    auto cache = KvCache::Create(model->spec(), length, kernels::KvFormat::kF16);
    REQUIRE(cache.has_value());
    std::vector<float> logits(length * vocab);
    ForwardPass forward(*model, &pool);
    REQUIRE(forward.Run(tokens, &*cache, 0, logits).has_value());
    for (size_t i = 0; i < length; ++i) {
      expected.emplace_back(logits.begin() + static_cast<long>(i * vocab),
                            logits.begin() + static_cast<long>((i + 1) * vocab));
    }
  }
  auto teacher = RuntimeTeacher::Create(*model, 70, &pool);
  REQUIRE(teacher.has_value());
  // All rows at once, and a part of them in pieces that end within sequences.
  for (const size_t step : {size_t{1}, size_t{3}}) {
    REQUIRE((*teacher)->Begin(batch).has_value());
    std::vector<uint32_t> rows;
    for (uint32_t row = 2; row < batch.size();
         row += row % 7 == 0 ? static_cast<uint32_t>(step) : 1)
      rows.push_back(row);
    const size_t piece = step == 1 ? rows.size() : 13;
    for (size_t first = 0; first < rows.size(); first += piece) {
      const auto part =
          std::span<const uint32_t>(rows).subspan(first, std::min(piece, rows.size() - first));
      std::vector<float> logits(part.size() * vocab);
      REQUIRE((*teacher)->Logits(part, logits.data()).has_value());
      for (size_t i = 0; i < part.size(); ++i) {
        CHECK(std::equal(expected[part[i]].begin(), expected[part[i]].end(),
                         logits.begin() + static_cast<long>(i * vocab)));
      }
    }
  }
}

}  // namespace
}  // namespace edgewise::train
