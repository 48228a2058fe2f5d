// edgewise convert and quantize: one writer, two ways to choose formats.
#include "pipeline/convert.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "base/strings.h"
#include "cli/command.h"
#include "cli/summary.h"
#include "compress/quantize/presets.h"
#include "quant/dtype.h"

namespace edgewise::cli {
namespace {

struct ConvertFlags {
  std::string in, out, to = "f16";
  ConvertOptions options;
  bool verbose = false;
};

Status RunConvert(ConvertFlags& flags, const Common& common) {
  if (flags.to == "auto") {
    flags.options.to.reset();
  } else {
    EW_TRY(flags.options.to, ParseFormat(flags.to).In("--to"));
  }
  flags.options.threads = common.Threads();
  flags.options.estimate = flags.options.dry_run;
  EW_TRY(const ConvertSummary summary,
         Convert(flags.in, flags.out, flags.options, common.progress));
  return PrintSummary("convert", summary, flags.options.dry_run, flags.verbose, common);
}

struct QuantizeFlags {
  std::string in, out, output_type, embedding_type, method = "rtn";
  std::vector<std::string> overrides;
  QuantizeOptions options;
  bool verbose = false;
};

Status RunQuantize(QuantizeFlags& flags, const Common& common) {
  for (const std::string& text : flags.overrides) {
    EW_TRY(TypeOverride parsed, ParseTypeOverride(text).In("--tensor-type"));
    flags.options.overrides.push_back(std::move(parsed));
  }
  if (!flags.output_type.empty()) {
    EW_TRY(flags.options.output_type, ParseFormat(flags.output_type).In("--output-tensor-type"));
  }
  if (!flags.embedding_type.empty()) {
    EW_TRY(flags.options.embedding_type,
           ParseFormat(flags.embedding_type).In("--token-embedding-type"));
  }
  EW_TRY(ParseMethod(flags.method, &flags.options));
  flags.options.threads = common.Threads();
  flags.options.estimate = flags.options.dry_run;
  EW_TRY(const QuantizeSummary summary,
         Quantize(flags.in, flags.out, flags.options, common.progress));
  return PrintSummary("quantize", summary, flags.options.dry_run, flags.verbose, common);
}

// The flags both verbs have.
void AddWriterFlags(CLI::App& app, std::string* in, std::string* out, std::string* tokenizer,
                    bool* force, bool* dry_run, bool* verbose) {
  app.add_option("input", *in, "GGUF file, Hugging Face folder or llama2.c checkpoint")->required();
  app.add_option("output,--output", *out, "GGUF file to write")->required();
  app.add_option("--tokenizer", *tokenizer,
                 "Tokenizer file, where the model does not bring one (llama2.c)");
  AddOutputFlags(app, force, dry_run, verbose);
}

}  // namespace

Runner AddConvert(CLI::App& app, const Common& common) {
  auto flags = std::make_shared<ConvertFlags>();
  AddWriterFlags(app, &flags->in, &flags->out, &flags->options.tokenizer_path,
                 &flags->options.overwrite, &flags->options.dry_run, &flags->verbose);
  app.add_option(
         "--to", flags->to,
         "Format of the matrices: f32, f16, bf16, s24_f16 and s24_bf16 for models pruned 2:4, "
         "q8_0; auto keeps f32, f16 and bf16")
      ->capture_default_str();
  app.add_option("--lora", flags->options.lora,
                 "LoRA adapter to merge into the model first: a folder of PEFT or a GGUF");
  app.add_flag("--rotate", flags->options.rotate,
               "Spread outliers over all columns: the same model, easier to quantize");
  return [flags, &common] { return RunConvert(*flags, common); };
}

Runner AddQuantize(CLI::App& app, const Common& common) {
  auto flags = std::make_shared<QuantizeFlags>();
  QuantizeOptions& options = flags->options;
  AddWriterFlags(app, &flags->in, &flags->out, &options.tokenizer_path, &options.overwrite,
                 &options.dry_run, &flags->verbose);
  std::string presets;
  for (const Preset& preset : AllPresets())
    presets += std::string(presets.empty() ? "" : ", ") + preset.name;
  options.preset.clear();
  app.add_option("--to", options.preset, "Mixture of formats: " + presets);
  app.add_option("--target-bytes", options.target_bytes,
                 "Instead of --to: size of the file, at most; formats are chosen by a calibration "
                 "file for the least predicted loss");
  app.add_option("--target-bpw", options.target_bpw,
                 "The same in bits per weight: bytes * 8 / weights");
  app.add_option("--tensor-type", flags->overrides,
                 "REGEX=FORMAT for the tensors whose name matches; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--output-tensor-type", flags->output_type, "Format of output.weight");
  app.add_option("--token-embedding-type", flags->embedding_type, "Format of token_embd.weight");
  app.add_flag("--leave-output-tensor", options.leave_output, "Do not quantize output.weight");
  app.add_flag("--pure", options.pure, "One format for every matrix, no mixture");
  app.add_option(
         "--method", flags->method,
         "How values are chosen: rtn (nearest), imatrix (weighted by the inputs), gptq (with "
         "error feedback: best), awq, awq+gptq (columns scaled by the inputs first), smooth "
         "(scaled for 8-bit activations), rotate+rtn, rotate+gptq (for models with outliers)")
      ->capture_default_str();
  app.add_option("--calibration", options.calibration.path,
                 "File of `edgewise calibrate`; for gptq and rotate+gptq also a text");
  app.add_option("--calibration-tokens", options.calibration.max_tokens,
                 "Tokens of a text to use; 0: all")
      ->capture_default_str();
  app.add_flag("--pack", options.pack,
               "Pack the matrices as `edgewise pack` does: loads at once, in Edgewise only");
  app.add_flag("--allow-requantize", options.allow_requantize,
               "Accept an input that is quantized already (costs quality)");
  return [flags, &common] { return RunQuantize(*flags, common); };
}

}  // namespace edgewise::cli
