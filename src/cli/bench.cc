// edgewise bench: speed, latency and memory of one model; edgewise doctor: what the machine allows.
#include <CLI/CLI.hpp>
#include <memory>

#include "base/strings.h"
#include "cli/command.h"
#include "cli/generation_flags.h"
#include "cli/output.h"
#include "engine/engine.h"
#include "eval/latency.h"
#include "eval/machine.h"
#include "eval/scaling.h"
#include "kernels/kernels.h"

namespace edgewise::cli {
namespace {

struct BenchFlags {
  std::string model, tokenizer, kv = "f16";
  LatencyOptions options;
  bool scaling = false;
  ScalingOptions scaling_options;
};

struct Measured {
  LatencyResult latency;
  MachineLimits limits;
};

Result<std::unique_ptr<Engine>> Load(const BenchFlags& flags, const Common& common) {
  EngineOptions options;
  options.threads = common.Threads();
  options.tokenizer_path = flags.tokenizer;
  return Engine::Load(flags.model, options);
}

Result<Measured> Measure(const BenchFlags& flags, const Common& common) {
  LatencyOptions options = flags.options;
  EW_TRY(options.kv_format, KvFormatFromName(flags.kv));
  EW_TRY(const std::unique_ptr<Engine> engine, Load(flags, common));
  Measured measured;
  EW_TRY(measured.latency, MeasureLatency(engine.get(), options, common.progress));
  EW_TRY(measured.limits, MeasureMachine(&engine->pool()));
  SetShares(measured.limits, &measured.latency);
  return measured;
}

std::string LatencyText(const LatencyResult& r) {
  return Format(
      "prefill  %.1f tokens/s (%u tokens; %.1f %% of the int8 limit)\n"
      "decode   %.1f tokens/s (%u tokens; %.1f %% of the read bandwidth)\n"
      "latency  p50 %.3f ms, p90 %.3f ms, p99 %.3f ms per token; first token %.1f ms; load %.1f "
      "ms\n"
      "memory   peak %s, of it anonymous %s; KV cache %s; %s read per token\n",
      r.prefill_tokens_per_s, r.prompt_tokens, 100 * r.int8_peak_share, r.decode_tokens_per_s,
      r.new_tokens, 100 * r.bandwidth_share, r.decode_p50_ms, r.decode_p90_ms, r.decode_p99_ms,
      r.ttft_ms, r.load_ms, FormatBytes(r.peak_rss_bytes).c_str(),
      FormatBytes(r.peak_anon_bytes).c_str(), FormatBytes(r.kv_bytes).c_str(),
      FormatBytes(r.bytes_per_token).c_str());
}

std::string LimitsText(const MachineLimits& limits) {
  return Format("limits   read %.1f GB/s, int8 %.0f GOP/s with %d threads (%s)\n",
                limits.read_bytes_per_s / 1e9, limits.int8_ops_per_s / 1e9, limits.threads,
                limits.how.c_str());
}

std::string ScalingText(const ScalingResult& r) {
  std::string text = "tokens in context   prefill, tokens/s   decode, tokens/s\n";
  for (const auto& point : r.context) {
    text += Format("%17u   %17.1f   %16.1f\n", point.tokens, point.prefill_tokens_per_s,
                   point.decode_tokens_per_s);
  }
  text += "\n        sequences   decode of all, tokens/s\n";
  for (const auto& point : r.batch) {
    text += Format("%17u   %23.1f\n", point.sequences, point.decode_tokens_per_s);
  }
  text += "\n          threads   prefill, tokens/s   decode, tokens/s\n";
  for (const auto& point : r.threads) {
    text += Format("%17d   %17.1f   %16.1f\n", point.threads, point.prefill_tokens_per_s,
                   point.decode_tokens_per_s);
  }
  return text;
}

Status RunScaling(const BenchFlags& flags, const Common& common) {
  ScalingOptions options = flags.scaling_options;
  EW_TRY(options.kv_format, KvFormatFromName(flags.kv));
  EW_TRY(const std::unique_ptr<Engine> engine, Load(flags, common));
  EW_TRY(const ScalingResult result, MeasureScaling(engine.get(), options, common.progress));
  if (!common.json) return Print(ScalingText(result));
  return PrintJson("bench", Json().Set("model", flags.model).Set("scaling", ToJson(result)));
}

Status RunBench(const BenchFlags& flags, const Common& common) {
  if (flags.scaling) return RunScaling(flags, common);
  EW_TRY(const Measured measured, Measure(flags, common));
  if (common.json) {
    return PrintJson(
        "bench",
        ToJson(measured.latency).Set("model", flags.model).Set("limits", ToJson(measured.limits)));
  }
  return Print(LatencyText(measured.latency) + LimitsText(measured.limits));
}

std::string KernelNames() {
  std::string names;
  const kernels::KernelList list = kernels::Available();
  for (size_t i = 0; i < list.size; ++i)
    names += std::string(i > 0 ? " " : "") + list.items[i].name;
  return names;
}

// What the decode speed says about where the time goes.
std::string Diagnosis(const LatencyResult& r) {
  if (r.bandwidth_share >= 0.8)
    return "decode is near the memory limit: only a smaller format, or batching, is faster";
  if (r.bytes_per_token < (64u << 20)) {
    return "the weights fit in cache, so the cost per operation and of threads decides, not "
           "memory: try --threads 1";
  }
  return "decode is below the memory limit: look for other load on the machine, too many threads, "
         "or a slow kernel table";
}

Status RunDoctor(const BenchFlags& flags, const Common& common) {
  const MachineDescription machine = DescribeMachine();
  Measured measured;
  if (flags.model.empty()) {
    ThreadPool pool(common.Threads());
    EW_TRY(measured.limits, MeasureMachine(&pool));
  } else {
    EW_TRY(measured, Measure(flags, common));
  }
  const LatencyResult& latency = measured.latency;
  const double limit =
      latency.bytes_per_token == 0
          ? 0
          : measured.limits.read_bytes_per_s / static_cast<double>(latency.bytes_per_token);
  if (common.json) {
    Json object;
    object.Set("machine", ToJson(machine))
        .Set("limits", ToJson(measured.limits))
        .Set("kernels", KernelNames());
    if (!flags.model.empty()) {
      object.Set("model", flags.model)
          .Set("latency", ToJson(latency))
          .Set("decode_limit_tokens_per_s", limit);
      object.Set("diagnosis", Diagnosis(latency));
    }
    return PrintJson("doctor", object);
  }
  std::string text =
      Format("CPU      %s, %d CPUs, %s\nsystem   %s\nkernels  %s in use (can run: %s)\n",
             machine.cpu.c_str(), machine.cpus, FormatBytes(machine.memory_bytes).c_str(),
             machine.system.c_str(), machine.isa.c_str(), KernelNames().c_str());
  text += LimitsText(measured.limits);
  if (!flags.model.empty()) {
    text += Format("\n%s\n", flags.model.c_str()) + LatencyText(latency);
    text += Format("ceiling  %.1f tokens/s: read bandwidth / bytes per token\n%s\n", limit,
                   Diagnosis(latency).c_str());
  }
  return Print(text);
}

void AddLatencyFlags(CLI::App& app, BenchFlags* flags) {
  app.add_option("--prompt-tokens", flags->options.prompt_tokens,
                 "Length of the prompt (default: 512 if it fits)");
  app.add_option("--decode-tokens", flags->options.new_tokens,
                 "Tokens to generate (default: 128 if they fit)");
  app.add_option("--repetitions", flags->options.repetitions, "Runs to take the median of")
      ->capture_default_str();
  app.add_option("--min-seconds", flags->options.min_seconds,
                 "Repeat until all runs together took as long")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  AddKvFlag(app, &flags->kv);
}

}  // namespace

Runner AddBench(CLI::App& app, const Common& common) {
  auto flags = std::make_shared<BenchFlags>();
  AddModelFlags(app, &flags->model, &flags->tokenizer);
  AddLatencyFlags(app, flags.get());
  app.add_option("--sequences", flags->options.sequences,
                 "Prompts that are computed together and decode together")
      ->capture_default_str();
  CLI::Option* scaling = app.add_flag(
      "--scaling", flags->scaling,
      "Measure how speed grows with context, sequences and threads instead; takes minutes");
  app.add_option("--scaling-tokens", flags->scaling_options.max_tokens, "Deepest context of it")
      ->needs(scaling)
      ->capture_default_str();
  app.add_option("--scaling-sequences", flags->scaling_options.max_sequences,
                 "Most sequences of it")
      ->needs(scaling)
      ->capture_default_str();
  return [flags, &common] { return RunBench(*flags, common); };
}

Runner AddDoctor(CLI::App& app, const Common& common) {
  auto flags = std::make_shared<BenchFlags>();
  app.add_option("model", flags->model, "A model to hold against the machine's limits");
  app.add_option("--tokenizer", flags->tokenizer,
                 "Tokenizer file, where the model does not bring one (llama2.c)");
  AddLatencyFlags(app, flags.get());
  return [flags, &common] { return RunDoctor(*flags, common); };
}

}  // namespace edgewise::cli
