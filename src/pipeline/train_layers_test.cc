// Training layer by layer on our own model: quality, what the file holds, what is refused.
#include "pipeline/train_layers.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "compress/quantize/presets.h"
#include "pipeline/pruned_stories.h"
#include "pipeline/test_training.h"

namespace edgewise {
namespace {

struct Setup {
  TemporaryFolder folder;
  std::string text = folder / "text.txt", held_out = folder / "held.txt";

  Setup() {
    const std::string stories = ReadWhole(kModel + "/stories.txt");
    std::ofstream(text) << stories.substr(0, 30000);
    std::ofstream(held_out) << stories.substr(40000, 2000);
  }
  TrainJob Job(const std::string& student, const std::string& out, uint64_t steps) const {
    TrainJob job;
    job.model = student;
    job.teacher = kModel;
    job.tokenizer_path = kModel;
    job.data = text;
    job.held_out = held_out;
    job.out = out;
    job.steps = steps;
    job.trainer.schedule.peak = 1e-3;
    job.trainer.batch = {.tokens = 1024, .sequence = 128, .seed = 1};
    job.layerwise = true;
    job.overwrite = true;
    return job;
  }
};

// One of two processes.
struct OneOfTwo final : train::Communicator {
  int size() const override { return 2; }
};

// The held-out loss of a model that is read as floats.
double LossOf(const Setup& setup, const std::string& model, const TrainJob& like) {
  TrainJob job = setup.Job(model, setup.folder / "read.gguf", 1);
  job.layerwise = false;
  job.teacher = "";
  job.trainer = like.trainer;
  job.to = DType::kF32;
  return MustTrain(job).first_loss;
}

TEST_CASE("through a quantizer: nearer to the model than rounding, and the file is what was seen") {
  const Setup setup;
  const std::string out = setup.folder / "out.gguf", rounded = setup.folder / "rtn.gguf";
  for (const char* format : {"q3_k_s", "q4_0"}) {
    CAPTURE(std::string(format));
    QuantizeOptions options;
    options.preset = format;
    options.overwrite = true;
    REQUIRE(Quantize(kModel, rounded, options, nullptr));
    TrainJob job = setup.Job(kModel, out, 12);
    job.qat = format;
    job.learn_scales = format == std::string("q4_0");
    job.trainer.schedule.peak = 2e-4;
    const TrainSummary trained = MustTrain(job);
    CHECK(trained.layers.size() == 4);
    for (const Json& layer : trained.layers) {
      CHECK(*layer.Find("error")->AsDouble() < *layer.Find("first_error")->AsDouble());
    }
    CHECK(Divergence(out) < 0.95 * Divergence(rounded));
    CHECK(trained.held_out_loss == LossOf(setup, out, job));
    CHECK(trained.teacher_loss == LossOf(setup, kModel, job));
    CHECK(trained.bytes == std::filesystem::file_size(out));
    CHECK(std::filesystem::exists(out + ".log.jsonl"));
    CHECK(!std::filesystem::exists(out + ".journal"));
  }
}

TEST_CASE("healing layer by layer brings a pruned model nearer and keeps its pattern") {
  const Setup setup;
  const std::string pruned = setup.folder / "pruned.gguf", out = setup.folder / "out.gguf";
  MustPrune(pruned, By("magnitude", "2:4"));
  TrainJob job = setup.Job(pruned, out, 16);
  job.trainer.network.keep_zeros = true;
  const TrainSummary trained = MustTrain(job);
  CHECK(Divergence(out) < 0.7 * Divergence(pruned));
  CHECK(trained.held_out_loss == LossOf(setup, out, job));
  const auto model = Checkpoint::Open(out), before = Checkpoint::Open(pruned);
  REQUIRE((model && before));
  for (const CheckpointTensor& tensor : model->tensors()) {
    if (!IsPrunable(tensor)) continue;
    CAPTURE(tensor.name);
    const auto mine = model->Load(*model->Find(tensor.name));
    const auto source = before->Load(*before->Find(tensor.name));
    REQUIRE((mine && source));
    const size_t count = tensor.shape.elements();
    std::vector<float> values(count), zeros(count);
    mine->view().Decode(0, count, values.data());
    source->view().Decode(0, count, zeros.data());
    size_t lost = 0;
    for (size_t i = 0; i < count; ++i) lost += zeros[i] == 0 && values[i] != 0;
    CHECK(lost == 0);
  }
}

TEST_CASE("what cannot be learned layer by layer is refused, and leaves nothing") {
  const Setup setup;
  const std::string out = setup.folder / "out.gguf";
  const auto refused = [&](const char* part, auto change) {
    TrainJob job = setup.Job(kModel, out, 1);
    change(&job);
    CAPTURE(std::string(part));
    const std::string error = ErrorOf(job);
    CAPTURE(error);
    CHECK(error.find(part) != std::string::npos);
    CHECK(!std::filesystem::exists(out));
    CHECK(!std::filesystem::exists(out + ".journal"));
  };
  refused("not a cache", [](TrainJob* job) { job->teacher = ""; });
  refused("no layers to begin from", [](TrainJob* job) { job->model = kModel + "/config.json"; });
  refused("no adapters", [](TrainJob* job) { job->trainer.network.lora.rank = 4; });
  refused("averaged weights", [](TrainJob* job) { job->trainer.ema = 0.9; });
  refused("patience", [](TrainJob* job) { job->trainer.patience = 2; });
  refused("accumulated batches", [](TrainJob* job) { job->trainer.accumulation = 2; });
  OneOfTwo processes;
  refused("work for one process", [&](TrainJob* job) { job->trainer.processes = &processes; });
  refused("give one of them", [](TrainJob* job) { job->scales_only = true; });
  refused("unknown format", [](TrainJob* job) { job->qat = "q3_x"; });
  refused("prune the model first", [](TrainJob* job) { job->qat = "s24_q4"; });
  refused("prune the model first", [](TrainJob* job) {
    job->qat = "s24_q4";
    job->dry_run = true;
  });
  const std::string pruned = setup.folder / "pruned.gguf";
  MustPrune(pruned, By("magnitude", "2:4"));
  refused("would not stay so in q4_1", [&](TrainJob* job) {
    job->model = pruned;
    job->qat = "q4_1";
    job->trainer.network.keep_zeros = true;
  });
}

TEST_CASE("a dry run tells memory, disk and time, and writes nothing") {
  const Setup setup;
  const std::string out = setup.folder / "out.gguf";
  TrainJob job = setup.Job(kModel, out, 100);
  job.qat = "q4_k_m";
  job.dry_run = true;
  const TrainSummary plan = MustTrain(job);
  CHECK(plan.steps == 100);
  CHECK(plan.tokens_per_s > 0);
  CHECK(plan.seconds > 4 * 100 * 1024 / plan.tokens_per_s / 2);
  CHECK(plan.memory_bytes > 0);
  CHECK(plan.disk_bytes > 0);
  CHECK(plan.trainable_parameters < plan.parameters);
  CHECK(!std::filesystem::exists(out));
  CHECK(!std::filesystem::exists(out + ".journal"));
}

}  // namespace
}  // namespace edgewise
