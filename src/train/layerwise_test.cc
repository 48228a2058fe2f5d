// Training layer by layer on tiny models: each layer comes nearer, what is kept goes on alike.
#include "train/layerwise.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/process.h"
#include "train/test_models.h"
#include "train/weights.h"

namespace edgewise::train {
namespace {

struct Quiet final : Progress {
  void Update(std::string_view, uint64_t, uint64_t) override { --left; }
  bool Cancelled() const override { return left < 0; }
  int left = 1 << 30;
};

// Rows of whole blocks of 32.
TinyModel BlockLlama() {
  const TinySizes sizes = {
      .dim = 64, .layers = 3, .heads = 4, .kv_heads = 2, .head_dim = 16, .ffn = 96, .vocab = 37};
  return TinyWeights(TinyConfig("LlamaForCausalLM", "llama", sizes), sizes, {}, 3);
}

// Half of the weights of matrices of layers become zero, the smaller of each two.
TinyModel Pruned(TinyModel model) {
  for (auto& [name, tensor] : model.tensors) {
    if (!name.starts_with("model.layers.") || tensor.shape.size() != 2) continue;
    for (size_t i = 0; i + 1 < tensor.values.size(); i += 2) {
      float &a = tensor.values[i], &b = tensor.values[i + 1];
      (std::abs(a) < std::abs(b) ? a : b) = 0;
    }
  }
  return model;
}

Corpus Texts(uint64_t seed, size_t documents) {
  Corpus corpus;
  for (size_t d = 0; d < documents; ++d) corpus.Append(TinyTokens(17, 37, seed + d));
  return corpus;
}

struct Models {
  explicit Models(const TinyModel& base, const TinyModel& changed)
      : teacher(Open(base, folder / "teacher")), student(Open(changed, folder / "student")) {}
  static Checkpoint Open(const TinyModel& tiny, const std::string& path) {
    std::filesystem::create_directory(path);
    tiny.Write(path);
    auto opened = Checkpoint::Open(path);
    REQUIRE_MESSAGE(opened, (opened ? "" : opened.error().message));
    return *opened;
  }
  TemporaryFolder folder;
  Checkpoint teacher, student;
};

LayerwiseOptions Options(const Checkpoint& student, DType format, bool through, uint64_t steps) {
  LayerwiseOptions options;
  const ParameterLayout layout(student.spec());
  for (const Parameter& parameter : layout.all()) {
    const bool matrix = parameter.shape.rank() == 2;
    const bool fits = !Info(format).sparse() || parameter.name.starts_with("blk.");
    options.written.push_back(matrix && fits ? format : DType::kF32);
  }
  if (through) options.trainer.formats = options.written;
  options.trainer.schedule = {.peak = 3e-3, .steps = steps};
  options.trainer.weight_decay = 0;
  options.trainer.batch = {.tokens = 64, .sequence = 16, .seed = 1};
  options.trainer.precision = Precision::kF32;
  return options;
}

struct Learned {
  std::vector<std::vector<float>> layers;
  std::vector<LayerReport> reports;
  double loss = 0, teacher_loss = 0;
};

// The weights of a layer as it is written, by scales that were learned where there are any.
std::vector<float> AsWritten(const LayerLayout& layer, const std::vector<DType>& formats,
                             std::span<const float> learned, const BlockScales* scales,
                             ThreadPool* pool) {
  FakeQuantizer rounding(layer.parameters, formats, pool);
  const float* rounded = *rounding.Apply(learned.data());
  std::vector<float> weights(rounded, rounded + layer.size);
  if (scales == nullptr) return weights;
  for (const BlockScales::ScaledTensor& tensor : scales->tensors()) {
    Info(tensor.format)
        .decode(scales->Blocks(tensor, learned).data(), weights.data() + tensor.parameter.offset,
                tensor.parameter.shape.elements());
  }
  return weights;
}

// All layers; of those in `kept` as they are written nothing is learned.
Learned Learn(const Models& models, const LayerwiseOptions& options, int threads,
              const std::vector<std::vector<float>>& kept = {}) {
  ThreadPool pool(threads);
  Quiet quiet;
  const Corpus corpus = Texts(1, 40), held_out = Texts(100, 8);
  auto trainer = LayerwiseTrainer::Create(models.teacher, models.student, options, corpus, held_out,
                                          &pool, &quiet);
  REQUIRE_MESSAGE(trainer, (trainer ? "" : trainer.error().message));
  Learned learned;
  while ((*trainer)->next() < models.student.spec().n_layers) {
    if ((*trainer)->next() < kept.size()) {
      const auto& weights = kept[(*trainer)->next()];
      REQUIRE((*trainer)->Pass(weights));
      learned.layers.push_back(weights);
      continue;
    }
    const Status status = (*trainer)->Learn(
        [&](const LayerReport& report, std::span<const float> weights, const BlockScales* scales) {
          learned.reports.push_back(report);
          learned.layers.emplace_back(weights.begin(), weights.end());
          if (options.learn_scales) {
            const LayerLayout layer = (*trainer)->layer();
            learned.layers.back() = AsWritten(layer, (*trainer)->written(), weights, scales, &pool);
          }
          return Status(Ok{});
        });
    REQUIRE_MESSAGE(status, (status ? "" : status.error().message));
  }
  const auto loss = (*trainer)->HeldOutLoss(models.student);
  const auto teacher = (*trainer)->TeacherLoss();
  REQUIRE((loss && teacher));
  learned.loss = *loss;
  learned.teacher_loss = *teacher;
  return learned;
}

// The student with what was learned, rounded to its formats.
std::vector<float> Assembled(const Models& models, const LayerwiseOptions& options,
                             const Learned& learned, ThreadPool* pool) {
  const ParameterLayout layout(models.student.spec());
  std::vector<float> weights = *LoadParameters(models.student, layout);
  for (uint32_t l = 0; l < learned.layers.size(); ++l) {
    const LayerLayout layer(layout, l);
    for (const Parameter& part : layer.parameters) {
      for (const Parameter& whole : layout.all()) {
        if (whole.name != part.name) continue;
        std::copy_n(learned.layers[l].begin() + static_cast<long>(part.offset),
                    part.shape.elements(), weights.begin() + static_cast<long>(whole.offset));
      }
    }
  }
  FakeQuantizer rounding(layout.all(), options.written, pool);
  const float* rounded = *rounding.Apply(weights.data());
  return {rounded, rounded + weights.size()};
}

double LossOf(const ModelSpec& spec, const std::vector<float>& weights, ThreadPool* pool) {
  const auto ops = MakeCpuOps(pool, Precision::kF32);
  auto network = Network::Create(spec, ops.get(), {});
  REQUIRE(network);
  CrossEntropyLoss cross_entropy(pool);
  const auto loss = HeldOutLoss(Texts(100, 8), {.tokens = 64, .sequence = 16}, weights.data(),
                                &cross_entropy, Quiet(), &*network);
  REQUIRE(loss);
  return *loss;
}

TEST_CASE("healing: each layer comes nearer to the teacher's, and zeros stay") {
  const TinyModel base = BlockLlama();
  const Models models(base, Pruned(base));
  LayerwiseOptions options = Options(models.student, DType::kF32, false, 60);
  options.trainer.network.keep_zeros = true;
  const Learned learned = Learn(models, options, 2);
  REQUIRE(learned.reports.size() == 3);
  for (uint32_t l = 0; l < 3; ++l) {
    CAPTURE(l);
    CHECK(learned.reports[l].layer == l);
    CHECK(learned.reports[l].error < 0.95 * learned.reports[l].first_error);
    const LayerLayout layer(ParameterLayout(models.student.spec()), l);
    ThreadPool pool(1);
    const auto before = LoadLayer(models.student, layer, &pool);
    REQUIRE(before);
    size_t zeros = 0, lost = 0, moved = 0;
    for (size_t i = 0; i < layer.matrix_size; ++i) {
      zeros += (*before)[i] == 0;
      lost += (*before)[i] == 0 && learned.layers[l][i] != 0;
      moved += (*before)[i] != learned.layers[l][i];
    }
    CHECK(zeros >= layer.matrix_size / 2);
    CHECK(lost == 0);
    CHECK(moved > layer.matrix_size / 3);
  }
  // The same loss as that of the whole model in memory, and a better one than before.
  ThreadPool pool(2);
  const ModelSpec& spec = models.student.spec();
  CHECK(learned.loss == LossOf(spec, Assembled(models, options, learned, &pool), &pool));
  const ParameterLayout layout(spec);
  CHECK(learned.teacher_loss == LossOf(spec, *LoadParameters(models.teacher, layout), &pool));
}

TEST_CASE("through a quantizer: nearer than rounding, and what is measured is what is written") {
  const TinyModel base = BlockLlama();
  const Models models(base, base);
  LayerwiseOptions options = Options(models.student, DType::kQ4_0, true, 100);
  options.trainer.schedule.peak = 1e-3;
  const ParameterLayout layout(models.student.spec());
  for (size_t i = 0; i < options.written.size(); ++i) {
    // HeldOutLoss below reads the student's own output matrix.
    if (layout.all()[i].name == "output.weight") {
      options.written[i] = options.trainer.formats[i] = DType::kF32;
    }
  }
  const Learned learned = Learn(models, options, 2);
  REQUIRE(learned.reports.size() == 3);
  for (const LayerReport& report : learned.reports) CHECK(report.first_error > 0.01);
  // What the last layer could mend is less than what its input is off.
  CHECK(learned.reports[0].error < 0.9 * learned.reports[0].first_error);
  CHECK(learned.reports[1].error < 0.99 * learned.reports[1].first_error);
  ThreadPool pool(2);
  const std::vector<float> whole = Assembled(models, options, learned, &pool);
  CHECK(learned.loss == LossOf(models.student.spec(), whole, &pool));
}

TEST_CASE("scales are learned beside the weights, and what is measured is what is written") {
  const TinyModel base = BlockLlama();
  const Models models(base, base);
  LayerwiseOptions options = Options(models.student, DType::kQ4_1, true, 100);
  options.trainer.schedule.peak = 1e-3;
  options.learn_scales = true;
  const ParameterLayout layout(models.student.spec());
  for (size_t i = 0; i < options.written.size(); ++i) {
    if (layout.all()[i].name == "output.weight") options.written[i] = DType::kF32;
  }
  const Learned learned = Learn(models, options, 2);
  REQUIRE(learned.reports.size() == 3);
  CHECK(learned.reports[0].error < 0.9 * learned.reports[0].first_error);
  CHECK(learned.reports[1].error < 0.99 * learned.reports[1].first_error);
  ThreadPool pool(2);
  LayerwiseOptions as_written = options;
  for (size_t i = 0; i < options.written.size(); ++i) {
    if (layout.all()[i].name.starts_with("blk.")) as_written.written[i] = DType::kF32;
  }
  const std::vector<float> whole = Assembled(models, as_written, learned, &pool);
  CHECK(learned.loss == LossOf(models.student.spec(), whole, &pool));
  options.learn_scales = false;
  CHECK(Learn(models, options, 2).layers != learned.layers);
}

TEST_CASE("threads change no bit, and a run goes on after layers that were kept") {
  const TinyModel base = BlockLlama();
  const Models models(base, base);
  const LayerwiseOptions options = Options(models.student, DType::kQ4_0, true, 7);
  const Learned whole = Learn(models, options, 1);
  const Learned threads = Learn(models, options, 3);
  CHECK(threads.layers == whole.layers);
  CHECK(threads.loss == whole.loss);
  const ParameterLayout layout(models.student.spec());
  std::vector<std::vector<float>> kept;
  ThreadPool pool(1);
  for (uint32_t l = 0; l < 2; ++l) {
    const LayerLayout layer(layout, l);
    std::vector<DType> formats;
    for (const Parameter& p : layer.parameters) {
      formats.push_back(p.shape.rank() == 2 ? DType::kQ4_0 : DType::kF32);
    }
    FakeQuantizer rounding(layer.parameters, formats, &pool);
    const float* seen = *rounding.Apply(whole.layers[l].data());
    kept.emplace_back(seen, seen + layer.size);
    const Learned gone_on = Learn(models, options, 2, kept);
    CHECK(gone_on.layers[2] == whole.layers[2]);
    CHECK(gone_on.loss == whole.loss);
  }
}

TEST_CASE("a layer that did not come nearer stays as it was") {
  const TinyModel base = BlockLlama();
  const Models models(base, base);
  LayerwiseOptions options = Options(models.student, DType::kQ8_0, true, 20);
  options.trainer.schedule.peak = 0.3;  // much too high
  const Learned learned = Learn(models, options, 2);
  ThreadPool pool(1);
  for (const LayerReport& report : learned.reports) {
    CHECK(report.error > report.first_error);
    CHECK_FALSE(report.learned);
    const LayerLayout layer(ParameterLayout(models.student.spec()), report.layer);
    CHECK(learned.layers[report.layer] == *LoadLayer(models.student, layer, &pool));
  }
}

TEST_CASE("a layer that is the teacher's already stays as it is") {
  const TinyModel base = BlockLlama();
  const Models models(base, base);
  const Learned learned = Learn(models, Options(models.student, DType::kF32, false, 3), 2);
  for (const LayerReport& report : learned.reports) {
    CHECK(report.first_error == 0);
    CHECK(report.error == 0);
  }
  CHECK(learned.loss == learned.teacher_loss);
}

TEST_CASE("students whose layers do not match the teacher's, and formats that do not fit") {
  const TinyModel base = BlockLlama();
  const TinySizes shallow = {
      .dim = 64, .layers = 2, .heads = 4, .kv_heads = 2, .head_dim = 16, .ffn = 96, .vocab = 37};
  const Models models(
      base, TinyWeights(TinyConfig("LlamaForCausalLM", "llama", shallow), shallow, {}, 3));
  ThreadPool pool(1);
  Quiet quiet;
  const auto trainer = LayerwiseTrainer::Create(models.teacher, models.student,
                                                Options(models.student, DType::kF32, false, 3),
                                                Texts(1, 4), Texts(9, 2), &pool, &quiet);
  REQUIRE_FALSE(trainer);
  CHECK(trainer.error().code == Code::kInvalidArgument);
  CHECK(trainer.error().message.find("3 layers of width 64 and the student 2 of 64") !=
        std::string::npos);

  const Models same(base, base);
  const auto learn = [&](DType format, int left) {
    auto made =
        LayerwiseTrainer::Create(same.teacher, same.student, Options(same.student, format, true, 9),
                                 Texts(1, 4), Texts(9, 2), &pool, &quiet);
    REQUIRE(made);
    quiet.left = left;
    const Status status = (*made)->Learn([](auto&&...) {
      FAIL("learned");
      return Status(Ok{});
    });
    quiet.left = 1 << 30;
    return status ? std::string() : status.error().message;
  };
  CHECK(learn(DType::kS24_F16, 100).find("prune the model first") != std::string::npos);
  CHECK(learn(DType::kQ4_0, 3).find("stopped in layer 0 of 3") != std::string::npos);
}

TEST_CASE("a student with narrower layers learns too") {
  const TinyModel base = BlockLlama();
  const TinySizes narrow = {
      .dim = 64, .layers = 3, .heads = 2, .kv_heads = 1, .head_dim = 16, .ffn = 64, .vocab = 37};
  const Models models(base,
                      TinyWeights(TinyConfig("LlamaForCausalLM", "llama", narrow), narrow, {}, 3));
  for (const LayerReport& report :
       Learn(models, Options(models.student, DType::kF32, false, 40), 2).reports) {
    CHECK(report.error < report.first_error);
  }
}

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EW_ADDRESS_SANITIZER
#endif
#endif
#if defined(EW_ADDRESS_SANITIZER) || defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

TEST_CASE("the plan of memory is near what is taken") {
  if (kSanitized) {
    MESSAGE("skipped: the sanitizer's own memory is among what is taken");
    return;
  }
  const TinySizes sizes = {
      .dim = 512, .layers = 2, .heads = 8, .kv_heads = 2, .head_dim = 64, .ffn = 2048, .vocab = 64};
  const TinyModel base = TinyWeights(TinyConfig("LlamaForCausalLM", "llama", sizes), sizes, {}, 3);
  const Models models(base, base);
  LayerwiseOptions options = Options(models.student, DType::kQ4_0, true, 1);
  options.trainer.batch.tokens = 512;
  const Corpus corpus = Texts(1, 64), held_out = Texts(900, 8);
  const LayerwiseCost cost = CostOfLayerwise(models.teacher, models.student, options,
                                             corpus.token_count() + held_out.token_count());
  CHECK(cost.disk == 0);
  ThreadPool pool(2);
  Quiet quiet;
  if (!ResetPeakRss()) return;
  const uint64_t before = ReadMemoryUse().rss_bytes;
  auto trainer = LayerwiseTrainer::Create(models.teacher, models.student, options, corpus, held_out,
                                          &pool, &quiet);
  REQUIRE(trainer);
  REQUIRE((*trainer)->Learn([](auto&&...) { return Status(Ok{}); }));
  const double taken = static_cast<double>(ReadMemoryUse().peak_rss_bytes - before);
  MESSAGE("planned ", cost.memory, ", taken ", taken);
  CHECK(taken > 0.85 * static_cast<double>(cost.memory));
  CHECK(taken < 1.15 * static_cast<double>(cost.memory));
}

}  // namespace
}  // namespace edgewise::train
