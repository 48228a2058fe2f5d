// Quantizes a model and prints what that cost: usage: quantize_and_compare MODEL OUT.gguf PRESET TEXT
#include <cstdio>

#include "base/file.h"
#include "base/progress.h"
#include "engine/engine.h"
#include "eval/kl.h"
#include "pipeline/convert.h"

namespace {

edgewise::Status QuantizeAndCompare(char** argv) {
  edgewise::NoProgress progress;
  edgewise::QuantizeOptions options;
  options.preset = argv[3];
  options.overwrite = true;
  EW_TRY(const auto summary, edgewise::Quantize(argv[1], argv[2], options, &progress));
  std::printf("%s: %llu bytes, %.3f bits per weight\n", argv[2],
              static_cast<unsigned long long>(summary.bytes), summary.bits_per_weight);

  EW_TRY(const auto text, edgewise::ReadFile(argv[4], 1 << 20));
  EW_TRY(const auto base, edgewise::Engine::Load(argv[1]));
  EW_TRY(const auto model, edgewise::Engine::Load(argv[2]));
  edgewise::TextOptions windows;
  windows.max_windows = 4;
  EW_TRY(const auto kl, edgewise::MeasureKl(base.get(), model.get(), text, windows));
  std::printf("mean KL %.5f nats, top-1 agreement %.2f %%, perplexity ratio %.4f over %llu tokens\n",
              kl.kl.mean, 100 * kl.top1_agreement.mean, kl.ppl_ratio.mean,
              static_cast<unsigned long long>(kl.tokens));
  return edgewise::Ok{};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: %s MODEL OUT.gguf PRESET TEXT\n", argv[0]);
    return 2;
  }
  if (const auto status = QuantizeAndCompare(argv); !status) {
    std::fprintf(stderr, "%s\n", status.error().message.c_str());
    return 1;
  }
  return 0;
}
