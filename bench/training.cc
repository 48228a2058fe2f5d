// Trains a Llama of random weights on random tokens for some steps and prints a JSON line: median
// tokens/s of the steps after the first, by the clock and by processor time divided by the threads,
// which busy neighbours disturb less; peak memory.
// usage: training DIM LAYERS HEADS FFN VOCABULARY SEQUENCE SEQUENCES f32|bf16 THREADS STEPS [lean]
// lean: moments in 8 bits, and activations computed anew in the backward pass.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/process.h"
#include "base/rng.h"
#include "kernels/kernels.h"
#include "train/trainer.h"

namespace edgewise::train {
namespace {

double ProcessorSeconds() {
  timespec now = {};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

class Clock final : public TrainingObserver {
 public:
  Status OnStep(const StepReport& report, const TrainerState&) override {
    const double now = ProcessorSeconds();
    if (report.step > 1) {
      wall.push_back(report.seconds);
      processor.push_back(now - last_);
    }
    last_ = now;
    loss = report.loss;
    return Ok{};
  }
  std::vector<double> wall, processor;
  double loss = 0;

 private:
  double last_ = 0;
};

struct Sizes {
  uint32_t dim, layers, heads, ffn, vocabulary, sequence, sequences;
};

ModelSpec Spec(const Sizes& s) {
  ModelSpec spec;
  spec.architecture = "llama";
  spec.n_layers = s.layers;
  spec.dim = s.dim;
  spec.n_heads = spec.n_kv_heads = s.heads;
  spec.head_dim = spec.rope.rotary_dim = s.dim / s.heads;
  spec.ffn_dim = s.ffn;
  spec.vocab_size = s.vocabulary;
  spec.context_length = s.sequence;
  spec.tied_embeddings = true;
  return spec;
}

Status Run(const Sizes& s, Precision precision, bool lean, int threads, uint64_t steps) {
  const ModelSpec spec = Spec(s);
  Rng rng(1);
  Corpus corpus;
  for (uint64_t d = 0; d < (steps + 1) * s.sequences; ++d) {
    std::vector<int32_t> tokens(s.sequence + 1);
    for (int32_t& token : tokens) token = static_cast<int32_t>(rng.Below(s.vocabulary));
    corpus.Append(tokens);
  }
  TrainerOptions options;
  options.schedule = {.steps = steps + 1};
  options.batch = {.tokens = size_t{s.sequence} * s.sequences, .sequence = s.sequence};
  options.precision = precision;
  if (lean) options.moments = MomentFormat::k8Bit;
  options.network.recompute = lean;
  ThreadPool pool(threads);
  CrossEntropyLoss loss(&pool);
  NoProgress progress;
  Clock clock;
  TrainerState state;
  state.weights = RandomParameters(spec, ParameterLayout(spec), 1);
  EW_TRY(RunTraining(spec, options, corpus, nullptr, &loss, &pool, &progress, &clock, &state));
  const auto tokens = static_cast<double>(options.batch.tokens);
  Json line;
  line.Set("engine", "edgewise").Set("isa", kernels::Active().name);
  line.Set("precision", PrecisionName(precision)).Set("threads", threads).Set("steps", steps);
  line.Set("tokens_per_s", tokens / Median(clock.wall));
  line.Set("processor_tokens_per_s", tokens * threads / Median(clock.processor));
  line.Set("loss", clock.loss).Set("peak_rss_bytes", ReadMemoryUse().peak_rss_bytes);
  std::printf("%s\n", line.Dump().c_str());
  return Ok{};
}

int Main(int argc, char** argv) {
  const bool lean = argc == 12 && std::string(argv[11]) == "lean";
  if (argc != 11 && !lean) {
    std::fputs(
        "usage: training DIM LAYERS HEADS FFN VOCABULARY SEQUENCE SEQUENCES f32|bf16 THREADS "
        "STEPS [lean]\n",
        stderr);
    return 2;
  }
  if (const char* error = kernels::CheckIsa()) {
    std::fprintf(stderr, "training: %s\n", error);
    return 2;
  }
  const auto number = [&](int i) {
    return static_cast<uint32_t>(std::strtoul(argv[i], nullptr, 10));
  };
  const Sizes s = {number(1), number(2), number(3), number(4), number(5), number(6), number(7)};
  const int threads = std::atoi(argv[9]), steps = std::atoi(argv[10]);
  if (std::min({s.dim, s.layers, s.heads, s.ffn, s.vocabulary, s.sequence, s.sequences}) < 1 ||
      s.dim % (2 * s.heads) != 0 || threads < 1 || steps < 1) {
    std::fputs("training: sizes are above 0, and heads have an even part of DIM each\n", stderr);
    return 2;
  }
  const auto precision = ParsePrecision(argv[8]);
  const Status status = precision ? Run(s, *precision, lean, threads, static_cast<uint64_t>(steps))
                                  : precision.error();
  if (status) return 0;
  std::fprintf(stderr, "training: %s\n", status.error().message.c_str());
  return 1;
}

}  // namespace
}  // namespace edgewise::train

int main(int argc, char** argv) { return edgewise::train::Main(argc, argv); }
