// Test only: whether two models compute the same.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "model/tiny_model.h"

namespace edgewise {

inline std::vector<float> Logits(const Checkpoint& checkpoint) {
  ThreadPool pool(2);
  auto model = Model::Load(checkpoint, &pool);
  REQUIRE(model.has_value());
  const auto tokens = TinyTokens(30, checkpoint.spec().vocab_size);
  auto cache = KvCache::Create(checkpoint.spec(), 64, kernels::KvFormat::kF32);
  REQUIRE(cache.has_value());
  std::vector<float> logits(tokens.size() * checkpoint.spec().vocab_size);
  REQUIRE(ForwardPass(**model, &pool).Run(tokens, &*cache, 0, logits).has_value());
  return logits;
}

inline Checkpoint Written(const TinyModel& model, const TemporaryFolder& folder) {
  model.Write(folder.path());
  auto checkpoint = Checkpoint::Open(folder.path());
  REQUIRE_MESSAGE(checkpoint, (checkpoint ? "" : checkpoint.error().message));
  return *std::move(checkpoint);
}

inline std::vector<float> Values(const Checkpoint& checkpoint, const std::string& name) {
  const auto tensor = checkpoint.Load(*checkpoint.Find(name));
  REQUIRE(tensor.has_value());
  std::vector<float> values(tensor->view().shape.elements());
  tensor->view().Decode(0, values.size(), values.data());
  return values;
}

// At most 1e-4 of the largest logit lies between any two.
inline void CheckEquivalent(const Checkpoint& before, const Checkpoint& after) {
  const auto expected = Logits(before), found = Logits(after);
  REQUIRE(found.size() == expected.size());
  double worst = 0, largest = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    worst = std::max(worst, std::fabs(static_cast<double>(found[i]) - expected[i]));
    largest = std::max(largest, std::fabs(static_cast<double>(expected[i])));
  }
  CHECK(largest > 1);
  CHECK(worst <= 1e-4 * largest);
}

}  // namespace edgewise
