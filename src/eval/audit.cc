#include "eval/audit.h"

#include <algorithm>
#include <utility>

#include "base/process.h"
#include "base/strings.h"
#include "eval/invisible.h"

namespace edgewise {
namespace {

// Shows the work on one of several parts as a share of all.
class ShareOfProgress final : public Progress {
 public:
  ShareOfProgress(Progress* whole, std::string stage, uint64_t part, uint64_t parts)
      : whole_(whole), stage_(std::move(stage)), part_(part), parts_(parts) {}
  void Update(std::string_view, uint64_t done, uint64_t total) override {
    whole_->Update(stage_, part_ * total + done, parts_ * total);
  }
  bool Cancelled() const override { return whole_->Cancelled(); }

 private:
  Progress* whole_;
  std::string stage_;
  uint64_t part_, parts_;
};

std::vector<ModelPart> AllParts(const ModelSpec& spec) {
  std::vector<ModelPart> parts = {{ModelPart::Kind::kEmbedding, 0}};
  for (uint32_t i = 0; i < spec.n_layers; ++i) parts.push_back({ModelPart::Kind::kLayer, i});
  parts.push_back({ModelPart::Kind::kOutput, 0});
  return parts;
}

std::string PartName(const ModelPart& part) {
  switch (part.kind) {
    case ModelPart::Kind::kEmbedding:
      return "embedding";
    case ModelPart::Kind::kLayer:
      return Format("layer %u", part.layer);
    case ModelPart::Kind::kOutput:
      return "output";
  }
  return "";
}

Status BlameParts(Engine* base, Engine* model, std::string_view text, const AuditOptions& options,
                  Progress* progress, ModelAudit* audit) {
  TextOptions windows = options.text;
  const uint32_t most = windows.max_windows;
  windows.max_windows = most == 0 ? options.blame_windows : std::min(most, options.blame_windows);
  const std::vector<ModelPart> parts = AllParts(base->model().spec());
  for (size_t i = 0; i < parts.size(); ++i) {
    ShareOfProgress share(progress, "each part alone", i, parts.size());
    EW_TRY(const KlResult kl, MeasurePartKl(base, model, parts[i], text, windows, &share));
    audit->parts.push_back({PartName(parts[i]), kl.kl.mean, kl.kl_p99, kl.top1_agreement.mean});
    audit->part_windows = kl.windows;
    audit->part_tokens = kl.tokens;
  }
  return Ok{};
}

// The beginning of a window as people read it.
Result<std::string> Beginning(const Tokenizer& tokenizer, const ScoredWindow& window) {
  constexpr size_t kTokens = 60;
  const auto tokens = std::span(window.tokens).first(std::min(window.tokens.size(), kTokens));
  EW_TRY(const std::string text, tokenizer.Decode(tokens));
  return SpellInvisible(text) + (tokens.size() < window.tokens.size() ? " ..." : "");
}

Result<ChangedPrompts> FindChanged(const Engine& base, const Engine& model, const KlResult& kl,
                                   std::string_view text, const TextOptions& cut, double spread) {
  const uint32_t trained =
      std::min(base.model().spec().context_length, model.model().spec().context_length);
  EW_TRY(const ScoredText scored, CutText(base.tokenizer(), trained, text, cut));
  EW_CHECK(scored.windows.size() == kl.window_kl.size());
  ChangedPrompts found;
  found.unit = cut.convention == TextConvention::kDocuments ? "document" : "window";
  found.count = scored.windows.size();
  found.spread = MeasureSpread(kl.window_kl);
  found.multiple = spread;
  found.threshold = found.spread.median + spread * found.spread.mad;
  for (size_t i = 0; i < scored.windows.size(); ++i) {
    if (kl.window_kl[i] <= found.threshold) continue;
    EW_TRY(std::string beginning, Beginning(base.tokenizer(), scored.windows[i]));
    found.changed.push_back({i, kl.window_kl[i], std::move(beginning)});
  }
  std::sort(found.changed.begin(), found.changed.end(),
            [](const ChangedPrompt& a, const ChangedPrompt& b) {
              return a.kl != b.kl ? a.kl > b.kl : a.index < b.index;
            });
  return found;
}

Result<ChangedPrompts> ComparePrompts(Engine* base, Engine* model, std::string_view text,
                                      const AuditOptions& options, const KlResult& kl,
                                      Progress* progress) {
  if (!options.prompts) {
    return FindChanged(*base, *model, kl, text, options.text, options.prompt_spread);
  }
  TextOptions lines = options.text;
  lines.convention = TextConvention::kDocuments;
  lines.separator = "\n";
  lines.skip_bytes = 0;
  lines.max_bytes = 0;
  lines.max_windows = 0;
  ShareOfProgress share(progress, "prompts", 0, 1);
  EW_TRY(const KlResult prompts,
         MeasureKl(base, model, *options.prompts, lines, &share).In("the prompts"));
  EW_TRY(ChangedPrompts found,
         FindChanged(*base, *model, prompts, *options.prompts, lines, options.prompt_spread));
  found.unit = "prompt";
  return found;
}

Json PartsJson(const ModelAudit& audit) {
  Json parts{JsonArray()};
  for (const PartBlame& part : audit.parts) {
    parts.Append(Json()
                     .Set("name", part.name)
                     .Set("kl_mean", part.kl_mean)
                     .Set("kl_p99", part.kl_p99)
                     .Set("top1_agreement", part.top1_agreement));
  }
  return Json()
      .Set("windows", audit.part_windows)
      .Set("tokens", audit.part_tokens)
      .Set("parts", std::move(parts));
}

Json PromptsJson(const ChangedPrompts& prompts) {
  Json changed{JsonArray()};
  for (const ChangedPrompt& prompt : prompts.changed) {
    changed.Append(
        Json().Set("index", prompt.index).Set("kl_mean", prompt.kl).Set("text", prompt.text));
  }
  Json object;
  object.Set("unit", prompts.unit).Set("count", prompts.count);
  object.Set("kl_median", prompts.spread.median).Set("kl_mad", prompts.spread.mad);
  object.Set("threshold", prompts.threshold).Set("changed", std::move(changed));
  return object;
}

Json TensorsJson(const std::vector<TensorError>& tensors) {
  Json array{JsonArray()};
  for (const TensorError& t : tensors) {
    Json tensor;
    tensor.Set("name", t.name).Set("base_format", Info(t.base_dtype).name);
    tensor.Set("format", Info(t.dtype).name).Set("values", t.values);
    tensor.Set("relative_rmse", t.relative_rmse).Set("cosine", t.cosine);
    Json rounding;
    if (t.positions.weights() > 0) {
      const RoundingPositions::Peak peak = t.positions.FindPeak();
      rounding.Set("weights", t.positions.weights());
      rounding.Set("beyond_share", t.positions.beyond_share());
      rounding.Set("peak_position", peak.position).Set("peak_ratio", peak.ratio);
      rounding.Set("peak_sigmas", peak.sigmas).Set("unusual", peak.unusual());
    }
    array.Append(std::move(tensor.Set("rounding", std::move(rounding))));
  }
  return array;
}

Json BehaviourJson(const Behaviour& b) {
  return Json().Set("refuses", b.refuses).Set("links", b.links).Set("codes", b.codes);
}

Json ProbesJson(const std::vector<ProbeResult>& probes) {
  Json array{JsonArray()};
  for (const ProbeResult& p : probes) {
    Json probe;
    probe.Set("prompt", p.prompt).Set("differs", p.differs());
    probe.Set("base_answer", p.base_answer).Set("answer", p.answer);
    probe.Set("base", BehaviourJson(p.base_behaviour)).Set("model", BehaviourJson(p.behaviour));
    array.Append(std::move(probe));
  }
  return array;
}

}  // namespace

Result<ModelAudit> AuditModel(Engine* base, Engine* model, std::string_view text,
                              const AuditOptions& options, Progress* progress) {
  NoProgress silent;
  if (!progress) progress = &silent;
  const double start = NowSeconds();
  ModelAudit audit;
  EW_TRY(audit.kl, MeasureKl(base, model, text, options.text, progress));
  EW_TRY(audit.prompts, ComparePrompts(base, model, text, options, audit.kl, progress));
  EW_TRY(audit.tensors, CompareTensors(base->model().checkpoint(), model->model().checkpoint(),
                                       &model->pool(), progress));
  if (options.blame_windows > 0) {
    EW_TRY(BlameParts(base, model, text, options, progress, &audit));
  }
  if (options.probe_tokens > 0) {
    EW_TRY(audit.probes, RunProbes(base, model, options.probe_tokens, progress));
  }
  audit.seconds = NowSeconds() - start;
  return audit;
}

Json ToJson(const ModelAudit& audit) {
  Json object;
  object.Set("divergence", ToJson(audit.kl)).Set("blame", PartsJson(audit));
  object.Set("prompts", PromptsJson(audit.prompts)).Set("tensors", TensorsJson(audit.tensors));
  object.Set("probes", ProbesJson(audit.probes)).Set("seconds", audit.seconds);
  return object;
}

}  // namespace edgewise
