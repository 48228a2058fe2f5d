// Learning on what the student writes: what is put where, from which probabilities, and in
// training.
#include "train/on_policy.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/kernels.h"
#include "train/test_models.h"
#include "train/test_training.h"

namespace edgewise::train {
namespace {

// A student whose matrices are random, and large enough that it prefers some tokens.
struct Student {
  ModelSpec spec = SmallSpec();
  std::vector<float> weights = RandomParameters(spec, ParameterLayout(spec), 7);
  ThreadPool pool;
  std::unique_ptr<Ops> ops = MakeCpuOps(&pool, Precision::kF32);

  explicit Student(int threads = 2) : pool(threads) {
    const size_t matrices = ParameterLayout(spec).matrix_size();
    for (size_t i = 0; i < matrices; ++i) weights[i] *= 20;
  }
  Network MakeNetwork() {
    auto network = Network::Create(spec, ops.get(), {});
    REQUIRE(network.has_value());
    return *std::move(network);
  }
  Batch Rewritten(Batch batch, const OnPolicyOptions& options, uint64_t seed = 1) {
    OnPolicy on_policy(options, spec.vocab_size, MakeNetwork(), &pool);
    REQUIRE(on_policy.Rewrite(weights.data(), seed, &batch).has_value());
    return batch;
  }
};

bool Same(const Batch& a, const Batch& b) {
  return a.tokens == b.tokens && a.targets == b.targets && a.lengths == b.lengths &&
         a.sampled == b.sampled;
}

// Texts of 11 tokens to read and 11 targets; with prompts, of which 4 tokens are not learned.
Batch Texts(size_t count, bool prompts = false) {
  Corpus corpus;
  const Corpus counting = Counting(count, 5);
  for (size_t d = 0; d < count; ++d) {
    std::vector<uint8_t> learned(counting.tokens(d).size(), 1);
    if (prompts) std::fill_n(learned.begin(), 4, uint8_t{0});
    corpus.Append(counting.tokens(d), learned);
  }
  auto batches = AllBatches(corpus, {.tokens = 4096, .sequence = 16});
  REQUIRE(batches.has_value());
  REQUIRE(batches->size() == 1);
  return batches->front();
}

void CheckWritten(const Batch& before, const Batch& after, uint32_t prompt, uint32_t most) {
  REQUIRE(after.lengths.size() == before.lengths.size());
  REQUIRE(after.sampled.size() == after.size());
  size_t row = 0, old = 0;
  for (size_t i = 0; i < after.lengths.size(); old += before.lengths[i++]) {
    const uint32_t length = after.lengths[i];
    REQUIRE(length == prompt + most - 1);
    for (uint32_t t = 0; t < length; ++t, ++row) {
      const bool sampled = t + 1 >= prompt;
      if (t < prompt) CHECK(after.tokens[row] == before.tokens[old + t]);
      CHECK(after.sampled[row] == sampled);
      CHECK((after.targets[row] != kNoTarget) == sampled);
      if (t + 1 < length && sampled) CHECK(after.targets[row] == after.tokens[row + 1]);
    }
  }
}

TEST_CASE("the end of a text is written, and what follows a prompt") {
  Student student;
  const Batch texts = Texts(20), asked = Texts(20, true);
  CheckWritten(texts, student.Rewritten(texts, {.fraction = 1, .tokens = 5}), 7, 5);
  CheckWritten(texts, student.Rewritten(texts, {.fraction = 1, .tokens = 100}), 1, 11);
  CheckWritten(asked, student.Rewritten(asked, {.fraction = 1, .tokens = 3}), 4, 3);
  CheckWritten(asked, student.Rewritten(asked, {.fraction = 1, .tokens = 100}), 4, 8);
}

TEST_CASE("a share of the sequences is drawn, the others stay") {
  Student student;
  const Batch texts = Texts(200);
  const Batch written = student.Rewritten(texts, {.fraction = 0.3, .tokens = 4});
  size_t drawn = 0;
  for (size_t i = 0; i < 200; ++i) {
    const size_t row = i * 11;
    const bool sampled = written.sampled[row + 10] != 0;
    drawn += sampled;
    REQUIRE(written.lengths[i] == 11);
    if (sampled) continue;
    for (size_t t = row; t < row + 11; ++t) {
      REQUIRE(written.tokens[t] == texts.tokens[t]);
      REQUIRE(written.targets[t] == texts.targets[t]);
      REQUIRE(written.sampled[t] == 0);
    }
  }
  CHECK(drawn > 35);
  CHECK(drawn < 85);
}

TEST_CASE("what is written depends on the seed and the weights, not on threads") {
  const Batch texts = Texts(30);
  const OnPolicyOptions options = {.fraction = 0.7, .tokens = 6};
  Student one(1), three(3), other(1);
  const Batch written = one.Rewritten(texts, options);
  CHECK(Same(three.Rewritten(texts, options), written));
  CHECK(!Same(one.Rewritten(texts, options, 2), written));
  for (float& weight : other.weights) weight *= 0.5f;
  CHECK(!Same(other.Rewritten(texts, options), written));
}

TEST_CASE("a sequence ends with a token that ends texts") {
  Student student;
  const Batch texts = Texts(50);
  const std::vector<int32_t> ends = {2, 5};
  const auto is_end = [&](int32_t token) { return std::ranges::count(ends, token) > 0; };
  const Batch free = student.Rewritten(texts, {.fraction = 1, .tokens = 6});
  const Batch cut = student.Rewritten(texts, {.fraction = 1, .tokens = 6, .ends = ends});
  size_t row = 0, free_row = 0, shorter = 0;
  for (size_t i = 0; i < 50; ++i) {
    const size_t length = cut.lengths[i];
    shorter += length < free.lengths[i];
    for (size_t t = 0; t < length; ++t) {
      // The same tokens as without ends, up to the first of these.
      CHECK(cut.tokens[row + t] == free.tokens[free_row + t]);
      CHECK(cut.targets[row + t] == free.targets[free_row + t]);
      if (t + 1 < length) CHECK(!is_end(cut.targets[row + t]));
    }
    if (length < free.lengths[i]) CHECK(is_end(cut.targets[row + length - 1]));
    row += length;
    free_row += free.lengths[i];
  }
  CHECK(row == cut.size());
  CHECK(shorter > 5);
}

TEST_CASE("tokens are drawn from the student's probabilities") {
  Student student;
  constexpr size_t kDraws = 4000;
  const std::vector<int32_t> prompt = {3, 4, 5, 6};
  Batch batch;
  for (size_t i = 0; i < kDraws; ++i) {
    batch.tokens.insert(batch.tokens.end(), prompt.begin(), prompt.end());
    batch.targets.insert(batch.targets.end(), {4, 5, 6, 7});
    batch.lengths.push_back(4);
  }
  const Batch written = student.Rewritten(batch, {.fraction = 1, .tokens = 1});
  const size_t vocab = student.spec.vocab_size;
  std::vector<double> counts(vocab);
  for (size_t i = 0; i < kDraws; ++i) {
    counts[static_cast<size_t>(written.targets[i * 4 + 3])] += 1.0 / kDraws;
  }
  Network network = student.MakeNetwork();
  Batch one;
  one.tokens = prompt;
  one.targets.assign(4, kNoTarget);
  one.lengths = {4};
  REQUIRE(network.Forward(one, student.weights.data()).has_value());
  std::vector<float> p(vocab);
  const uint32_t last = 3;
  network.Logits(student.weights.data(), {&last, 1}, p.data());
  kernels::Active().softmax(p.data(), vocab);
  for (size_t v = 0; v < vocab; ++v) {
    const auto expected = static_cast<double>(p[v]);
    CHECK(std::abs(counts[v] - expected) <= 4.5 * std::sqrt(expected * (1 - expected) / kDraws));
  }
  CHECK(*std::ranges::max_element(p) > 0.15f);  // far from even
}

// A batch's own sequences, token by token.
TEST_CASE("sequences that grow have the logits of a forward pass, in every architecture") {
  for (const NamedModel& trained : TrainedModels()) {
    CAPTURE(trained.name);
    ModelSpec spec;
    const std::vector<float> weights = Parameters(trained.model, &spec);
    ThreadPool pool(2);
    const auto ops = MakeCpuOps(&pool, Precision::kF32);
    auto network = Network::Create(spec, ops.get(), {});
    REQUIRE(network.has_value());
    const std::vector<uint32_t> lengths = {20, 9, 14}, begun = {12, 9, 1};
    Batch whole, prompts;
    std::vector<std::vector<int32_t>> tokens;
    for (size_t i = 0; i < lengths.size(); ++i) {
      tokens.push_back(TinyTokens(lengths[i], spec.vocab_size, i + 1));
      AppendSequence(tokens[i], &whole);
      AppendSequence(std::span(tokens[i]).first(begun[i]), &prompts);
    }
    REQUIRE(network->Forward(whole, weights.data()).has_value());
    std::vector<uint32_t> all(whole.size());
    std::iota(all.begin(), all.end(), 0u);
    const size_t vocab = spec.vocab_size;
    std::vector<float> expected(whole.size() * vocab), logits(lengths.size() * vocab);
    network->Logits(weights.data(), all, expected.data());

    REQUIRE(network->Open(prompts, lengths, weights.data()).has_value());
    std::vector<uint32_t> at = begun;
    while (true) {
      std::vector<uint32_t> sequences, rows;
      std::vector<int32_t> next;
      for (uint32_t i = 0; i < lengths.size(); ++i) {
        if (at[i] == lengths[i]) continue;
        rows.push_back(static_cast<uint32_t>(rows.size()));
        sequences.push_back(i);
        next.push_back(tokens[i][at[i]++]);
      }
      if (sequences.empty()) break;
      REQUIRE(network->Append(sequences, next, weights.data()).has_value());
      network->Logits(weights.data(), rows, logits.data());
      for (size_t r = 0; r < sequences.size(); ++r) {
        size_t row = at[sequences[r]] - 1;
        for (uint32_t i = 0; i < sequences[r]; ++i) row += lengths[i];
        for (size_t v = 0; v < vocab; ++v) {
          REQUIRE(std::abs(logits[r * vocab + v] - expected[row * vocab + v]) < 1e-4f);
        }
      }
    }
  }
}

// A teacher and its student's loss.
struct Lesson {
  ThreadPool pool;
  std::unique_ptr<Ops> ops = MakeCpuOps(&pool, Precision::kF32);
  NetworkTeacher teacher;
  TeacherLoss loss;
  Lesson(const std::vector<float>& weights, int threads, double alpha = 0.5)
      : pool(threads),
        teacher(*Network::Create(SmallSpec(), ops.get(), {}), weights.data()),
        loss({.divergence = Divergence::kReverseKl, .alpha = alpha}, &teacher, &pool) {}
};

TEST_CASE("stopping and going on, threads and processes change no bit of a run on policy") {
  const TrainerState teacher = Start();
  TrainerState start = Start();
  for (float& weight : start.weights) weight *= 3;
  TrainerOptions options = SmallOptions(8);
  options.accumulation = 2;
  options.network.dropout = 0.1f;
  options.on_policy = {.fraction = 0.5, .tokens = 6, .ends = {2}};
  CheckSameRuns(options, start,
                [&](const TrainerOptions& own, int threads, Watcher* watcher, TrainerState* state) {
                  Lesson lesson(teacher.weights, threads);
                  return Train(own, threads, watcher, state, &lesson.loss);
                });
}

TEST_CASE("of what the student writes no cross-entropy is learned") {
  const TrainerState teacher = Start();
  const auto run = [&](double alpha, bool sampled) {
    Lesson lesson(teacher.weights, 2, alpha);
    Batch batch = Texts(4);
    batch.sampled.assign(batch.size(), sampled);
    auto network = Network::Create(SmallSpec(), lesson.ops.get(), {});
    REQUIRE(network.has_value());
    const TrainerState student = Finished(SmallOptions(3));
    std::vector<float> gradients(student.weights.size());
    const auto loss =
        network->Train(batch, student.weights.data(), &lesson.loss, 1, 1, gradients.data());
    REQUIRE(loss.has_value());
    return std::pair(*loss, gradients);
  };
  const auto [soft, soft_gradients] = run(1, false);
  const auto [half, half_gradients] = run(0.5, true);
  CHECK(half == doctest::Approx(0.5 * soft));
  for (size_t i = 0; i < soft_gradients.size(); ++i) {
    REQUIRE(half_gradients[i] == doctest::Approx(0.5f * soft_gradients[i]).epsilon(1e-4));
  }
  CHECK(run(0.5, false).first > half + 1);
}

TEST_CASE("a student that learns on what it writes comes near its teacher") {
  const TrainerState teacher = Finished(SmallOptions(120));
  Lesson lesson(teacher.weights, 2, 1);
  TrainerOptions options = SmallOptions(150);
  options.on_policy = {.fraction = 1, .tokens = 12};
  TrainerState student = Start();
  Watcher watcher;
  REQUIRE(Train(options, 2, &watcher, &student, &lesson.loss).has_value());
  CHECK(watcher.reports.back().loss < 0.2 * watcher.reports.front().loss);
  // It has seen no more of any text than its first token.
  CHECK(*watcher.reports.back().held_out < 0.6);
}

TEST_CASE("refused shares") {
  CHECK(CheckOnPolicy({.fraction = 1}).has_value());
  CHECK(!CheckOnPolicy({.fraction = 1.1}).has_value());
  CHECK(!CheckOnPolicy({.fraction = -0.1}).has_value());
  CHECK(!CheckOnPolicy({.fraction = std::nan("")}).has_value());
  CHECK(!CheckOnPolicy({.fraction = 0.5, .tokens = 0}).has_value());
}

}  // namespace
}  // namespace edgewise::train
