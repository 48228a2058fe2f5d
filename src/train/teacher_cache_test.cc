// Teacher caches: what a record keeps, that a file is whole or refused, and that learning from it
// is learning from the teacher.
#include "train/teacher_cache.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "base/half.h"
#include "base/rng.h"
#include "tests/test_data.h"
#include "train/batch_reader.h"

namespace edgewise::train {
namespace {

constexpr uint32_t kVocab = 61;

std::vector<float> Logits(uint64_t seed, size_t n = kVocab) {
  Rng rng(seed);
  std::vector<float> z(n);
  for (float& x : z) x = static_cast<float>(3 * rng.Gaussian());
  return z;
}

std::vector<double> Softmax(const std::vector<float>& z, double temperature) {
  std::vector<double> p;
  double sum = 0;
  for (const float x : z) sum += p.emplace_back(std::exp(static_cast<double>(x) / temperature));
  for (double& x : p) x /= sum;
  return p;
}

TEST_CASE("bytes of a record: at most 300 of a token with 64 kept") {
  CHECK(TopKShape{64, 2048}.record_bytes() == 88 + 128 + 2);
  CHECK(TopKShape{64, 32000}.record_bytes() == 120 + 128 + 2);
  CHECK(TopKShape{64, 128256}.record_bytes() == 136 + 128 + 2);
  CHECK(TopKShape{64, 262144}.record_bytes() == 144 + 128 + 2);
  CHECK(TopKShape{64, 1u << 20}.record_bytes() <= 300);
  CHECK(TopKShape{7, 7}.record_bytes() == 3 + 14);
}

TEST_CASE("a record keeps the most probable tokens and the mass of the others") {
  for (const uint32_t k : {1u, 5u, kVocab - 1, kVocab}) {
    for (const double temperature : {1.0, 2.0}) {
      CAPTURE(k);
      const TopKShape shape = {k, kVocab};
      std::vector<float> logits = Logits(k);
      logits[9] = logits[3];  // equal ones
      std::vector<std::byte> record(shape.record_bytes());
      REQUIRE(EncodeTopK(shape, temperature, logits.data(), record.data()).has_value());
      std::vector<int32_t> ids(k);
      std::vector<float> log_p(shape.values());
      REQUIRE(DecodeTopK(shape, record.data(), ids.data(), log_p.data()).has_value());

      const std::vector<double> p = Softmax(logits, temperature);
      std::vector<int32_t> order(kVocab);
      std::iota(order.begin(), order.end(), 0);
      std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
        return std::pair(-logits[static_cast<size_t>(a)], a) <
               std::pair(-logits[static_cast<size_t>(b)], b);
      });
      order.resize(k);
      std::sort(order.begin(), order.end());
      CHECK(ids == order);
      double sum = 0, rest = 1;
      for (uint32_t i = 0; i < k; ++i) {
        const double expected = p[static_cast<size_t>(ids[i])];
        // F16 of the logarithm, and the same again for what makes the sum 1.
        CHECK(std::exp(static_cast<double>(log_p[i])) ==
              doctest::Approx(expected).epsilon((std::abs(std::log(expected)) + 3) / 4096));
        sum += std::exp(static_cast<double>(log_p[i]));
        rest -= expected;
      }
      if (k < kVocab) {
        const double kept = std::exp(static_cast<double>(log_p[k]));
        CHECK(kept == doctest::Approx(rest).epsilon((std::abs(std::log(rest)) + 3) / 4096));
        sum += kept;
      }
      CHECK(sum == doctest::Approx(1).epsilon(1e-6));
    }
  }
}

TEST_CASE("records that say nothing possible are refused") {
  const TopKShape shape = {2, 6};  // 3 bits each
  const auto decode = [&](uint8_t ids, float a, float b, float rest) {
    std::vector<std::byte> record(shape.record_bytes());
    record[0] = static_cast<std::byte>(ids);
    const float values[] = {a, b, rest};
    for (size_t i = 0; i < 3; ++i) {
      const uint16_t half = FloatToHalf(values[i]);
      std::memcpy(record.data() + 1 + 2 * i, &half, 2);
    }
    int32_t out[2];
    float log_p[3];
    return DecodeTopK(shape, record.data(), out, log_p);
  };
  const float half = std::log(0.5f), quarter = std::log(0.25f);
  CHECK(decode(1 | 5 << 3, half, quarter, quarter).has_value());
  CHECK(!decode(5 | 1 << 3, half, quarter, quarter).has_value());  // falling
  CHECK(!decode(1 | 1 << 3, half, quarter, quarter).has_value());  // twice
  CHECK(!decode(1 | 6 << 3, half, quarter, quarter).has_value());  // no such token
  CHECK(!decode(1 | 5 << 3, half, half, quarter).has_value());
  CHECK(!decode(1 | 5 << 3, 0.5f, quarter, quarter).has_value());
  CHECK(!decode(1 | 5 << 3, std::nanf(""), quarter, quarter).has_value());
  std::vector<std::byte> record(shape.record_bytes());
  const std::vector<float> bad = {0, 1, std::nanf(""), 0, 0, 0};
  CHECK(!EncodeTopK(shape, 1, bad.data(), record.data()).has_value());
}

// Documents of 1 to 90 tokens, a third of them with a prompt that is not learned.
Corpus MakeCorpus(size_t documents) {
  Corpus corpus;
  Rng rng(5);
  for (size_t d = 0; d < documents; ++d) {
    std::vector<int32_t> tokens(1 + rng.Below(90));
    for (int32_t& token : tokens) token = static_cast<int32_t>(rng.Below(kVocab));
    std::vector<uint8_t> learned(tokens.size(), 1);
    if (d % 3 == 0) std::fill_n(learned.begin(), tokens.size() / 2, uint8_t{0});
    corpus.Append(tokens, learned);
  }
  return corpus;
}

// The logits of a row are made by the token and those before it in its sequence.
class HashTeacher final : public Teacher {
 public:
  Status Begin(const Batch& batch) override {
    seeds_.clear();
    size_t row = 0;
    for (const uint32_t length : batch.lengths) {
      uint64_t seed = 1;
      for (uint32_t i = 0; i < length; ++i, ++row) {
        seed = seed * 31 + static_cast<uint64_t>(batch.tokens[row]);
        seeds_.push_back(seed);
      }
    }
    return Ok{};
  }
  Status Logits(std::span<const uint32_t> rows, float* logits) override {
    for (const uint32_t row : rows) {
      const std::vector<float> z = train::Logits(seeds_[row]);
      logits = std::copy(z.begin(), z.end(), logits);
    }
    return Ok{};
  }

 private:
  std::vector<uint64_t> seeds_;
};

constexpr size_t kSequence = 16;

TeacherCacheInfo Info(const Corpus& corpus, uint32_t k, double temperature) {
  TeacherCacheInfo info;
  info.targets = TargetIndex(corpus).size();
  info.shape = {k, kVocab};
  info.temperature = temperature;
  info.sequence = kSequence;
  info.engine = "runtime";
  info.teacher = "t";
  info.vocabulary = "v";
  info.data = "d";
  info.corpus = CorpusDigest(corpus);
  return info;
}

// All records, in order.
std::vector<std::byte> Records(const Corpus& corpus, const TeacherCacheInfo& info) {
  std::vector<std::byte> records;
  HashTeacher teacher;
  auto reader = BatchReader::Create(
      corpus, {.tokens = 64, .sequence = kSequence, .whole = true, .in_order = true});
  REQUIRE(reader.has_value());
  while (reader->position().epoch == 0) {
    const Batch batch = reader->Next();
    REQUIRE(EachTeacherRows(&teacher, batch, kVocab, [&](auto rows, float* logits) -> Status {
              for (size_t i = 0; i < rows.size(); ++i) {
                records.resize(records.size() + info.shape.record_bytes());
                EW_TRY(EncodeTopK(info.shape, info.temperature, logits + i * kVocab,
                                  &*records.end() - info.shape.record_bytes()));
              }
              return Ok{};
            }).has_value());
  }
  return records;
}

void WriteWhole(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

TeacherCacheWriter OpenWriter(const std::string& path, const TeacherCacheInfo& info) {
  auto writer = TeacherCacheWriter::Open(path, info, {});
  REQUIRE_MESSAGE(writer.has_value(), (writer ? "" : writer.error().message));
  return *std::move(writer);
}

void Write(const std::string& path, const TeacherCacheInfo& info,
           std::span<const std::byte> records) {
  TeacherCacheWriter writer = OpenWriter(path, info);
  REQUIRE(writer.Append(records).has_value());
  REQUIRE(writer.Finish().has_value());
}

Result<TeacherCache> ParseText(const std::string& text) {
  return TeacherCache::Parse(std::as_bytes(std::span(text.data(), text.size())));
}

struct MadeCache {
  TemporaryFolder folder;
  Corpus corpus = MakeCorpus(20);
  TeacherCacheInfo info = Info(corpus, 5, 1);
  std::vector<std::byte> records = Records(corpus, info);
  std::string path = folder / "a.cache";
  std::string text;
  MadeCache() {
    Write(path, info, records);
    text = ReadWhole(path);
  }
};

TEST_CASE("a cache that was stopped anywhere goes on to the same bytes") {
  const MadeCache made;
  REQUIRE(made.records.size() == made.info.targets * made.info.shape.record_bytes());
  REQUIRE(made.info.blocks() > 2);
  CHECK(made.text.size() < 100 * made.info.targets);
  for (const double share : {0.01, 0.3, 0.7, 0.999, 1.0}) {
    CAPTURE(share);
    const std::string path = made.folder / "cut.cache";
    WriteWhole(path, made.text.substr(
                         0, static_cast<size_t>(share * static_cast<double>(made.text.size()))));
    TeacherCacheWriter writer = OpenWriter(path, made.info);
    CHECK(writer.records() <= made.info.targets);
    if (share > 0.5) CHECK(writer.records() >= kCacheBlockRecords);
    CHECK(!writer.Finish().has_value() == (share < 1));
    const auto rest =
        std::span(made.records).subspan(writer.records() * made.info.shape.record_bytes());
    REQUIRE(writer.Append(rest).has_value());
    CHECK(
        !writer.Append(std::span(made.records).first(made.info.shape.record_bytes())).has_value());
    REQUIRE(writer.Finish().has_value());
    CHECK(ReadWhole(path) == made.text);
  }
  // Of another cache nothing is kept.
  TeacherCacheInfo other = made.info;
  other.teacher = "u";
  const std::string path = made.folder / "other.cache";
  WriteWhole(path, made.text);
  CHECK(OpenWriter(path, other).records() == 0);
}

TEST_CASE("a cut file and any flipped bit are refused, with where") {
  const MadeCache made;
  ThreadPool pool(2);
  NoProgress progress;
  REQUIRE(TeacherCache::Open(made.path, &pool, &progress).has_value());
  for (size_t size = 0; size < made.text.size(); size += 97) {
    REQUIRE(!ParseText(made.text.substr(0, size)).has_value());
  }
  CHECK(!ParseText(made.text + std::string(32, '\0')).has_value());
  for (size_t at = 0; at < made.text.size(); at += 53) {
    std::string flipped = made.text;
    flipped[at] = static_cast<char>(flipped[at] ^ (1 << at % 8));
    const auto cache = ParseText(flipped);
    CAPTURE(at);
    REQUIRE(!cache.has_value());
  }
  std::string flipped = made.text;
  const size_t header = made.text.size() - made.info.blocks() * made.info.block_bytes();
  flipped[header + made.info.block_bytes() + 7] ^= 1;
  WriteWhole(made.path, flipped);
  const auto cache = TeacherCache::Open(made.path, &pool, &progress);
  REQUIRE(!cache.has_value());
  CHECK(cache.error().code == Code::kBadData);
  CHECK(cache.error().message.find("block 1 ") != std::string::npos);
  CHECK(cache.error().message.find(made.path) != std::string::npos);
}

TEST_CASE("a header that tells of more targets than the file holds is refused") {
  const MadeCache made;
  const std::string key = "edgewise.teacher_cache.targets";
  const size_t value = made.text.find(key) + key.size() + 4;  // after the value's type
  for (uint64_t targets = made.info.targets + 1000; targets < uint64_t{1} << 62;
       targets += targets / 2) {
    std::string text = made.text;
    std::memcpy(text.data() + value, &targets, sizeof(targets));
    const auto cache = ParseText(text);
    REQUIRE(!cache.has_value());
    CHECK(cache.error().code == Code::kBadData);
  }
}

TEST_CASE("a file that is no cache is refused") {
  const auto cache = ParseText(ReadWhole(SourcePath("fuzz/corpus/mask/two.gguf")));
  REQUIRE(!cache.has_value());
  CHECK(cache.error().message.find("no teacher cache") != std::string::npos);
}

// Sums of losses and gradients over an epoch of shuffled batches.
struct Learned {
  double loss = 0;
  std::vector<float> gradients;
};
Learned Learn(const Corpus& corpus, TokenLoss* loss, size_t batch_tokens) {
  auto reader = BatchReader::Create(
      corpus, {.tokens = batch_tokens, .sequence = kSequence, .seed = 4, .whole = true});
  REQUIRE(reader.has_value());
  Learned learned;
  while (reader->position().epoch == 0) {
    const Batch batch = reader->Next();
    std::vector<uint32_t> rows;
    std::vector<float> logits;
    for (uint32_t i = 0; i < batch.size(); ++i) {
      if (batch.targets[i] == kNoTarget) continue;
      rows.push_back(i);
      const std::vector<float> z = Logits(static_cast<uint64_t>(batch.tokens[i]) + 1000);
      logits.insert(logits.end(), z.begin(), z.end());
    }
    REQUIRE(loss->Begin(batch).has_value());
    if (rows.empty()) continue;
    const auto sum = loss->Rows(batch, rows, kVocab, 1, logits.data());
    REQUIRE_MESSAGE(sum.has_value(), (sum ? "" : sum.error().message));
    learned.loss += *sum;
    learned.gradients.insert(learned.gradients.end(), logits.begin(), logits.end());
  }
  return learned;
}

TEST_CASE("all tokens kept: any batches learn what the live teacher teaches") {
  const TemporaryFolder folder;
  const Corpus corpus = MakeCorpus(20);
  ThreadPool pool(2);
  NoProgress progress;
  for (const char* name : {"kl", "reverse-kl", "jsd"}) {
    const DistillationLoss options = {*ParseDivergence(name), 0.8, 2, 0.3};
    const TeacherCacheInfo info = Info(corpus, kVocab, options.temperature);
    const std::string path = folder / (std::string(name) + ".cache");
    Write(path, info, Records(corpus, info));
    const auto cache = TeacherCache::Open(path, &pool, &progress);
    REQUIRE(cache.has_value());
    for (const size_t batch_tokens : {size_t{16}, size_t{100}}) {
      HashTeacher teacher;
      TeacherLoss live(options, &teacher, &pool);
      CachedLoss cached(options, &*cache, corpus, &pool);
      const Learned expected = Learn(corpus, &live, batch_tokens);
      const Learned learned = Learn(corpus, &cached, batch_tokens);
      CHECK(learned.loss == doctest::Approx(expected.loss).epsilon(2e-3));
      REQUIRE(learned.gradients.size() == expected.gradients.size());
      double error = 0, size = 0;
      for (size_t i = 0; i < learned.gradients.size(); ++i) {
        const auto e = static_cast<double>(expected.gradients[i]);
        error += std::pow(static_cast<double>(learned.gradients[i]) - e, 2);
        size += e * e;
      }
      CHECK(std::sqrt(error / size) < 2e-3);
    }
  }
}

TEST_CASE("fewer tokens kept: less is learned, the more the nearer") {
  const TemporaryFolder folder;
  const Corpus corpus = MakeCorpus(20);
  ThreadPool pool(1);
  NoProgress progress;
  const DistillationLoss options = {.alpha = 1};
  HashTeacher teacher;
  TeacherLoss live(options, &teacher, &pool);
  const double whole = Learn(corpus, &live, 64).loss;
  double before = 0;
  for (const uint32_t k : {2u, 8u, 24u}) {
    const TeacherCacheInfo info = Info(corpus, k, 1);
    const std::string path = folder / ("k" + std::to_string(k));
    Write(path, info, Records(corpus, info));
    const auto cache = TeacherCache::Open(path, &pool, &progress);
    REQUIRE(cache.has_value());
    CachedLoss cached(options, &*cache, corpus, &pool);
    const double loss = Learn(corpus, &cached, 64).loss;
    CHECK(loss > before);
    CHECK(loss < whole * 1.001);
    before = loss;
  }
  CHECK(before > 0.95 * whole);
}

TEST_CASE("batches of no corpus, of other cuts and other vocabularies are refused") {
  const MadeCache made;
  ThreadPool pool(1);
  const auto cache = ParseText(made.text);
  REQUIRE(cache.has_value());
  CachedLoss loss({}, &*cache, made.corpus, &pool);
  Batch batch;
  batch.tokens = {1, 2};
  batch.targets = {2, 3};
  batch.lengths = {2};
  CHECK(!loss.Begin(batch).has_value());
  size_t longest = 0;
  for (size_t d = 0; d < made.corpus.size(); ++d) {
    if (made.corpus.tokens(d).size() > made.corpus.tokens(longest).size()) longest = d;
  }
  batch.origins = {{longest, 3}};
  CHECK(!loss.Begin(batch).has_value());
  batch.origins = {{longest, kSequence}};
  REQUIRE(loss.Begin(batch).has_value());
  const uint32_t rows[] = {0, 1};
  std::vector<float> logits(2 * (kVocab + 1));
  CHECK(!loss.Rows(batch, rows, kVocab + 1, 1, logits.data()).has_value());
}

}  // namespace
}  // namespace edgewise::train
