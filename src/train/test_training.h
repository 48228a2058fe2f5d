// Test only: a small model, and runs of numbers that it learns to go on with.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "base/rng.h"
#include "tests/test_data.h"
#include "train/test_communicator.h"
#include "train/trainer.h"

namespace edgewise::train {

inline ModelSpec SmallSpec() {
  ModelSpec spec;
  spec.architecture = "llama";
  spec.n_layers = 2;
  spec.dim = 16;
  spec.n_heads = 4;
  spec.n_kv_heads = 2;
  spec.head_dim = 4;
  spec.ffn_dim = 24;
  spec.vocab_size = 11;
  spec.context_length = 64;
  spec.rope.rotary_dim = 4;
  spec.tied_embeddings = true;
  return spec;
}

// Runs of numbers that count up by 1 or by 2, modulo 11: what follows is known from two tokens.
inline Corpus Counting(size_t documents, uint64_t seed) {
  Rng rng(seed);
  Corpus corpus;
  for (size_t d = 0; d < documents; ++d) {
    const uint64_t first = rng.Below(11), step = 1 + rng.Below(2);
    std::vector<int32_t> tokens;
    for (uint64_t i = 0; i < 12; ++i)
      tokens.push_back(static_cast<int32_t>((first + step * i) % 11));
    corpus.Append(tokens);
  }
  return corpus;
}

inline TrainerOptions SmallOptions(uint64_t steps) {
  TrainerOptions options;
  options.schedule = {.peak = 0.02, .steps = steps, .warmup = std::min<uint64_t>(steps, 5)};
  options.batch = {.tokens = 96, .sequence = 16, .seed = 1};
  options.precision = Precision::kF32;
  options.evaluate_every = 10;
  return options;
}

// Keeps the reports; saves the state after some step; stops after another.
struct Watcher final : TrainingObserver, Progress {
  std::vector<StepReport> reports;
  uint64_t save_at = 0, stop_at = 0;
  std::string path;

  Status OnStep(const StepReport& report, const TrainerState& state) override {
    reports.push_back(report);
    return report.step == save_at ? SaveState(state, "run", path) : Status(Ok{});
  }
  void Update(std::string_view, uint64_t, uint64_t) override {}
  bool Cancelled() const override { return stop_at > 0 && reports.back().step >= stop_at; }
};

inline Status Train(const TrainerOptions& options, int threads, Watcher* watcher,
                    TrainerState* state, TokenLoss* loss = nullptr,
                    const ModelSpec& spec = SmallSpec()) {
  const Corpus corpus = Counting(60, 1), held_out = Counting(20, 2);
  ThreadPool pool(threads);
  CrossEntropyLoss plain(&pool);
  return RunTraining(spec, options, corpus, &held_out, loss ? loss : &plain, &pool, watcher,
                     watcher, state);
}

inline TrainerState Start() {
  TrainerState state;
  state.weights = RandomParameters(SmallSpec(), ParameterLayout(SmallSpec()), 7);
  return state;
}

inline TrainerState Finished(const TrainerOptions& options, int threads = 2,
                             Watcher* watcher = nullptr) {
  Watcher own;
  TrainerState state = Start();
  const Status status = Train(options, threads, watcher ? watcher : &own, &state);
  REQUIRE_MESSAGE(status.has_value(), (status ? "" : status.error().message));
  CHECK(state.finished);
  return state;
}

// Runs `options` from `start` to the end in one piece, stopped and gone on with, and shared by
// processes: all must leave the same weights and tell the same. `train` is one such run.
using TrainFunction =
    FunctionRef<Status(const TrainerOptions&, int threads, Watcher*, TrainerState*)>;
inline void CheckSameRuns(const TrainerOptions& options, const TrainerState& start,
                          TrainFunction train) {
  const uint64_t stop = options.schedule.steps / 2;
  TrainerState expected = start;
  Watcher whole;
  const Status status = train(options, 1, &whole, &expected);
  REQUIRE_MESSAGE(status.has_value(), (status ? "" : status.error().message));
  CHECK(expected.weights != start.weights);
  const auto same = [&](const TrainerState& state, const Watcher& watcher) {
    CHECK(state.weights == expected.weights);
    CHECK(state.variance == expected.variance);
    CHECK(watcher.reports.back().loss == whole.reports.back().loss);
    CHECK(watcher.reports.back().layer_loss == whole.reports.back().layer_loss);
    CHECK(*watcher.reports.back().held_out == *whole.reports.back().held_out);
  };
  TemporaryFolder folder;
  Watcher first, rest;
  first.save_at = first.stop_at = stop;
  first.path = folder / "state.gguf";
  TrainerState stopped = start;
  REQUIRE(!train(options, 3, &first, &stopped).has_value());
  auto loaded = LoadState(first.path, "run", start.weights.size());
  REQUIRE_MESSAGE(loaded.has_value(), (loaded ? "" : loaded.error().message));
  REQUIRE(train(options, 2, &rest, &*loaded).has_value());
  same(*loaded, rest);

  std::vector<TrainerState> states(2, start);
  std::vector<Watcher> watchers(states.size());
  std::vector<char> done(states.size());
  RunProcesses(static_cast<int>(states.size()), [&](Communicator* processes) {
    const auto rank = static_cast<size_t>(processes->rank());
    TrainerOptions own = options;
    own.processes = processes;
    done[rank] = train(own, 1, &watchers[rank], &states[rank]).has_value();
  });
  for (size_t rank = 0; rank < states.size(); ++rank) {
    REQUIRE(done[rank]);
    same(states[rank], watchers[rank]);
  }
}

}  // namespace edgewise::train
