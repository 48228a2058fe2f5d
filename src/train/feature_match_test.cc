// Matching of layers: against the formulas in double precision on a student and a teacher of
// different widths, depths and heads; in training.
#include "train/feature_match.h"

#include <doctest/doctest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "model/reference_forward.h"
#include "train/test_gradients.h"
#include "train/test_training.h"

namespace edgewise::train {
namespace {

using Values = std::vector<double>;

constexpr float kScale = 0.25f;
constexpr double kAlpha = 0.5;
constexpr MatchOptions kBoth = {.hidden = 0.7, .attention = 1.3};

TinySizes TeacherSizes() { return {.kv_heads = 4}; }
TinySizes StudentSizes() {
  return {.dim = 20, .layers = 2, .heads = 6, .kv_heads = 2, .head_dim = 8, .ffn = 24};
}
TinyModel Tiny(const TinySizes& sizes, uint64_t seed, bool qk_norm = false) {
  const char* name = qk_norm ? "Qwen3ForCausalLM" : "LlamaForCausalLM";
  return TinyWeights(TinyConfig(name, qk_norm ? "qwen3" : "llama", sizes), sizes,
                     {.qk_norm = qk_norm}, seed);
}

// Two models after the same tokens.
struct Sides {
  Values student_logits, teacher_logits;
  ReferenceForward student, teacher;
  Sides(const TinyModel& s, const TinyModel& t, const std::vector<int32_t>& tokens)
      : student(s), teacher(t) {
    student_logits = student.Run(tokens);
    teacher_logits = teacher.Run(tokens);
  }
};

Values Row(const Values& rows, size_t row, size_t first, size_t columns, size_t stride) {
  const auto at = rows.begin() + static_cast<long>(row * stride + first);
  return {at, at + static_cast<long>(columns)};
}

Values Softmax(Values x) {
  double sum = 0;
  for (double& value : x) sum += value = std::exp(value);
  for (double& value : x) value /= sum;
  return x;
}

double Kl(const Values& p, const Values& q) {
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) sum += p[i] * std::log(p[i] / q[i]);
  return sum;
}

// Relations of token i in one head.
Values Relations(const Values& x, size_t i, size_t first, size_t columns, size_t stride) {
  const Values own = Row(x, i, first, columns, stride);
  Values scores;
  for (size_t j = 0; j <= i; ++j) {
    const Values other = Row(x, j, first, columns, stride);
    const double product = std::inner_product(own.begin(), own.end(), other.begin(), 0.0);
    scores.push_back(product / std::sqrt(static_cast<double>(columns)));
  }
  return Softmax(scores);
}

double RelationDistance(const Values& student, const Values& teacher, size_t i, size_t heads,
                        size_t tokens) {
  const size_t s = student.size() / tokens, t = teacher.size() / tokens;
  double sum = 0;
  for (size_t h = 0; h < heads; ++h) {
    sum += Kl(Relations(teacher, i, h * (t / heads), t / heads, t),
              Relations(student, i, h * (s / heads), s / heads, s));
  }
  return sum / static_cast<double>(heads);
}

Values Normalized(Values x) {
  double squares = 0;
  for (const double value : x) squares += value * value;
  for (double& value : x) value /= std::sqrt(squares / static_cast<double>(x.size()) + 1e-5);
  return x;
}

// |W n(h) - n(H)|^2 / D of token i, its mean over depths.
double HiddenDistance(const Sides& sides, const std::vector<float>& w, size_t i, size_t tokens) {
  const size_t layers = sides.student.streams.size() - 1,
               teacher = sides.teacher.streams.size() - 1;
  const size_t d = sides.student.streams[0].size() / tokens;
  const size_t wide = sides.teacher.streams[0].size() / tokens;
  double sum = 0;
  for (size_t s = 0; s <= layers; ++s) {
    const double share = static_cast<double>(s) / static_cast<double>(layers);
    const auto g = static_cast<size_t>(std::floor(share * static_cast<double>(teacher) + 0.5));
    const Values h = Normalized(Row(sides.student.streams[s], i, 0, d, d));
    const Values target = Normalized(Row(sides.teacher.streams[g], i, 0, wide, wide));
    for (size_t r = 0; r < wide; ++r) {
      double missed = -target[r];
      for (size_t c = 0; c < d; ++c) missed += static_cast<double>(w[r * d + c]) * h[c];
      sum += missed * missed / static_cast<double>(wide);
    }
  }
  return sum / static_cast<double>(layers + 1);
}

// The losses of a batch: of its logits and of the layers.
struct Losses {
  double logits = 0, layers = 0;
  double sum() const { return logits + layers; }
};

Losses ReferenceLosses(const TinyModel& student, const TinyModel& teacher,
                       const std::vector<float>& w, const MatchOptions& options,
                       const Batch& batch) {
  const size_t vocab = TinySizes().vocab;
  const auto size = [](const TinyModel& model, const char* key) {
    return static_cast<size_t>(*model.config.Find(key)->AsDouble());
  };
  const auto shared = [&](const char* key) {
    return std::gcd(size(student, key), size(teacher, key));
  };
  const size_t heads = shared("num_attention_heads"), kv_heads = shared("num_key_value_heads");
  Losses losses;
  size_t row = 0;
  for (const uint32_t length : batch.lengths) {
    const std::vector<int32_t> tokens(batch.tokens.begin() + static_cast<long>(row),
                                      batch.tokens.begin() + static_cast<long>(row + length));
    const Sides sides(student, teacher, tokens);
    const ReferenceForward &s = sides.student, &t = sides.teacher;
    for (size_t i = 0; i < length; ++i, ++row) {
      if (batch.targets[row] == kNoTarget) continue;
      const Values q = Softmax(Row(sides.student_logits, i, 0, vocab, vocab));
      const Values p = Softmax(Row(sides.teacher_logits, i, 0, vocab, vocab));
      losses.logits +=
          kAlpha * Kl(p, q) - (1 - kAlpha) * std::log(q[static_cast<size_t>(batch.targets[row])]);
      if (options.hidden > 0) losses.layers += options.hidden * HiddenDistance(sides, w, i, length);
      if (options.attention == 0) continue;
      const double relations =
          RelationDistance(s.queries.back(), t.queries.back(), i, heads, length) +
          RelationDistance(s.keys.back(), t.keys.back(), i, kv_heads, length) +
          RelationDistance(s.values.back(), t.values.back(), i, kv_heads, length);
      losses.layers += options.attention * relations;
    }
  }
  return losses;
}

// A teacher with what it is matched by.
struct Lesson {
  ThreadPool pool;
  std::unique_ptr<Ops> ops = MakeCpuOps(&pool, Precision::kF32);
  FeatureMatch match;
  NetworkTeacher teacher;
  TeacherLoss loss;
  Lesson(const ModelSpec& student, const ModelSpec& spec, const std::vector<float>& weights,
         const MatchOptions& options, int threads = 2, double alpha = kAlpha)
      : pool(threads),
        match(options, student, spec, Precision::kF32, &pool),
        teacher(*Network::Create(spec, ops.get(), {}), weights.data(), &match),
        loss({.alpha = alpha}, &teacher, &pool, options.any() ? &match : nullptr) {}
};

struct Outcome {
  Losses losses;
  std::vector<float> gradients, projection_gradients;
  bool operator==(const Outcome& other) const {
    return losses.sum() == other.losses.sum() && gradients == other.gradients &&
           projection_gradients == other.projection_gradients;
  }
};

struct Pair {
  TinyModel student, teacher;
  ModelSpec student_spec, teacher_spec;
  std::vector<float> weights, teacher_weights;
  Batch batch;

  explicit Pair(TinyModel s) : student(std::move(s)), teacher(Tiny(TeacherSizes(), 5)) {
    weights = Parameters(student, &student_spec);
    teacher_weights = Parameters(teacher, &teacher_spec);
    batch = PackedBatch(student_spec.vocab_size);
  }
  std::vector<float> Projection() const {
    std::vector<float> w(size_t{teacher_spec.dim} * student_spec.dim);
    Rng rng(8);
    for (float& value : w) value = static_cast<float>(0.2 * rng.Gaussian());
    return w;
  }
  Outcome Run(const std::vector<float>& w, const MatchOptions& options, int threads = 2,
              const NetworkOptions& network_options = {}) const {
    Lesson lesson(student_spec, teacher_spec, teacher_weights, options, threads);
    Outcome outcome;
    outcome.gradients.resize(weights.size());
    outcome.projection_gradients.resize(w.size());
    lesson.match.Bind(w.data(), outcome.projection_gradients.data());
    auto network = Network::Create(student_spec, lesson.ops.get(), network_options);
    REQUIRE(network.has_value());
    const auto sum =
        network->Train(batch, weights.data(), &lesson.loss, kScale, 1, outcome.gradients.data());
    REQUIRE(sum.has_value());
    outcome.losses = {*sum, options.any() ? lesson.match.loss() : 0};
    return outcome;
  }
};

void CheckGradients(const Pair& pair, const MatchOptions& options) {
  const std::vector<float> w = pair.Projection();
  const Outcome outcome = pair.Run(w, options);
  const auto reference = [&](const TinyModel& student, const std::vector<float>& projection) {
    return ReferenceLosses(student, pair.teacher, projection, options, pair.batch);
  };
  const Losses expected = reference(pair.student, w);
  CHECK(outcome.losses.logits == doctest::Approx(expected.logits).epsilon(1e-5));
  CHECK(outcome.losses.layers == doctest::Approx(expected.layers).epsilon(1e-5));
  for (const auto& [name, tensor] : pair.student.tensors) {
    CheckTensor(pair.student, name, outcome.gradients, kScale,
                [&](const TinyModel& moved) { return reference(moved, w).sum(); });
  }
  if (options.hidden == 0) return;
  // The loss is a parabola along any direction of W: differences are exact.
  std::vector<float> up = w, down = w, move = w;
  Rng rng(9);
  for (size_t i = 0; i < w.size(); ++i) {
    move[i] = static_cast<float>(0.01 * rng.Gaussian());
    up[i] += move[i];
    down[i] -= move[i];
  }
  const double change =
      kScale * (reference(pair.student, up).sum() - reference(pair.student, down).sum());
  CHECK(2 * Dot(outcome.projection_gradients, move) == doctest::Approx(change).epsilon(1e-3));
}

TEST_CASE("losses and gradients are those of the formulas") {
  for (const bool qk_norm : {false, true}) {
    const Pair pair(Tiny(StudentSizes(), 6, qk_norm));
    CheckGradients(pair, {.hidden = 1});
    CheckGradients(pair, {.attention = 1});
    CheckGradients(pair, kBoth);
  }
}

TEST_CASE("threads and computing again change no bit") {
  const Pair pair(Tiny(StudentSizes(), 6));
  const std::vector<float> w = pair.Projection();
  const Outcome one = pair.Run(w, kBoth, 1);
  CHECK(pair.Run(w, kBoth, 3) == one);
  CHECK(pair.Run(w, kBoth, 2, {.recompute = true}) == one);
  CHECK(!(pair.Run(w, {.hidden = kBoth.hidden}) == one));
}

TEST_CASE("a model that is its own teacher misses nothing, from the first step on") {
  const Pair pair(Tiny(TeacherSizes(), 5));
  Lesson lesson(pair.student_spec, pair.teacher_spec, pair.teacher_weights, kBoth);
  const Outcome outcome = pair.Run(lesson.match.First(1), kBoth);
  CHECK(outcome.losses.layers < 1e-9);
}

// Relations in sequences longer than a block, of which some tokens do not count.
TEST_CASE("relations by blocks are those of the whole") {
  constexpr size_t kHeads = 2, kColumns = 6, kTargetColumns = 4;
  const std::vector<uint32_t> lengths = {150, 1, 70};
  const size_t n = 221, width = kHeads * kColumns, target_width = kHeads * kTargetColumns;
  Rng rng(3);
  std::vector<float> x(n * width), target(n * target_width), dx(x.size());
  for (float& value : x) value = static_cast<float>(rng.Gaussian());
  for (float& value : target) value = static_cast<float>(rng.Gaussian());
  std::vector<uint8_t> counted(n, 1);
  for (size_t i = 0; i < n; i += 3) counted[i] = 0;
  const RelationShape shape = {lengths, kHeads, kColumns, kTargetColumns, counted};
  const auto reference = [&](const std::vector<float>& moved) {
    double sum = 0;
    size_t row = 0;
    for (const uint32_t length : lengths) {
      const Values own(moved.begin() + static_cast<long>(row * width),
                       moved.begin() + static_cast<long>((row + length) * width));
      const Values other(target.begin() + static_cast<long>(row * target_width),
                         target.begin() + static_cast<long>((row + length) * target_width));
      for (size_t i = 0; i < length; ++i) {
        if (counted[row + i] == 0) continue;
        sum += kHeads * RelationDistance(own, other, i, kHeads, length);
      }
      row += length;
    }
    return sum;
  };
  ThreadPool pool(3);
  const auto ops = MakeCpuOps(&pool, Precision::kF32);
  const double sum = ops->MatchRelations(shape, {target.data(), target_width}, {x.data(), width},
                                         kScale, {dx.data(), width});
  CHECK(sum == doctest::Approx(reference(x)).epsilon(1e-5));
  std::vector<float> up = x, down = x, move = x;
  for (size_t i = 0; i < x.size(); ++i) {
    move[i] = static_cast<float>(1e-3 * rng.Gaussian());
    up[i] += move[i];
    down[i] -= move[i];
  }
  const double change = kScale * (reference(up) - reference(down));
  CHECK(2 * Dot(dx, move) == doctest::Approx(change).epsilon(1e-3));
}

// A student of half the teacher's width and depth learns to count.
ModelSpec StudentSpec() {
  ModelSpec spec = SmallSpec();
  spec.n_layers = 1;
  spec.dim = 8;
  spec.n_heads = 2;
  spec.n_kv_heads = 1;
  return spec;
}

TrainerState StudentStart(const Lesson& lesson) {
  TrainerState state;
  state.weights = RandomParameters(StudentSpec(), ParameterLayout(StudentSpec()), 7);
  const std::vector<float> w = lesson.match.First(3);
  state.weights.insert(state.weights.end(), w.begin(), w.end());
  return state;
}

TEST_CASE("stopping and going on, threads and processes change no bit of a run with matching") {
  const TrainerState teacher = Start();
  TrainerOptions options = SmallOptions(8);
  options.accumulation = 2;
  options.ema = 0.9;
  for (const MomentFormat moments : {MomentFormat::kF32, MomentFormat::k8Bit}) {
    options.moments = moments;
    const Lesson before(StudentSpec(), SmallSpec(), teacher.weights, kBoth);
    CheckSameRuns(
        options, StudentStart(before),
        [&](const TrainerOptions& own, int threads, Watcher* watcher, TrainerState* state) {
          Lesson lesson(StudentSpec(), SmallSpec(), teacher.weights, kBoth, threads);
          return Train(own, threads, watcher, state, &lesson.loss, StudentSpec());
        });
  }
}

// The least distance that any projection leaves between the layers.
double Distance(const TrainerState& student, const TrainerState& teacher) {
  Lesson lesson(StudentSpec(), SmallSpec(), teacher.weights, {.hidden = 1});
  const auto batches = AllBatches(Counting(8, 3), SmallOptions(1).batch);
  REQUIRE(batches.has_value());
  const Batch& batch = batches->front();
  auto network = Network::Create(StudentSpec(), lesson.ops.get(), {});
  REQUIRE(network.has_value());
  std::vector<float> w = lesson.match.First(3), mean(w.size()), variance(w.size());
  std::vector<float> unused(network->size()), gradients(w.size());
  AdamStep step = {.learning_rate = 0.02f,
                   .beta1 = 0.9f,
                   .beta2 = 0.95f,
                   .eps = 1e-8f,
                   .weight_decay = 0,
                   .decayed = 0,
                   .gradient_scale = 1,
                   .step = 0};
  for (step.step = 1; step.step <= 300; ++step.step) {
    std::fill(gradients.begin(), gradients.end(), 0.0f);
    lesson.match.Bind(w.data(), gradients.data());
    REQUIRE(network->Train(batch, student.weights.data(), &lesson.loss, 1, 1, unused.data())
                .has_value());
    lesson.ops->Adam(step, gradients.data(), w.size(), {mean.data(), variance.data()}, w.data());
  }
  return lesson.match.loss() / static_cast<double>(batch.CountTargets());
}

TEST_CASE("a student that matches its teacher is nearer to it, and its loss falls") {
  const TrainerState teacher = Finished(SmallOptions(120));
  double distances[2];
  for (const bool matches : {false, true}) {
    const MatchOptions options = {.hidden = matches ? 1.0 : 0.0, .attention = matches ? 1.0 : 0.0};
    Lesson lesson(StudentSpec(), SmallSpec(), teacher.weights, options, 2, 1);
    TrainerState student = StudentStart(lesson);
    Watcher watcher;
    REQUIRE(
        Train(SmallOptions(120), 2, &watcher, &student, &lesson.loss, StudentSpec()).has_value());
    distances[matches] = Distance(student, teacher);
    CHECK((watcher.reports.front().layer_loss > 0) == matches);
    CHECK(watcher.reports.back().layer_loss <= 0.6 * watcher.reports.front().layer_loss);
    CHECK(watcher.reports.back().loss < 0.7 * watcher.reports.front().loss);
  }
  CAPTURE(distances[0]);
  CHECK(distances[1] < 0.8 * distances[0]);
}

TEST_CASE("refused weights") {
  CHECK(CheckMatch(kBoth).has_value());
  for (const double weight : {-0.1, 1e7, std::nan(""), HUGE_VAL}) {
    CHECK(!CheckMatch({.hidden = weight}).has_value());
    CHECK(!CheckMatch({.attention = weight}).has_value());
  }
}

}  // namespace
}  // namespace edgewise::train
