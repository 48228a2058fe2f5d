#include "calibrate/calibration.h"

#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "base/rng.h"
#include "model/model.h"
#include "tests/test_data.h"

namespace edgewise {
namespace {

const Checkpoint& Stories() {
  static const Checkpoint checkpoint = [] {
    auto opened = Checkpoint::Open(SourcePath("models/edgewise-stories-3M"));
    REQUIRE(opened.has_value());
    return *std::move(opened);
  }();
  return checkpoint;
}

TokenSequences RandomSequences(size_t count, size_t length, uint64_t seed) {
  Rng rng(seed);
  TokenSequences sequences(count);
  for (auto& sequence : sequences) {
    for (size_t i = 0; i < length; ++i) {
      sequence.push_back(static_cast<int32_t>(rng.Below(Stories().spec().vocab_size)));
    }
  }
  return sequences;
}

void MustCalibrate(const TokenSequences& sequences, const std::string& out,
                   const CalibrateOptions& options = {}) {
  ThreadPool pool(2);
  NoProgress silent;
  const CalibrationOrigin origin = {"abc", {"d  text"}, 0, 0, 0};
  const auto done = Calibrate(Stories(), sequences, origin, out, options, &pool, &silent);
  REQUIRE_MESSAGE(done, (done ? "" : done.error().message));
}

CalibrationFile MustOpen(const std::string& path) {
  auto file = CalibrationFile::Open(path);
  REQUIRE_MESSAGE(file, (file ? "" : file.error().message));
  return *std::move(file);
}

// The largest difference over the root mean square of `expected`.
double Distance(const std::vector<float>& found, const std::vector<float>& expected) {
  REQUIRE(found.size() == expected.size());
  double worst = 0, squares = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    worst = std::max(worst, std::fabs(static_cast<double>(found[i]) - expected[i]));
    squares += static_cast<double>(expected[i]) * expected[i];
  }
  return worst / std::sqrt(squares / static_cast<double>(found.size()));
}

void CheckSame(const CalibrationFile& a, const CalibrationFile& b) {
  REQUIRE(
      std::equal(a.weights().begin(), a.weights().end(), b.weights().begin(), b.weights().end()));
  CHECK(a.origin().tokens == b.origin().tokens);
  CHECK(a.origin().sequences == b.origin().sequences);
  for (const std::string& weight : a.weights()) {
    CAPTURE(weight);
    const auto left = a.Moments(weight), right = b.Moments(weight);
    REQUIRE(left.has_value());
    REQUIRE(right.has_value());
    CHECK(left->tokens == right->tokens);
    CHECK(left->max_abs == right->max_abs);
    for (size_t c = 0; c < left->columns(); ++c) {
      CHECK(left->sum_squares[c] == doctest::Approx(right->sum_squares[c]).epsilon(1e-5));
      CHECK(left->sum_abs[c] == doctest::Approx(right->sum_abs[c]).epsilon(1e-5));
    }
    const auto h = a.Hessian(weight), other = b.Hessian(weight);
    REQUIRE(h.has_value());
    REQUIRE(other.has_value());
    CHECK(Distance(*h, *other) < 1e-4);
  }
}

TEST_CASE("a model run layer by layer gives the logits of the forward pass") {
  const auto sequences = RandomSequences(2, 200, 1);
  ThreadPool pool(2);
  auto walk = ActivationWalk::Create(Stories(), sequences, &pool);
  REQUIRE(walk.has_value());
  const auto on = [](LinearInput, const float*, size_t, size_t) { return true; };
  for (uint32_t layer = 0; layer < Stories().spec().n_layers; ++layer) {
    REQUIRE(walk->Load(layer).has_value());
    // Looking on leaves the streams where they are.
    size_t seen = 0;
    REQUIRE(walk->Visit([&](LinearInput input, const float*, size_t n, size_t) {
                  seen += n;
                  return input != LinearInput::kAttnOutput;
                })
                .has_value());
    CHECK(seen == 2 * 2 * 200);
    REQUIRE(walk->Pass(on).has_value());
  }
  auto model = Model::Load(Stories(), &pool);
  REQUIRE(model.has_value());
  const size_t vocab = Stories().spec().vocab_size, dim = Stories().spec().dim;
  auto embedding = Stories().Load(*Stories().Find("token_embd.weight"));
  REQUIRE(embedding.has_value());
  size_t index = 0;
  REQUIRE(walk->VisitOutput([&](const float* rows, size_t n, size_t stride) {
                ForwardPass pass(**model, &pool);
                auto cache = KvCache::Create(Stories().spec(), 256, kernels::KvFormat::kF32);
                REQUIRE(cache.has_value());
                std::vector<float> logits(vocab), row(dim);
                REQUIRE(pass.Run(sequences[index++], &*cache, n - 1, logits).has_value());
                const float* last = rows + (n - 1) * stride;
                for (size_t token = 0; token < vocab; ++token) {
                  embedding->view().DecodeRow(token, row.data());
                  double logit = 0;
                  for (size_t c = 0; c < dim; ++c) logit += static_cast<double>(last[c]) * row[c];
                  CHECK(logit == doctest::Approx(logits[token]).epsilon(1e-4).scale(10));
                }
              })
              .has_value());
}

TEST_CASE("calibrations merged, or made in parts, equal one long calibration") {
  TemporaryFolder folder;
  TokenSequences head = RandomSequences(2, 120, 2), tail = RandomSequences(3, 90, 3);
  TokenSequences all = head;
  all.insert(all.end(), tail.begin(), tail.end());
  MustCalibrate(all, folder / "all.gguf");
  MustCalibrate(head, folder / "head.gguf");
  MustCalibrate(tail, folder / "tail.gguf");
  const CalibrationFile whole = MustOpen(folder / "all.gguf");
  CHECK(whole.origin().tokens == 2 * 120 + 3 * 90);
  CHECK(whole.origin().model_sha256 == "abc");

  const std::vector<CalibrationFile> parts = {MustOpen(folder / "head.gguf"),
                                              MustOpen(folder / "tail.gguf")};
  REQUIRE(MergeCalibrations(parts, folder / "merged.gguf", false).has_value());
  CheckSame(MustOpen(folder / "merged.gguf"), whole);

  CalibrateOptions after;
  after.previous = &parts[0];
  MustCalibrate(tail, folder / "after.gguf", after);
  CheckSame(MustOpen(folder / "after.gguf"), whole);
}

TEST_CASE("weights with one input share its second moments") {
  TemporaryFolder folder;
  MustCalibrate(RandomSequences(1, 64, 4), folder / "c.gguf");
  const CalibrationFile file = MustOpen(folder / "c.gguf");
  CHECK(file.weights().size() == 4 * 7 + 1);
  CHECK(*file.Hessian("blk.2.attn_v.weight") == *file.Hessian("blk.2.attn_q.weight"));
  CHECK(*file.Hessian("blk.2.ffn_up.weight") == *file.Hessian("blk.2.ffn_gate.weight"));
  CHECK(*file.Hessian("blk.2.ffn_up.weight") != *file.Hessian("blk.2.attn_q.weight"));
  const auto h = *file.Hessian("blk.0.ffn_down.weight");
  const auto moments = *file.Moments("blk.0.ffn_down.weight");
  REQUIRE(h.size() == 768 * 768);
  for (size_t c = 0; c < 768; ++c) {
    CHECK(h[c * 768 + c] == doctest::Approx(moments.sum_squares[c]).epsilon(1e-4));
  }
  CHECK_FALSE(file.Moments("blk.9.ffn_down.weight").has_value());
  CHECK(file.Hessian("blk.9.ffn_down.weight").error().code == Code::kNotFound);
}

TEST_CASE("files that are no calibration, or of another model, are refused") {
  TemporaryFolder folder;
  Metadata metadata;
  metadata.Set("general.type", std::string("imatrix"));
  const auto write =
      [&](const std::string& name, const Metadata& meta,
          const std::vector<std::pair<GgufTensorDecl, std::vector<float>>>& tensors) {
        std::vector<GgufTensorDecl> decls;
        for (const auto& tensor : tensors) decls.push_back(tensor.first);
        auto writer = GgufWriter::Create(folder / name, true, meta, decls);
        REQUIRE(writer.has_value());
        for (const auto& tensor : tensors) {
          REQUIRE(writer->Write(std::as_bytes(std::span(tensor.second))).has_value());
        }
        REQUIRE(writer->Finish().has_value());
        return CalibrationFile::Open(folder / name);
      };
  const GgufTensorDecl sums = {"w.in_sum2", DType::kF32, Shape{1, 2}};
  const GgufTensorDecl counts = {"w.counts", DType::kF32, Shape{1, 1}};
  const auto good = write("good", metadata, {{sums, {4, 8}}, {counts, {2}}});
  REQUIRE(good.has_value());  // as llama-imatrix writes it
  CHECK(good->Moments("w")->sum_squares == std::vector<double>{4, 8});
  CHECK(good->Moments("w")->tokens == 2);
  CHECK_FALSE(good->HasHessian("w"));
  CHECK_FALSE(write("model", Metadata(), {{sums, {4, 8}}, {counts, {2}}}).has_value());
  CHECK_FALSE(write("empty", metadata, {{counts, {2}}}).has_value());
  CHECK_FALSE(write("alone", metadata, {{sums, {4, 8}}}).has_value());
  CHECK_FALSE(write("negative", metadata, {{sums, {4, -8}}, {counts, {2}}}).has_value());
  CHECK_FALSE(write("huge", metadata, {{sums, {4, 8}}, {counts, {2.9e26f}}}).has_value());
  CHECK_FALSE(write("nan", metadata, {{sums, {4, NAN}}, {counts, {2}}}).has_value());
  CHECK_FALSE(
      write("experts", metadata, {{sums, {4, 8}}, {{"w.counts", DType::kF32, Shape{2, 1}}, {1, 1}}})
          .has_value());
  CHECK_FALSE(
      write("max", metadata,
            {{sums, {4, 8}}, {counts, {2}}, {{"w.in_max_abs", DType::kF32, Shape{3}}, {1, 1, 1}}})
          .has_value());
  const auto odd = write(
      "odd", metadata,
      {{sums, {4, 8}}, {counts, {2}}, {{"w.in_hessian", DType::kF32, Shape{4}}, {1, 1, 1, 1}}});
  REQUIRE(odd.has_value());
  CHECK(odd->Hessian("w").error().code == Code::kBadData);

  MustCalibrate(RandomSequences(1, 64, 5), folder / "ours.gguf");
  const CalibrationFile ours = MustOpen(folder / "ours.gguf");
  CalibrateOptions options;
  options.previous = &ours;
  ThreadPool pool(1);
  NoProgress silent;
  const auto other =
      Calibrate(Stories(), RandomSequences(1, 64, 6), CalibrationOrigin{"xyz", {}, 0, 0, 0},
                folder / "other.gguf", options, &pool, &silent);
  REQUIRE_FALSE(other.has_value());
  CHECK(other.error().code == Code::kInvalidArgument);
  CHECK_FALSE(std::filesystem::exists(folder / "other.gguf"));
  const std::vector<CalibrationFile> mixed = {*good, ours};
  CHECK_FALSE(MergeCalibrations(mixed, folder / "mixed.gguf", false).has_value());
}

}  // namespace
}  // namespace edgewise
