#include "train/batch_reader.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>
#include <vector>

namespace edgewise::train {
namespace {

// Document d has 3 + 5 d tokens: 100 d, 100 d + 1, ...
Corpus Documents(int32_t count) {
  Corpus corpus;
  for (int32_t d = 0; d < count; ++d) {
    std::vector<int32_t> tokens(static_cast<size_t>(3 + 5 * d));
    std::iota(tokens.begin(), tokens.end(), 100 * d);
    corpus.Append(tokens);
  }
  return corpus;
}

BatchReader Reader(const Corpus& corpus, const BatchOptions& options) {
  auto reader = BatchReader::Create(corpus, options);
  REQUIRE(reader.has_value());
  return *std::move(reader);
}

// Every sequence must be a run of one document, followed by that document's next token.
void CheckBatch(const Batch& batch, const BatchOptions& options, std::map<int32_t, int>* targets) {
  size_t row = 0;
  for (const uint32_t length : batch.lengths) {
    CHECK(length >= 1);
    CHECK(length <= options.sequence);
    for (uint32_t i = 0; i < length; ++i, ++row) {
      CHECK(batch.targets[row] == batch.tokens[row] + 1);
      if (i > 0) CHECK(batch.tokens[row] == batch.tokens[row - 1] + 1);
      ++(*targets)[batch.targets[row]];
    }
  }
  CHECK(row == batch.size());
}

TEST_CASE("an epoch teaches each token but the first of a document once") {
  const Corpus corpus = Documents(7);
  const size_t usable = corpus.token_count() - corpus.size();
  for (const size_t sequence : {4u, 9u, 100u}) {
    const BatchOptions options = {.tokens = 10, .sequence = sequence, .seed = 3};
    BatchReader reader = Reader(corpus, options);
    std::map<int32_t, int> targets;
    // Two epochs, as far as whole batches go.
    for (size_t read = 0; read + 10 <= 2 * usable; read += 10) {
      const Batch batch = reader.Next();
      CHECK(batch.size() == 10);
      CheckBatch(batch, options, &targets);
    }
    for (const auto& [target, count] : targets) CHECK(count <= 2);
    CHECK(targets.size() == usable);
  }
}

TEST_CASE("the order changes with the seed and with the epoch") {
  const Corpus corpus = Documents(9);
  const size_t usable = corpus.token_count() - corpus.size();
  const BatchOptions options = {.tokens = usable, .sequence = 64, .seed = 1};
  BatchReader reader = Reader(corpus, options);
  BatchReader other = Reader(corpus, {.tokens = usable, .sequence = 64, .seed = 2});
  const Batch first = reader.Next(), second = reader.Next();
  CHECK(first.tokens != second.tokens);
  CHECK(first.tokens != other.Next().tokens);
  CHECK(reader.position().epoch == 2);
}

TEST_CASE("reading goes on from any position") {
  const Corpus corpus = Documents(6);
  const BatchOptions options = {.tokens = 13, .sequence = 8, .seed = 5};
  BatchReader reader = Reader(corpus, options);
  for (int i = 0; i < 20; ++i) {
    BatchReader again = Reader(corpus, options);
    REQUIRE(again.Seek(reader.position()).has_value());
    const Batch batch = reader.Next();
    CHECK(again.Next().tokens == batch.tokens);
    CHECK(again.position() == reader.position());
  }
  CHECK(!reader.Seek({0, 6, 0}).has_value());
  CHECK(!reader.Seek({0, 0, 1000}).has_value());
}

TEST_CASE("what is not learned is context and no target") {
  Corpus corpus;
  corpus.Append(std::vector<int32_t>{1, 2, 3, 4}, std::vector<uint8_t>{0, 0, 1, 1});
  const Batch batch = Reader(corpus, {.tokens = 3, .sequence = 8}).Next();
  CHECK(batch.tokens == std::vector<int32_t>{1, 2, 3});
  CHECK(batch.targets == std::vector<int32_t>{kNoTarget, 3, 4});
}

TEST_CASE("whole sequences begin at the same tokens in every epoch") {
  const Corpus corpus = Documents(7);
  const BatchOptions options = {.tokens = 10, .sequence = 9, .seed = 3, .whole = true};
  BatchReader reader = Reader(corpus, options);
  std::map<int32_t, int> targets;
  while (reader.position().epoch < 2) {
    const Batch batch = reader.Next();
    CHECK(batch.size() <= options.tokens);
    REQUIRE(batch.origins.size() == batch.lengths.size());
    CheckBatch(batch, options, &targets);
    size_t row = 0;
    for (size_t s = 0; s < batch.lengths.size(); ++s) {
      const auto& [document, token] = batch.origins[s];
      CHECK(token % options.sequence == 0);
      CHECK(batch.tokens[row] == static_cast<int32_t>(100 * document + token));
      const size_t left = corpus.tokens(document).size() - 1 - token;
      CHECK(batch.lengths[s] == std::min(left, options.sequence));
      row += batch.lengths[s];
    }
  }
  CHECK(targets.size() == corpus.token_count() - corpus.size());
  CHECK(!BatchReader::Create(corpus, {.tokens = 8, .sequence = 9, .whole = true}).has_value());
}

TEST_CASE("in order: each document once, and a batch ends with the epoch") {
  const Corpus corpus = Documents(4);
  BatchReader reader =
      Reader(corpus, {.tokens = 16, .sequence = 8, .whole = true, .in_order = true});
  std::vector<int32_t> tokens;
  while (reader.position().epoch == 0) {
    const Batch batch = reader.Next();
    tokens.insert(tokens.end(), batch.tokens.begin(), batch.tokens.end());
  }
  std::vector<int32_t> expected;
  for (size_t d = 0; d < corpus.size(); ++d) {
    const auto all = corpus.tokens(d);
    expected.insert(expected.end(), all.begin(), all.end() - 1);
  }
  CHECK(tokens == expected);
}

TEST_CASE("all batches hold everything once, in order") {
  const Corpus corpus = Documents(5);
  const BatchOptions options = {.tokens = 12, .sequence = 7};
  const auto batches = AllBatches(corpus, options);
  REQUIRE(batches.has_value());
  std::map<int32_t, int> targets;
  for (const Batch& batch : *batches) {
    CHECK(batch.size() <= options.tokens);
    CheckBatch(batch, options, &targets);
  }
  CHECK(targets.size() == corpus.token_count() - corpus.size());
}

TEST_CASE("nothing to learn is an error, not an endless search") {
  Corpus corpus;
  CHECK(!BatchReader::Create(corpus, {}).has_value());
  corpus.Append(std::vector<int32_t>{1});
  corpus.Append(std::vector<int32_t>{1, 2}, std::vector<uint8_t>{1, 0});
  CHECK(!BatchReader::Create(corpus, {}).has_value());
  CHECK(!AllBatches(corpus, {}).has_value());
  corpus.Append(std::vector<int32_t>{1, 2});
  CHECK(BatchReader::Create(corpus, {}).has_value());
  CHECK(!BatchReader::Create(corpus, {.tokens = 1}).has_value());
}

}  // namespace
}  // namespace edgewise::train
