// Training through a quantizer on our own model: the file holds what was trained, in every format.
#include "pipeline/train_model.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "compress/quantize/presets.h"
#include "pipeline/pruned_stories.h"
#include "pipeline/test_training.h"
#include "quant/scale_fields.h"

namespace edgewise {
namespace {

struct Setup {
  TemporaryFolder folder;
  std::string pruned = folder / "pruned.gguf", text = folder / "text.txt",
              held_out = folder / "held.txt";

  Setup() {
    MustPrune(pruned, By("magnitude", "2:4"));
    const std::string stories = ReadWhole(kModel + "/stories.txt");
    std::ofstream(text) << stories.substr(0, 6000);
    std::ofstream(held_out) << stories.substr(20000, 1000);
  }
  TrainJob Job(const std::string& model, const std::string& out, uint64_t steps) const {
    TrainJob job;
    job.model = model;
    job.tokenizer_path = kModel;
    job.data = text;
    job.held_out = held_out;
    job.out = out;
    job.steps = steps;
    job.trainer.schedule.peak = 1e-3;
    job.trainer.batch = {.tokens = 128, .sequence = 64, .seed = 1};
    job.trainer.precision = train::Precision::kF32;
    job.overwrite = true;
    return job;
  }
};

TEST_CASE("the file decodes to the weights that were measured last, in every format") {
  const Setup setup;
  for (const Preset& preset : AllPresets()) {
    CAPTURE(std::string(preset.name));
    const std::string out = setup.folder / "out.gguf", read = setup.folder / "read.gguf";
    const bool sparse = Info(preset.type).sparse();
    TrainJob job = setup.Job(sparse ? setup.pruned : kModel, out, 2);
    job.qat = preset.name;
    job.trainer.network.keep_zeros = sparse;
    const TrainSummary trained = MustTrain(job);
    CHECK(trained.held_out_loss != trained.first_loss);
    // Read as floats, it has that loss to the last bit.
    TrainJob reading = setup.Job(out, read, 1);
    reading.to = DType::kF32;
    CHECK(MustTrain(reading).first_loss == trained.held_out_loss);
    const auto model = Checkpoint::Open(out);
    REQUIRE(model);
    CHECK(model->metadata().GetUint("general.file_type").value_or(99) == preset.file_type);
  }
}

TEST_CASE("scales alone: the file holds what was measured, with the codes of before") {
  const Setup setup;
  for (const char* format : {"q4_0", "q3_k_s"}) {
    CAPTURE(std::string(format));
    const std::string quantized = setup.folder / "quantized.gguf", out = setup.folder / "out.gguf";
    QuantizeOptions options;
    options.preset = format;
    options.overwrite = true;
    REQUIRE(Quantize(kModel, quantized, options, nullptr));
    TrainJob job = setup.Job(quantized, out, 6);
    job.scales_only = true;
    const TrainSummary trained = MustTrain(job);
    CHECK(trained.trainable_parameters < trained.parameters / 10);
    CHECK(trained.held_out_loss < trained.first_loss);
    TrainJob reading = setup.Job(out, setup.folder / "read.gguf", 1);
    reading.to = DType::kF32;
    CHECK(MustTrain(reading).first_loss == trained.held_out_loss);
    const auto before = Checkpoint::Open(quantized), after = Checkpoint::Open(out);
    REQUIRE((before && after));
    for (const CheckpointTensor& tensor : after->tensors()) {
      CAPTURE(tensor.name);
      const auto was = before->Load(*before->Find(tensor.name));
      const auto is = after->Load(*after->Find(tensor.name));
      REQUIRE((was && is));
      REQUIRE(was->view().dtype == is->view().dtype);
      const DTypeInfo& info = Info(tensor.dtype);
      size_t codes = 0;
      for (size_t i = 0; i < is->view().bytes; ++i) {
        bool scale = false;
        for (const uint8_t field : ScaleFieldsOf(tensor.dtype)) {
          scale = scale || (i % info.block_bytes) / 2 == field / 2u;
        }
        codes += !scale && was->view().data[i] != is->view().data[i];
      }
      CHECK(codes == 0);
    }
  }
  TrainJob floats = setup.Job(kModel, setup.folder / "floats.gguf", 1);
  floats.scales_only = true;
  CHECK(ErrorOf(floats).find("quantize the model first") != std::string::npos);
  floats.qat = "q4_0";
  CHECK(ErrorOf(floats).find("give one of them") != std::string::npos);
}

TEST_CASE("scales beside the weights: the file holds what was measured") {
  const Setup setup;
  const std::string out = setup.folder / "out.gguf";
  for (const char* format : {"q4_0", "q3_k_m", "s24_q4"}) {
    CAPTURE(std::string(format));
    const bool pruned = format == std::string("s24_q4");
    TrainJob job = setup.Job(pruned ? setup.pruned : kModel, out, 3);
    job.trainer.network.keep_zeros = pruned;
    job.qat = format;
    const double fitted = MustTrain(job).held_out_loss;
    job.learn_scales = true;
    const TrainSummary trained = MustTrain(job);
    CHECK(trained.trainable_parameters > trained.parameters);
    CHECK(trained.held_out_loss != fitted);
    TrainJob reading = setup.Job(out, setup.folder / "read.gguf", 1);
    reading.to = DType::kF32;
    CHECK(MustTrain(reading).first_loss == trained.held_out_loss);
  }
  TrainJob floats = setup.Job(kModel, out, 1);
  floats.learn_scales = true;
  CHECK(ErrorOf(floats).find("name that") != std::string::npos);
  floats.qat = "f16";
  CHECK(ErrorOf(floats).find("f16 has no blocks") != std::string::npos);
}

TEST_CASE("what cannot be trained through is refused, and leaves nothing") {
  const Setup setup;
  const std::string out = setup.folder / "out.gguf";
  TrainJob job = setup.Job(kModel, out, 1);
  job.qat = "q3_x";
  CHECK(ErrorOf(job).find("unknown format") != std::string::npos);
  job.qat = "s24_q4";
  CHECK(ErrorOf(job).find("prune the model first") != std::string::npos);
  job.dry_run = true;
  CHECK(ErrorOf(job).find("prune the model first") != std::string::npos);
  TrainJob zeros = setup.Job(setup.pruned, out, 1);
  zeros.trainer.network.keep_zeros = true;
  zeros.qat = "q4_1";
  CHECK(ErrorOf(zeros).find("would not stay so in q4_1") != std::string::npos);
  CHECK(!std::filesystem::exists(out));
  CHECK(!std::filesystem::exists(out + ".journal"));
}

}  // namespace
}  // namespace edgewise
