#include "pipeline/quality_card.h"

#include <filesystem>
#include <limits>
#include <memory>
#include <utility>

#include "base/file.h"
#include "base/sha256.h"
#include "base/strings.h"
#include "engine/engine.h"
#include "eval/kl.h"
#include "kernels/kernels.h"

namespace edgewise {
namespace {

constexpr uint64_t kMaxTextBytes = uint64_t{1} << 30;
constexpr const char* kSchema = "edgewise.card/1";
constexpr size_t kDigestDigits = 64;
// Of the dense model that a pruned one is compared with.
constexpr const char* kDenseKeys[] = {"kl_mean", "top1_agreement", "ppl_ratio"};

Json ToCard(const KlResult& kl, const CardRequest& request, const std::string& sha256) {
  Json card;
  card.Set("schema", kSchema)
      .Set("kl_mean", kl.kl.mean)
      .Set("kl_mean_stderr", kl.kl.std_error)
      .Set("kl_p99", kl.kl_p99)
      .Set("top1_agreement", kl.top1_agreement.mean)
      .Set("base_perplexity", kl.base_perplexity)
      .Set("perplexity", kl.perplexity)
      .Set("ppl_ratio", kl.ppl_ratio.mean)
      .Set("bits_per_weight", request.bits_per_weight)
      .Set("tokens", kl.tokens)
      .Set("convention", kl.convention)
      .Set("context", kl.context)
      .Set("text", std::filesystem::path(request.text->path).filename().string())
      .Set("text_sha256", sha256)
      .Set("kernels", kernels::Active().name);
  return card;
}

Result<std::unique_ptr<Engine>> Load(const std::string& path, const std::string& tokenizer_path,
                                     int threads) {
  EngineOptions options;
  options.tokenizer_path = tokenizer_path;
  options.threads = threads;
  return Engine::Load(path, options);
}

// What the dense model in as many bytes costs, from a pruned model's card.
std::string DenseText(const Json& dense) {
  const auto number = [&](const char* key) {
    const Json* member = dense.Find(key);
    return member ? member->AsDouble() : std::nullopt;
  };
  const auto bytes = number("bytes"), kl = number("kl_mean"), top1 = number("top1_agreement");
  std::string text = "none can be made";
  if (bytes && kl && top1) {
    text = Format("mean KL %.5f nats, top-1 agreement %.2f %%, in %.0f bytes", *kl, 100 * *top1,
                  *bytes);
  }
  return Format("  %-17s %s\n", "dense, as large", text.c_str());
}

}  // namespace

Result<EvaluationInput> ReadEvaluation(const EvaluationText& source) {
  EvaluationInput input{{}, source.windows};
  EW_TRY(input.text, ReadFile(source.path, kMaxTextBytes));
  const bool documents = input.text.find(input.windows.separator) != std::string::npos;
  input.windows.convention = source.convention.value_or(documents ? TextConvention::kDocuments
                                                                  : TextConvention::kLlamaCpp);
  return input;
}

Result<Json> MeasureCard(const CardRequest& request, Progress* progress) {
  EW_TRY(const EvaluationInput input, ReadEvaluation(*request.text));
  EW_TRY(const auto base, Load(request.base_path, request.tokenizer_path, request.threads));
  EW_TRY(const auto model, Load(request.model_path, "", request.threads));
  EW_TRY(const KlResult kl, MeasureKl(base.get(), model.get(), input.text, input.windows, progress)
                                .In(request.text->path));
  return ToCard(kl, request, Sha256Hex(std::as_bytes(std::span(input.text))));
}

void SetDenseCard(const Json& dense, uint64_t bytes, Json* card) {
  Json member;
  member.Set("bytes", bytes);
  for (const char* key : kDenseKeys) {
    if (const Json* value = dense.Find(key)) member.Set(key, *value);
  }
  card->Set("dense", std::move(member));
}

Json PlaceholderCard(const EvaluationText& text, bool dense) {
  constexpr double kWidest = -std::numeric_limits<double>::max();
  KlResult kl;
  kl.kl = {kWidest, kWidest};
  kl.kl_p99 = kl.top1_agreement.mean = kl.base_perplexity = kl.perplexity = kWidest;
  kl.ppl_ratio.mean = kWidest;
  kl.tokens = std::numeric_limits<uint64_t>::max();
  kl.convention = ConventionName(TextConvention::kDocuments);
  kl.context = std::numeric_limits<uint32_t>::max();
  CardRequest request;
  request.text = &text;
  request.bits_per_weight = kWidest;
  Json card = ToCard(kl, request, std::string(kDigestDigits, '0'));
  if (dense) SetDenseCard(Json(card), std::numeric_limits<uint64_t>::max(), &card);
  return card;
}

void SetCard(const Json& card, const EvaluationText& text, Metadata* metadata) {
  std::string json = card.Dump();
  const size_t size = PlaceholderCard(text, card.Find("dense") != nullptr).Dump().size();
  EW_CHECK(json.size() <= size);
  json.resize(size, ' ');  // blanks may follow a JSON text
  metadata->Set(kCardKey, std::move(json));
}

Result<Json> FindCard(const Metadata& metadata) {
  if (!metadata.Find(kCardKey)) return Json();
  EW_TRY(const std::string text, metadata.GetString(kCardKey));
  EW_TRY(Json card, ParseJson(text).In(kCardKey));
  if (!card.is_object()) return MakeError(Code::kBadData, "%s: is no JSON object", kCardKey);
  return card;
}

std::string CardText(const Json& card) {
  struct Line {
    const char* key;
    const char* label;
    const char* format;
    double factor;
  };
  static constexpr Line kLines[] = {
      {"kl_mean", "mean KL", "%.5f nats", 1},
      {"kl_p99", "KL p99", "%.4f nats", 1},
      {"top1_agreement", "top-1 agreement", "%.2f %%", 100},
      {"ppl_ratio", "perplexity ratio", "%.5f", 1},
      {"bits_per_weight", "bits per weight", "%.3f", 1},
      {"tokens", "scored positions", "%.0f", 1},
  };
  std::string text;
  for (const Line& line : kLines) {
    const Json* member = card.Find(line.key);
    const auto value = member ? member->AsDouble() : std::nullopt;
    if (!value) continue;
    text += Format("  %-17s ", line.label) + Format(line.format, *value * line.factor) + "\n";
  }
  if (const Json* dense = card.Find("dense")) text += DenseText(*dense);
  for (const char* key : {"text", "text_sha256", "kernels"}) {
    const Json* member = card.Find(key);
    if (!member || !member->is_string()) continue;
    text += Format("  %-17s %s\n", key, Quote(*member->AsString()).c_str());
  }
  return text;
}

}  // namespace edgewise
