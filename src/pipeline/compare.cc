#include "pipeline/compare.h"

#include <filesystem>
#include <memory>
#include <utility>

#include "base/file.h"
#include "base/process.h"
#include "base/strings.h"
#include "engine/session.h"
#include "eval/kl.h"
#include "eval/machine.h"
#include "pipeline/convert.h"

namespace edgewise {
namespace {

Result<std::unique_ptr<Engine>> LoadEngine(const std::string& path, int threads) {
  EngineOptions options;
  options.threads = threads;
  return Engine::Load(path, options);
}

Result<LatencyResult> Latency(const std::string& path, const CompareOptions& options,
                              Progress* progress) {
  ResetPeakRss();
  EW_TRY(const std::unique_ptr<Engine> engine, LoadEngine(path, options.threads));
  return MeasureLatency(engine.get(), options.latency, progress);
}

// A model to measure.
struct Variant {
  std::string name, path;
};

void AddSize(uint64_t bytes, uint64_t parameters, ReportRow* row) {
  row->file_bytes = bytes;
  row->bits_per_weight = 8.0 * static_cast<double>(bytes) / static_cast<double>(parameters);
}

void AddSpeed(const LatencyResult& latency, ReportRow* row) {
  row->prefill_tokens_per_s = latency.prefill_tokens_per_s;
  row->decode_tokens_per_s = latency.decode_tokens_per_s;
  row->decode_p99_ms = latency.decode_p99_ms;
  row->peak_rss_bytes = latency.peak_rss_bytes;
}

Status QuantizeTo(const Variant& variant, const std::string& base_path,
                  const CompareOptions& options, Progress* progress) {
  QuantizeOptions quantize;
  quantize.preset = variant.name;
  quantize.allow_requantize = true;
  quantize.threads = options.threads;
  quantize.overwrite = true;
  EW_TRY(Quantize(base_path, variant.path, quantize, progress));
  return Ok{};
}

// Measures what it costs to run a variant, with nothing else loaded.
Result<ReportRow> Time(const Variant& variant, const CompareOptions& options, Progress* progress) {
  ReportRow row;
  row.name = variant.name;
  {
    EW_TRY(const Checkpoint model, Checkpoint::Open(variant.path));
    uint64_t parameters = 0;
    for (const CheckpointTensor& tensor : model.tensors()) parameters += tensor.shape.elements();
    AddSize(std::filesystem::file_size(variant.path), parameters, &row);
  }
  EW_TRY(const LatencyResult latency, Latency(variant.path, options, progress));
  AddSpeed(latency, &row);
  return row;
}

// Measures how far a variant is from the base, and the base's perplexity along the way.
Result<KlResult> CompareWithBase(Engine* base, const Variant& variant,
                                 const CompareOptions& options, ReportRow* base_row, ReportRow* row,
                                 Progress* progress) {
  EW_TRY(const std::unique_ptr<Engine> engine, LoadEngine(variant.path, options.threads));
  EW_TRY(const KlResult kl, MeasureKl(base, engine.get(), options.text, options.windows, progress));
  row->perplexity = kl.perplexity;
  row->ppl_ratio = kl.ppl_ratio.mean;
  row->kl_mean = kl.kl.mean;
  row->kl_p99 = kl.kl_p99;
  row->top1_agreement = kl.top1_agreement.mean;
  base_row->perplexity = kl.base_perplexity;
  return kl;
}

void DescribeMethod(const CompareOptions& options, const KlResult& kl, const LatencyResult& latency,
                    ReportData* data) {
  data->method = {
      {"Text", options.text_source},
      {"Scoring", Format("convention %s, %llu windows of at most %u tokens, %llu scored positions",
                         kl.convention.c_str(), static_cast<unsigned long long>(kl.windows),
                         kl.context, static_cast<unsigned long long>(kl.tokens))},
      {"KL",
       "KL(base || variant) in nats per position, both models run in one process; p99 over "
       "positions"},
      {"Top-1", "share of positions where base and variant put the same token first"},
      {"Speed",
       Format("batch 1, prompt of %u tokens, then %u tokens; medians of %u runs or more; p99 is "
              "sorted[int(0.99 n)]",
              latency.prompt_tokens, latency.new_tokens, latency.repetitions)},
      {"Memory", "peak resident set while measuring speed, mapped weights included"},
  };
}

void DescribeThisMachine(int threads, ReportData* data) {
  const MachineDescription machine = DescribeMachine();
  data->machine = {{"CPU", machine.cpu},
                   {"Threads", Format("%d of %d CPUs", threads, machine.cpus)},
                   {"Kernels", machine.isa},
                   {"System", machine.system},
                   {"Memory", FormatBytes(machine.memory_bytes)}};
}

}  // namespace

Result<ReportData> Compare(const std::string& in_path, const CompareOptions& options,
                           Progress* progress) {
  ConvertOptions convert;
  convert.tokenizer_path = options.tokenizer_path;
  convert.threads = options.threads;
  convert.overwrite = true;
  convert.to.reset();
  const std::string base_path = options.folder + "/base.gguf";
  EW_TRY(const ConvertSummary converted, Convert(in_path, base_path, convert, progress));

  ReportData data;
  ReportRow base_row;
  base_row.name = "original";
  base_row.base = true;
  AddSize(converted.bytes, converted.parameters, &base_row);
  EW_TRY(const LatencyResult base_latency, Latency(base_path, options, progress));
  AddSpeed(base_latency, &base_row);
  std::vector<Variant> variants;
  for (const std::string& format : options.formats) {
    variants.push_back({format, options.folder + "/" + format + ".gguf"});
    EW_TRY(QuantizeTo(variants.back(), base_path, options, progress).In(format));
  }
  for (const std::string& path : options.added) {
    variants.push_back({std::filesystem::path(path).stem().string(), path});
  }
  for (const Variant& variant : variants) {
    EW_TRY(ReportRow row, Time(variant, options, progress).In(variant.name));
    data.rows.push_back(std::move(row));
  }

  EW_TRY(const std::unique_ptr<Engine> base, LoadEngine(base_path, options.threads));
  KlResult last;
  for (size_t i = 0; i < variants.size(); ++i) {
    ReportRow& row = data.rows[i];
    EW_TRY(
        last,
        CompareWithBase(base.get(), variants[i], options, &base_row, &row, progress).In(row.name));
  }
  data.rows.insert(data.rows.begin(), base_row);
  DescribeMethod(options, last, base_latency, &data);
  DescribeThisMachine(base->pool().size(), &data);
  data.versions = {{"Input", in_path}, {"Input SHA-256", converted.source_sha256}};
  return data;
}

Result<std::string> SampleText(Engine* engine, uint64_t tokens, uint64_t seed,
                               const std::string& separator, Progress* progress) {
  const Vocab& vocab = engine->tokenizer().vocab();
  if (!vocab.bos) {
    return Error{Code::kUnsupported,
                 "the model has no begin-of-text token to sample from; give a text to measure on "
                 "with --text"};
  }
  EW_TRY(Session session, Session::Create(engine, SessionOptions{}));
  GenerateOptions options;
  options.sampler.temperature = 1;
  options.sampler.top_k = 0;
  options.sampler.top_p = 1;
  options.sampler.min_p = 0;
  options.max_tokens = session.context() - 1;
  std::string text;
  uint64_t done = 0;
  for (uint64_t document = 0; done < tokens; ++document) {
    progress->Update("sampling text", done, tokens);
    if (progress->Cancelled()) return Error{Code::kCancelled, "interrupted while sampling text"};
    session.Clear();
    options.sampler.seed = seed + document;
    const int32_t bos = *vocab.bos;
    EW_TRY(session.Append({&bos, 1}));
    EW_TRY(const Generation generation, session.Generate(options));
    done += generation.ids.size() + 1;
    text += std::string(Trim(generation.text)) + "\n" + separator + "\n";
  }
  progress->Update("sampling text", tokens, tokens);
  return text;
}

}  // namespace edgewise
