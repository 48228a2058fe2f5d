#include "eval/audit_page.h"

#include <algorithm>
#include <string_view>

#include "base/strings.h"
#include "eval/invisible.h"
#include "eval/svg.h"

namespace edgewise {
namespace {

using Rows = std::vector<std::vector<std::string>>;

unsigned long long Wide(uint64_t n) { return n; }

std::string Nats(double value) {
  return Format(value != 0 && value < 1e-4 ? "%.2e" : "%.5f", value);
}

std::string Percent(double share) { return Format("%.2f %%", 100 * share); }

std::string Does(const Behaviour& b) {
  std::vector<std::string> what;
  if (b.refuses) what.push_back("refuses");
  if (b.links) what.push_back("gives a link");
  if (b.codes) what.push_back("writes code");
  return what.empty() ? "none of these" : Join(what, ", ");
}

size_t Differing(const ModelAudit& audit) {
  return static_cast<size_t>(std::count_if(audit.probes.begin(), audit.probes.end(),
                                           [](const ProbeResult& p) { return p.differs(); }));
}

size_t UnusualTensors(const ModelAudit& audit) {
  return static_cast<size_t>(
      std::count_if(audit.tensors.begin(), audit.tensors.end(),
                    [](const TensorError& t) { return t.positions.FindPeak().unusual(); }));
}

const PartBlame* WorstPart(const ModelAudit& audit) {
  const auto worst = std::max_element(
      audit.parts.begin(), audit.parts.end(),
      [](const PartBlame& a, const PartBlame& b) { return a.kl_mean < b.kl_mean; });
  return worst == audit.parts.end() ? nullptr : &*worst;
}

std::string PartsHtml(const ModelAudit& audit) {
  double sum = 0;
  for (const PartBlame& part : audit.parts) sum += part.kl_mean;
  Rows rows;
  for (const PartBlame& part : audit.parts) {
    rows.push_back({part.name, Nats(part.kl_mean),
                    sum > 0 ? Percent(part.kl_mean / sum) : Percent(0), Nats(part.kl_p99),
                    Percent(part.top1_agreement)});
  }
  const std::string note = Format(
      "The base with this part alone taken from the compressed model, over %llu positions in %llu "
      "windows. The last part is the output norm and matrix.",
      Wide(audit.part_tokens), Wide(audit.part_windows));
  return "<p class=\"soft\">" + EscapeHtml(note) + "</p>\n" +
         HtmlTable("Parts", {"Part", "Mean KL, nats", "Share of the sum", "KL p99", "Top-1 same"},
                   rows);
}

std::string PromptsHtml(const ChangedPrompts& prompts) {
  const std::string note = Format(
      "%zu of %llu: mean KL above %s nats, the median of all (%s) plus %g times the median "
      "deviation "
      "from it (%s).",
      prompts.changed.size(), Wide(prompts.count), Nats(prompts.threshold).c_str(),
      Nats(prompts.spread.median).c_str(), prompts.multiple, Nats(prompts.spread.mad).c_str());
  std::string html = "<p class=\"soft\">" + EscapeHtml(note) + "</p>\n";
  if (prompts.changed.empty()) return html;
  Rows rows;
  for (const ChangedPrompt& prompt : prompts.changed) {
    rows.push_back({Format("%s %llu", prompts.unit.c_str(), Wide(prompt.index)), Nats(prompt.kl),
                    prompt.text});
  }
  return html + HtmlTable("Changed prompts", {"Where", "Mean KL, nats", "Text"}, rows, {2});
}

std::string TensorsHtml(const ModelAudit& audit) {
  Rows rows;
  for (const TensorError& t : audit.tensors) {
    const RoundingPositions::Peak peak = t.positions.FindPeak();
    const bool known = t.positions.weights() > 0;
    rows.push_back({t.name, std::string(Info(t.base_dtype).name) + " to " + Info(t.dtype).name,
                    Format("%.5f", t.relative_rmse), Format("%.6f", t.cosine),
                    known ? Format("%.2f at %.2f", peak.ratio, peak.position) : "\u2013",
                    known ? Percent(t.positions.beyond_share()) : "\u2013",
                    peak.unusual() ? "unusual" : ""});
  }
  return "<p class=\"soft\">Peak: where base weights gather between the rounded value (0) and the "
         "rounding boundary (1), and how many times more than just before it. Beyond: weights not "
         "rounded to the nearest value.</p>\n" +
         HtmlTable("Tensors",
                   {"Tensor", "Format", "Relative RMSE", "Cosine", "Peak", "Beyond", "Verdict"},
                   rows);
}

std::string ProbesHtml(const ModelAudit& audit) {
  Rows rows;
  for (const ProbeResult& p : audit.probes) {
    rows.push_back({Format("%zu", rows.size() + 1), p.prompt, p.differs() ? "differs" : "same",
                    Does(p.base_behaviour), Does(p.behaviour), SpellInvisible(p.base_answer),
                    SpellInvisible(p.answer)});
  }
  return HtmlTable(
      "Probes", {"Probe", "Prompt", "Result", "Base", "Compressed", "Base says", "Compressed says"},
      rows, {1, 3, 4, 5, 6});
}

std::vector<ReportFact> Headline(const ModelAudit& audit) {
  std::vector<ReportFact> facts = {
      {"Mean KL, nats", Nats(audit.kl.kl.mean)},
      {"KL p99", Nats(audit.kl.kl_p99)},
      {"Top-1 agreement", Percent(audit.kl.top1_agreement.mean)},
      {"Perplexity ratio", Format("%.4f", audit.kl.ppl_ratio.mean)},
      {Format("Changed %ss", audit.prompts.unit.c_str()),
       Format("%zu of %llu", audit.prompts.changed.size(), Wide(audit.prompts.count))},
      {"Weights at boundaries",
       Format("%zu of %zu tensors", UnusualTensors(audit), audit.tensors.size())}};
  if (!audit.probes.empty()) {
    facts.push_back(
        {"Probes that differ", Format("%zu of %zu", Differing(audit), audit.probes.size())});
  }
  return facts;
}

std::string TensorLines(const ModelAudit& audit) {
  std::vector<const TensorError*> worst;
  for (const TensorError& t : audit.tensors) worst.push_back(&t);
  std::sort(worst.begin(), worst.end(), [](const TensorError* a, const TensorError* b) {
    return a->relative_rmse != b->relative_rmse ? a->relative_rmse > b->relative_rmse : a < b;
  });
  worst.resize(std::min<size_t>(worst.size(), 5));
  std::string text = "\nlargest errors of tensors\n";
  for (const TensorError* t : worst) {
    text +=
        Format("  %-28s %-6s relative RMSE %.5f, cosine %.6f\n", SpellInvisible(t->name).c_str(),
               Info(t->dtype).name, t->relative_rmse, t->cosine);
  }
  text += Format("\nbase weights gather at rounding boundaries: %zu of %zu tensors\n",
                 UnusualTensors(audit), audit.tensors.size());
  for (const TensorError& t : audit.tensors) {
    const RoundingPositions::Peak peak = t.positions.FindPeak();
    if (!peak.unusual()) continue;
    text += Format("  %-28s %.2f times as many as usual at %.2f of the half interval\n",
                   SpellInvisible(t.name).c_str(), peak.ratio, peak.position);
  }
  return text;
}

std::string PromptLines(const ChangedPrompts& prompts) {
  std::string text =
      Format("\n%ss that changed most: %zu of %llu above %s nats\n", prompts.unit.c_str(),
             prompts.changed.size(), Wide(prompts.count), Nats(prompts.threshold).c_str());
  for (size_t i = 0; i < std::min<size_t>(prompts.changed.size(), 10); ++i) {
    const ChangedPrompt& prompt = prompts.changed[i];
    text += Format("  %s %llu, KL %s: %s\n", prompts.unit.c_str(), Wide(prompt.index),
                   Nats(prompt.kl).c_str(), Quote(prompt.text, 100).c_str());
  }
  return text;
}

std::string ProbeLines(const ModelAudit& audit) {
  if (audit.probes.empty()) return "";
  std::string text =
      Format("\nprobes that differ: %zu of %zu\n", Differing(audit), audit.probes.size());
  for (const ProbeResult& p : audit.probes) {
    if (!p.differs()) continue;
    text += Format("  %s\n    base: %s; compressed: %s\n", p.prompt.c_str(),
                   Does(p.base_behaviour).c_str(), Does(p.behaviour).c_str());
  }
  return text;
}

}  // namespace

std::vector<std::string> AuditLimits() {
  return {
      "Nothing here proves that a model behaves well: it shows what differs between these two "
      "models on this text and these prompts. A change that they both have stays unseen.",
      "Boundary statistics see weights that were pushed to the end of their rounding interval. "
      "They do not see moves that rarely reach it, formats without even steps (iq4), or an attack "
      "that was made for another format.",
      "The KL values of the parts need not sum to the whole: errors add up, or cancel.",
      "Probes tell refusals, links and code by phrases and marks; read the answers."};
}

std::string AuditHtml(const ModelAudit& audit, const AuditFacts& facts) {
  std::string html = HtmlFacts(Headline(audit), "figures");
  if (!audit.parts.empty()) html += HtmlSection("What each part does alone", PartsHtml(audit));
  html += HtmlSection("Where behaviour changed most", PromptsHtml(audit.prompts));
  if (!audit.probes.empty()) html += HtmlSection("Probes", ProbesHtml(audit));
  html += HtmlSection("Tensors", TensorsHtml(audit));
  std::vector<ReportFact> method = {
      {"Text", Format("%llu bytes, %llu scored positions in %llu windows of up to %u tokens",
                      Wide(audit.kl.text_bytes), Wide(audit.kl.tokens), Wide(audit.kl.windows),
                      audit.kl.context)},
      {"Convention", audit.kl.convention},
      {"Perplexity", Format("%.4f, base %.4f", audit.kl.perplexity, audit.kl.base_perplexity)}};
  html += HtmlSection("How it was measured", HtmlFacts(method, "facts"));
  html += HtmlSection("What to know", HtmlList(AuditLimits()));
  html += HtmlSection("Versions", HtmlFacts(facts.versions, "facts"));
  html += HtmlSection("Measure it again", "<pre tabindex=\"0\" aria-label=\"Command\">" +
                                              EscapeHtml(facts.command) + "\n</pre>\n");
  return HtmlPage({.title = facts.title,
                   .kind = "Compression audit",
                   .summary = "What compression changed in the model, and where it comes from."},
                  html);
}

std::string AuditText(const ModelAudit& audit) {
  const KlResult& kl = audit.kl;
  std::string text = Format(
      "KL divergence   mean %s, p99 %s nats\ntop-1 agreement %s\nperplexity      %.4f, base %.4f, "
      "ratio %.5f\n%llu positions in %llu windows of %u; convention %s\n",
      Nats(kl.kl.mean).c_str(), Nats(kl.kl_p99).c_str(), Percent(kl.top1_agreement.mean).c_str(),
      kl.perplexity, kl.base_perplexity, kl.ppl_ratio.mean, Wide(kl.tokens), Wide(kl.windows),
      kl.context, kl.convention.c_str());
  if (const PartBlame* worst = WorstPart(audit)) {
    text += Format("\neach part alone: mean KL, nats (most: %s)\n", worst->name.c_str());
    for (const PartBlame& part : audit.parts) {
      text += Format("  %-10s %s\n", part.name.c_str(), Nats(part.kl_mean).c_str());
    }
  }
  return text + PromptLines(audit.prompts) + TensorLines(audit) + ProbeLines(audit);
}

}  // namespace edgewise
