// Training runs: they learn, they stop and go on without a trace, they keep what they must keep.
#include "train/trainer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "tests/test_data.h"
#include "train/test_communicator.h"
#include "train/test_training.h"

namespace edgewise::train {
namespace {

TEST_CASE("a small model learns to count") {
  for (const Precision precision : {Precision::kF32, Precision::kBf16}) {
    TrainerOptions options = SmallOptions(120);
    options.precision = precision;
    Watcher watcher;
    const TrainerState state = Finished(options, 2, &watcher);
    CHECK(watcher.reports.size() == 120);
    CHECK(watcher.reports.front().loss == doctest::Approx(std::log(11.0)).epsilon(0.05));
    // The second token of a run is a toss between two: log(2) for one target in eleven.
    CHECK(*watcher.reports.back().held_out < 0.3);
    CHECK(watcher.reports.back().learning_rate == doctest::Approx(0.002));
    CHECK(state.evaluations == 12);
  }
}

void CheckStops(MomentFormat moments) {
  TrainerOptions options = SmallOptions(24);
  options.moments = moments;
  options.network.dropout = 0.1f;
  options.accumulation = 2;
  options.ema = 0.9;
  Watcher whole;
  const TrainerState expected = Finished(options, 1, &whole);
  TemporaryFolder folder;
  for (const uint64_t stop : {1u, 10u, 23u}) {
    CAPTURE(stop);
    Watcher first;
    first.save_at = first.stop_at = stop;
    first.path = folder / "state.gguf";
    TrainerState state = Start();
    const Status status = Train(options, 3, &first, &state);
    REQUIRE(!status.has_value());
    CHECK(status.error().code == Code::kCancelled);
    auto loaded = LoadState(first.path, "run", state.weights.size());
    REQUIRE_MESSAGE(loaded.has_value(), (loaded ? "" : loaded.error().message));
    CHECK(loaded->step == stop);
    Watcher rest;
    REQUIRE(Train(options, 2, &rest, &*loaded).has_value());
    CHECK(loaded->weights == expected.weights);
    CHECK(loaded->variance == expected.variance);
    CHECK(loaded->variance_codes == expected.variance_codes);
    CHECK(rest.reports.front().step == stop + 1);
    CHECK(rest.reports.back().loss == whole.reports.back().loss);
    CHECK(*rest.reports.back().held_out == *whole.reports.back().held_out);
  }
}

TEST_CASE("threads, and stopping anywhere and going on, change no bit") {
  CheckStops(MomentFormat::kF32);
  CheckStops(MomentFormat::k8Bit);
}

TEST_CASE("processes change no bit, whoever goes on") {
  TrainerOptions options = SmallOptions(12);
  options.network.dropout = 0.1f;
  options.accumulation = 6;
  options.ema = 0.9;
  options.patience = 20;
  Watcher whole;
  const TrainerState expected = Finished(options, 1, &whole);
  TemporaryFolder folder;
  for (const int size : {1, 2, 3}) {
    CAPTURE(size);
    Watcher first;
    first.save_at = first.stop_at = 5;
    first.path = folder / "state.gguf";
    options.processes = nullptr;
    TrainerState unused = Start();
    REQUIRE(!Train(options, 2, &first, &unused).has_value());
    std::vector<TrainerState> states(static_cast<size_t>(size));
    std::vector<Watcher> watchers(states.size());
    std::vector<char> done(states.size());
    RunProcesses(size, [&](Communicator* processes) {
      const auto rank = static_cast<size_t>(processes->rank());
      TrainerState& state = states[rank];
      if (rank == 0) state = *LoadState(first.path, "run", unused.weights.size());
      ShareState(*processes, &state);
      TrainerOptions own = options;
      own.processes = processes;
      done[rank] = Train(own, 1, &watchers[rank], &state).has_value();
    });
    for (size_t rank = 0; rank < states.size(); ++rank) {
      CHECK(done[rank]);
      CHECK(states[rank].weights == expected.weights);
      CHECK(states[rank].variance == expected.variance);
      CHECK(states[rank].best_loss == expected.best_loss);
      CHECK(watchers[rank].reports.back().loss == whole.reports.back().loss);
      CHECK(watchers[rank].reports.back().tokens == whole.reports.back().tokens);
      CHECK(*watchers[rank].reports.back().held_out == *whole.reports.back().held_out);
    }
  }
}

// Fails after some batches.
class Failing final : public TokenLoss {
 public:
  explicit Failing(int good) : good_(good) {}
  Status Begin(const Batch&) override {
    if (good_-- > 0) return Ok{};
    return MakeError(Code::kIo, "the teacher is gone");
  }
  Result<double> Rows(const Batch&, std::span<const uint32_t>, size_t, float, float*) override {
    return 1.0;
  }

 private:
  int good_;
};

TEST_CASE("processes end together: where one fails, and where one is stopped") {
  for (const bool fails : {true, false}) {
    TrainerOptions options = SmallOptions(30);
    options.accumulation = 4;
    std::vector<Error> errors(2, Error{Code::kIo, ""});
    std::vector<Watcher> watchers(2);
    watchers[1].stop_at = fails ? 0 : 3;
    RunProcesses(2, [&](Communicator* processes) {
      const auto rank = static_cast<size_t>(processes->rank());
      Failing failing(rank == 1 ? 5 : 1000);
      TrainerOptions own = options;
      own.processes = processes;
      TrainerState state = Start();
      const Status status = Train(own, 1, &watchers[rank], &state, fails ? &failing : nullptr);
      if (!status) errors[rank] = status.error();
    });
    for (const size_t rank : {0, 1}) {
      CHECK(errors[rank].code == (fails ? Code::kIo : Code::kCancelled));
      CHECK(errors[rank].message == (fails ? "the teacher is gone" : "stopped after step 3"));
      CHECK(watchers[rank].reports.size() == (fails ? 2 : 3));
    }
  }
}

TEST_CASE("a step whose batches cannot be shared evenly is refused") {
  bool refused[2] = {}, accepted[2] = {};
  RunProcesses(2, [&](Communicator* processes) {
    TrainerOptions options = SmallOptions(1);
    options.processes = processes;
    options.accumulation = 3;
    refused[processes->rank()] = !CheckTrainer(options).has_value();
    options.accumulation = 4;
    accepted[processes->rank()] = CheckTrainer(options).has_value();
  });
  for (const size_t rank : {0, 1}) CHECK((refused[rank] && accepted[rank]));
}

TEST_CASE("batches added up are one large batch") {
  TrainerOptions one = SmallOptions(3), two = SmallOptions(3);
  two.batch.tokens = 88;  // 8 documents of 11 tokens and the last target
  one.batch.tokens = 176;
  one.clip = two.clip = 0;
  two.accumulation = 2;
  Watcher large, small;
  Finished(one, 1, &large);
  Finished(two, 1, &small);
  for (size_t i = 0; i < 3; ++i) {
    CHECK(small.reports[i].tokens == large.reports[i].tokens);
    CHECK(small.reports[i].loss == doctest::Approx(large.reports[i].loss).epsilon(1e-4));
  }
}

TEST_CASE("zeros of a pruned model stay zero, others do not become so") {
  TrainerOptions options = SmallOptions(12);
  options.network.keep_zeros = true;
  TrainerState state = Start();
  const size_t matrices = ParameterLayout(SmallSpec()).matrix_size();
  std::vector<size_t> zeros;
  for (size_t i = 0; i < matrices; i += 3) {
    state.weights[i] = 0;
    zeros.push_back(i);
  }
  const TrainerState before = state;
  TemporaryFolder folder;
  Watcher first;
  first.save_at = first.stop_at = 6;
  first.path = folder / "state.gguf";
  TrainerState stopped = state;
  CHECK(!Train(options, 2, &first, &stopped).has_value());
  auto resumed = LoadState(first.path, "run", state.weights.size());
  REQUIRE(resumed.has_value());
  Watcher second, whole;
  REQUIRE(Train(options, 2, &second, &*resumed).has_value());
  REQUIRE(Train(options, 2, &whole, &state).has_value());
  CHECK(resumed->weights == state.weights);
  for (const size_t i : zeros) REQUIRE(state.weights[i] == 0);
  CHECK(std::count(state.weights.begin(), state.weights.end(), 0.0f) ==
        static_cast<long>(zeros.size()));
  CHECK(state.weights != before.weights);
}

TEST_CASE("patience ends a run that gets worse, with the best weights") {
  TrainerOptions options = SmallOptions(200);
  options.schedule.peak = 0.5;  // far too high
  options.schedule.warmup = 0;
  options.evaluate_every = 2;
  options.patience = 3;
  Watcher watcher;
  const TrainerState state = Finished(options, 2, &watcher);
  CHECK(state.step < 200);
  double best = 1e9;
  for (const StepReport& report : watcher.reports) {
    if (report.held_out) best = std::min(best, *report.held_out);
  }
  CHECK(state.best_loss == best);
  CHECK(state.weights == state.best);
}

// Wants the end at any time.
class Stopping final : public Progress {
 public:
  void Update(std::string_view, uint64_t, uint64_t) override {}
  bool Cancelled() const override { return true; }
};

TEST_CASE("a run that is to stop measures the step in work before") {
  TrainerOptions options = SmallOptions(20);
  options.evaluate_every = 1;
  options.patience = 5;
  const Corpus corpus = Counting(60, 1), held_out = Counting(20, 2);
  ThreadPool pool(2);
  CrossEntropyLoss loss(&pool);
  Watcher watcher;
  Stopping stopping;
  TrainerState state = Start();
  const Status status = RunTraining(SmallSpec(), options, corpus, &held_out, &loss, &pool,
                                    &stopping, &watcher, &state);
  REQUIRE(!status);
  CHECK(status.error().code == Code::kCancelled);
  CHECK(state.step == 1);
  CHECK(state.evaluations == 1);
  CHECK(state.best == state.weights);
  REQUIRE(watcher.reports.size() == 1);
  CHECK(watcher.reports[0].held_out);
}

// A divergence that grows from evaluation to evaluation.
class Growing final : public TokenLoss {
 public:
  Status Begin(const Batch&) override { return Ok{}; }
  Result<double> Rows(const Batch&, std::span<const uint32_t> rows, size_t, float,
                      float*) override {
    total_ += static_cast<double>(rows.size());
    return total_;
  }

 private:
  double total_ = 0;
};

TEST_CASE("with a divergence patience is about that, whatever the cross-entropy does") {
  TrainerOptions options = SmallOptions(60);
  options.evaluate_every = 5;
  options.patience = 2;
  Growing growing;
  options.divergence = &growing;
  Watcher watcher;
  const TrainerState state = Finished(options, 2, &watcher);
  CHECK(state.step == 15);
  REQUIRE(watcher.reports.size() == 15);
  const StepReport &first = watcher.reports[4], &last = watcher.reports[14];
  REQUIRE((first.held_out && last.held_out && first.held_out_divergence));
  CHECK(*last.held_out < *first.held_out);
  CHECK(state.best_loss == *first.held_out_divergence);
  options.divergence = nullptr;
  CHECK(Finished(options, 2, &watcher).step > 15);
}

// Gives a gradient that is no number from some call on.
class Broken final : public TokenLoss {
 public:
  Status Begin(const Batch&) override { return Ok{}; }
  Result<double> Rows(const Batch&, std::span<const uint32_t>, size_t, float,
                      float* logits) override {
    logits[0] = std::nanf("");
    return 1.0;
  }
};

TEST_CASE("gradients that are not finite change nothing and end the run when they go on") {
  Broken broken;
  Watcher watcher;
  TrainerState state = Start();
  const std::vector<float> before = state.weights;
  const Status status = Train(SmallOptions(50), 2, &watcher, &state, &broken);
  REQUIRE(!status.has_value());
  CHECK(status.error().code == Code::kBadData);
  CHECK(status.error().message.find("not finite") != std::string::npos);
  CHECK(watcher.reports.size() == 9);
  CHECK(watcher.reports.back().skipped);
  CHECK(state.weights == before);
}

TEST_CASE("a state is refused by another run, another model, or as another file") {
  TemporaryFolder folder;
  const std::string path = folder / "state.gguf";
  TrainerState state = Start();
  state.mean = state.variance = state.weights;
  REQUIRE(SaveState(state, "run", path).has_value());
  CHECK(LoadState(path, "run", state.weights.size()).has_value());
  for (const auto& result : {LoadState(path, "other", state.weights.size()),
                             LoadState(path, "run", 5), LoadState(folder / "none", "run", 5)}) {
    CHECK(!result.has_value());
  }
}

TEST_CASE("a student distilled from a teacher comes near it") {
  TrainerState teacher = Finished(SmallOptions(120));
  ThreadPool pool(2);
  const auto ops = MakeCpuOps(&pool, Precision::kF32);
  auto network = Network::Create(SmallSpec(), ops.get(), {});
  REQUIRE(network.has_value());
  NetworkTeacher source(*std::move(network), teacher.weights.data());
  TeacherLoss loss({.divergence = Divergence::kReverseKl, .alpha = 0.9, .temperature = 2}, &source,
                   &pool);
  TeacherLoss kl = loss.With({.divergence = Divergence::kForwardKl, .alpha = 1, .temperature = 1});
  TrainerOptions options = SmallOptions(120);
  options.evaluate_every = 40;
  options.divergence = &kl;
  TrainerState student = Start();
  Watcher watcher;
  REQUIRE(Train(options, 2, &watcher, &student, &loss).has_value());
  std::vector<double> divergence;
  for (const StepReport& report : watcher.reports) {
    if (report.held_out_divergence) divergence.push_back(*report.held_out_divergence);
  }
  REQUIRE(divergence.size() == 3);
  CHECK(divergence[1] < divergence[0]);
  CHECK(divergence[2] < 0.15);
  // The same by a loss of its own.
  auto own = Network::Create(SmallSpec(), ops.get(), {});
  REQUIRE(own.has_value());
  TeacherLoss alone({.divergence = Divergence::kForwardKl, .alpha = 1, .temperature = 1}, &source,
                    &pool);
  NoProgress quiet;
  const auto mean =
      HeldOutLoss(Counting(20, 2), options.batch, student.weights.data(), &alone, quiet, &*own);
  REQUIRE(mean);
  CHECK(*mean == doctest::Approx(divergence[2]).epsilon(1e-9));
}

TEST_CASE("refused options") {
  CHECK(CheckTrainer(SmallOptions(1)).has_value());
  const auto refused = [](auto&& change) {
    TrainerOptions options = SmallOptions(1);
    change(&options);
    return !CheckTrainer(options).has_value();
  };
  CHECK(refused([](TrainerOptions* o) { o->schedule.steps = 0; }));
  CHECK(refused([](TrainerOptions* o) { o->beta2 = 1; }));
  CHECK(refused([](TrainerOptions* o) { o->network.dropout = 1; }));
  CHECK(refused([](TrainerOptions* o) { o->ema = -0.1; }));
  CHECK(refused([](TrainerOptions* o) { o->clip = std::nan(""); }));
  CHECK(refused([](TrainerOptions* o) { o->accumulation = 0; }));
}

}  // namespace
}  // namespace edgewise::train
