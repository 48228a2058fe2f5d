#include "cli/generation_flags.h"

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/file.h"
#include "base/strings.h"

namespace edgewise::cli {
namespace {

constexpr uint64_t kMaxTextBytes = 1ull << 30;

struct KvFormatName {
  const char* name;
  kernels::KvFormat format;
};
constexpr KvFormatName kKvFormats[] = {{"f32", kernels::KvFormat::kF32},
                                       {"f16", kernels::KvFormat::kF16},
                                       {"q8_0", kernels::KvFormat::kQ8_0},
                                       {"q4_0", kernels::KvFormat::kQ4_0}};

}  // namespace

void AddModelFlags(CLI::App& app, std::string* model, std::string* tokenizer) {
  app.add_option("model", *model, "GGUF file, Hugging Face folder or llama2.c checkpoint")
      ->required();
  app.add_option("--tokenizer", *tokenizer,
                 "Tokenizer file, where the model does not bring one (llama2.c)");
}

void GenerationFlags::Add(CLI::App& app) {
  AddModelFlags(app, &model, &tokenizer);
  SamplerOptions& s = generate.sampler;
  app.add_option("--max-tokens", generate.max_tokens, "Generate at most this many tokens")
      ->capture_default_str();
  app.add_option("--temperature", s.temperature, "0 takes the likeliest token each time")
      ->capture_default_str();
  app.add_option("--top-k", s.top_k, "Sample from the k likeliest tokens; 0: all")
      ->capture_default_str();
  app.add_option("--top-p", s.top_p, "Sample from the smallest set with this probability; 1: all")
      ->capture_default_str();
  app.add_option("--min-p", s.min_p, "Drop tokens below this share of the likeliest; 0: none")
      ->capture_default_str();
  app.add_option("--typical-p", s.typical_p, "Locally typical sampling; 1: off")
      ->capture_default_str();
  app.add_option("--repeat-penalty", s.repeat_penalty,
                 "Divide logits of seen tokens by this; 1: off")
      ->capture_default_str();
  app.add_option("--presence-penalty", s.presence_penalty,
                 "Subtract this from logits of seen tokens")
      ->capture_default_str();
  app.add_option("--frequency-penalty", s.frequency_penalty,
                 "Subtract this once for each time seen")
      ->capture_default_str();
  app.add_option("--penalty-last-n", s.penalty_last_n, "Tokens the penalties look at; -1: all")
      ->capture_default_str();
  app.add_option("--dry-multiplier", s.dry_multiplier,
                 "Strength of the DRY repetition penalty; 0: off")
      ->capture_default_str();
  app.add_option("--dry-base", s.dry_base, "Growth of DRY with the length of the repeat")
      ->capture_default_str();
  app.add_option("--dry-allowed-length", s.dry_allowed_length, "Repeats this long are free")
      ->capture_default_str();
  app.add_option("--logit-bias", logit_bias,
                 "ID=VALUE added to a token's logit; -inf bans it; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--seed", s.seed, "The same seed gives the same text")->capture_default_str();
  app.add_option("--stop", generate.stop, "End before this text; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--ctx", context,
                 "Positions of context (default: what the model was trained for, at most 4096)");
  AddKvFlag(app, &kv_format);
  CLI::Option* draft_option = app.add_option(
      "--draft", draft, "Smaller model with the same vocabulary that guesses tokens ahead");
  app.add_flag("--prompt-lookup", prompt_lookup, "Guess tokens ahead from earlier text instead")
      ->excludes(draft_option);
  app.add_option("--draft-max", generate.max_draft, "Tokens to guess at a time, at most")
      ->capture_default_str();
}

void AddKvFlag(CLI::App& app, std::string* kv_format) {
  app.add_option("--kv", *kv_format, "Format of the KV cache: f32, f16, q8_0, q4_0")
      ->capture_default_str();
}

Result<kernels::KvFormat> KvFormatFromName(const std::string& name) {
  for (const KvFormatName& row : kKvFormats) {
    if (name == row.name) return row.format;
  }
  return MakeError(Code::kInvalidArgument, "--kv %s: choose f32, f16, q8_0 or q4_0",
                   Quote(name).c_str());
}

Status GenerationFlags::Finish() {
  for (const std::string& text : logit_bias) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos) {
      return MakeError(Code::kInvalidArgument, "--logit-bias %s: expected ID=VALUE",
                       Quote(text).c_str());
    }
    EW_TRY(const int64_t id, ParseInt(std::string_view(text).substr(0, equals)).In("--logit-bias"));
    EW_TRY(const double value,
           ParseDouble(std::string_view(text).substr(equals + 1)).In("--logit-bias"));
    if (id < 0 || id > INT32_MAX)
      return MakeError(Code::kInvalidArgument, "--logit-bias: no token has the id %lld",
                       static_cast<long long>(id));
    generate.sampler.logit_bias.emplace_back(static_cast<int32_t>(id), static_cast<float>(value));
  }
  return Ok{};
}

Result<std::unique_ptr<Engine>> GenerationFlags::LoadEngine(const Common& common) const {
  EngineOptions options;
  options.threads = common.Threads();
  options.tokenizer_path = tokenizer;
  return Engine::Load(model, options);
}

Result<Session> GenerationFlags::MakeSession(Engine* engine) const {
  SessionOptions options;
  options.context = context;
  EW_TRY(options.kv_format, KvFormatFromName(kv_format));
  return Session::Create(engine, options);
}

Result<std::unique_ptr<Drafter>> GenerationFlags::MakeDrafter(const Common& common, Engine* engine,
                                                              const Session& session) const {
  std::unique_ptr<Drafter> drafter;
  if (prompt_lookup) drafter = std::make_unique<PromptLookup>();
  if (!draft.empty()) {
    EngineOptions options;
    options.threads = common.Threads();
    EW_TRY(std::unique_ptr<Engine> loaded, Engine::Load(draft, options));
    EW_TRY(drafter, DraftModel::Create(std::move(loaded), engine, session.context()).In(draft));
  }
  return drafter;
}

Result<std::string> ReadText(const std::string& path) {
  if (path != "-") return ReadFile(path, kMaxTextBytes);
  std::string text;
  char buffer[65536];
  size_t count = 0;
  while ((count = std::fread(buffer, 1, sizeof(buffer), stdin)) > 0) {
    text.append(buffer, count);
    if (text.size() > kMaxTextBytes) {
      return MakeError(Code::kBadData, "standard input: more than %s",
                       FormatBytes(kMaxTextBytes).c_str());
    }
  }
  if (std::ferror(stdin) != 0)
    return MakeError(Code::kIo, "cannot read standard input: %s", std::strerror(errno));
  return text;
}

const char* StopReasonName(StopReason reason) {
  switch (reason) {
    case StopReason::kEndOfText:
      return "end_of_text";
    case StopReason::kStopString:
      return "stop_string";
    case StopReason::kMaxTokens:
      return "max_tokens";
    case StopReason::kContextFull:
      return "context_full";
    case StopReason::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

}  // namespace edgewise::cli
