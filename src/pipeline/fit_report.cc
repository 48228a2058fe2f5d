#include "pipeline/fit_report.h"

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <utility>

#include "base/strings.h"
#include "eval/html_page.h"
#include "eval/machine.h"
#include "eval/svg.h"

namespace edgewise {
namespace {

using Table = std::vector<std::vector<std::string>>;

bool Contains(const std::vector<size_t>& positions, size_t i) {
  return std::find(positions.begin(), positions.end(), i) != positions.end();
}

// How far a prediction was off, "+3.1 %".
std::string Off(double predicted, double measured) {
  return Format("%+.1f %%", 100 * (predicted / measured - 1));
}

std::string Remark(const FitSummary& summary, size_t i) {
  const FitCandidate& candidate = summary.candidates[i];
  std::vector<std::string> remarks;
  if (summary.chosen == i) {
    remarks.emplace_back("chosen");
  } else if (Contains(summary.front, i)) {
    remarks.emplace_back("Pareto front");
  }
  if (candidate.measured) {
    const std::string misses =
        BudgetMisses(summary.budget, candidate.file_bytes, *candidate.measured);
    if (!misses.empty()) remarks.push_back("over: " + misses);
  }
  if (candidate.sparse && !candidate.kl.empty()) {
    remarks.push_back(DenseAlternativeText(summary.candidates, i));
  }
  return Join(remarks, "; ");
}

std::vector<size_t> BySize(const std::vector<FitCandidate>& candidates) {
  std::vector<size_t> order(candidates.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::pair(candidates[b].file_bytes, a) < std::pair(candidates[a].file_bytes, b);
  });
  return order;
}

Table PlannedTable(const FitSummary& summary) {
  Table table = {{"Candidate", "File, bytes", "tokens/s", "p99, ms", "Memory", "Remark"}};
  for (const size_t i : BySize(summary.candidates)) {
    const FitCandidate& c = summary.candidates[i];
    if (c.file_bytes == 0) {
      table.push_back({c.name, "-", "-", "-", "-", c.left_out});
      continue;
    }
    table.push_back({c.name, std::to_string(c.file_bytes),
                     Format("%.1f", c.predicted.tokens_per_s()), Format("%.4g", c.predicted.p99_ms),
                     FormatBytes(c.predicted.memory_bytes),
                     c.left_out.empty() ? "" : "not tried: " + c.left_out});
  }
  return table;
}

std::string PlotOf(const FitSummary& summary, bool speed) {
  ScatterPlot plot;
  plot.id = speed ? "speed-kl" : "size-kl";
  plot.title = speed ? "Decode speed and KL divergence" : "File size and KL divergence";
  plot.x_label = speed ? "Decode speed, tokens/s" : "File size, MiB";
  plot.y_label = "Mean KL divergence, nats (log scale)";
  plot.log_y = true;
  for (size_t i = 0; i < summary.candidates.size(); ++i) {
    const FitCandidate& c = summary.candidates[i];
    if (!c.measured) continue;
    const double x =
        speed ? c.measured->tokens_per_s() : static_cast<double>(c.file_bytes) / 0x1p20;
    const std::string detail =
        Format("%s: %s, KL %.5f, %.1f tokens/s", c.name.c_str(), FormatBytes(c.file_bytes).c_str(),
               c.kl.back().mean, c.measured->tokens_per_s());
    plot.points.push_back({x, c.kl.back().mean, c.name, detail, Contains(summary.front, i)});
    plot.description += detail + ". ";
  }
  if (!speed && summary.budget.file_bytes > 0) {
    plot.marks.push_back({static_cast<double>(summary.budget.file_bytes) / 0x1p20, "budget"});
  }
  return "<figure>\n<div class=\"scroll\" role=\"region\" aria-label=\"Plot\" tabindex=\"0\">\n" +
         ScatterSvg(plot) + "</div>\n</figure>\n";
}

// A table whose first row is its head; the last column holds texts.
std::string HtmlOf(std::string_view label, const Table& table) {
  return HtmlTable(label, table.front(), Table(table.begin() + 1, table.end()),
                   {table.front().size() - 1});
}

Json KlJson(const FitKl& kl) {
  return Json()
      .Set("kl_mean", kl.mean)
      .Set("kl_mean_stderr", kl.std_error)
      .Set("top1_agreement", kl.top1_agreement)
      .Set("tokens", kl.tokens);
}

Json FiguresJson(const FitFigures& figures) {
  return Json()
      .Set("decode_tokens_per_s", figures.tokens_per_s())
      .Set("decode_p99_ms", figures.p99_ms)
      .Set("peak_rss_bytes", figures.memory_bytes);
}

// The last round in which a candidate was, with its KL there.
std::optional<size_t> AlternativeOf(const std::vector<FitCandidate>& candidates, size_t i) {
  std::vector<size_t> all(candidates.size());
  std::iota(all.begin(), all.end(), size_t{0});
  return DenseAlternative(candidates, all, i, candidates[i].kl.size() - 1);
}

Json CandidateJson(const FitSummary& summary, size_t i) {
  const FitCandidate& c = summary.candidates[i];
  Json json;
  json.Set("name", c.name).Set("passes", c.passes).Set("sparse", c.sparse);
  if (!c.left_out.empty()) json.Set("left_out", c.left_out);
  if (c.file_bytes == 0) return json;
  json.Set("file_bytes", c.file_bytes).Set("predicted", FiguresJson(c.predicted));
  if (!c.kl.empty()) json.Set("kl", KlJson(c.kl.back()));
  if (c.measured) {
    json.Set("measured", FiguresJson(*c.measured))
        .Set("speed_error", c.predicted.tokens_per_s() / c.measured->tokens_per_s() - 1)
        .Set("pareto", Contains(summary.front, i));
  }
  if (!c.sparse || c.kl.empty()) return json;
  Json dense;
  if (const auto other = AlternativeOf(summary.candidates, i)) {
    const FitCandidate& alternative = summary.candidates[*other];
    dense.Set("name", alternative.name)
        .Set("file_bytes", alternative.file_bytes)
        .Set("kl", KlJson(alternative.kl[c.kl.size() - 1]));
  }
  return json.Set("dense_alternative", std::move(dense));
}

Json BudgetJson(const FitBudget& budget) {
  Json json{JsonObject{}};
  if (budget.memory_bytes > 0) json.Set("memory_bytes", budget.memory_bytes);
  if (budget.file_bytes > 0) json.Set("file_bytes", budget.file_bytes);
  if (budget.p99_ms > 0) json.Set("p99_ms", budget.p99_ms);
  return json;
}

}  // namespace

std::string BudgetText(const FitBudget& budget) {
  std::vector<std::string> limits;
  if (budget.memory_bytes > 0) limits.push_back("memory " + FormatBytes(budget.memory_bytes));
  if (budget.file_bytes > 0) limits.push_back("file " + FormatBytes(budget.file_bytes));
  if (budget.p99_ms > 0) limits.push_back(Format("p99 %.4g ms", budget.p99_ms));
  return Join(limits, ", ");
}

std::string DenseAlternativeText(const std::vector<FitCandidate>& candidates, size_t position) {
  if (!candidates[position].sparse) return "";
  const auto other = AlternativeOf(candidates, position);
  if (!other) return "no dense candidate is as small";
  const FitCandidate& dense = candidates[*other];
  return Format("dense within its bytes: %s, %s, KL %.5f", dense.name.c_str(),
                FormatBytes(dense.file_bytes).c_str(),
                dense.kl[candidates[position].kl.size() - 1].mean);
}

Table FitTable(const FitSummary& summary, bool planned) {
  if (planned) return PlannedTable(summary);
  Table table = {{"Candidate", "File", "KL", "+-", "Top-1, %", "tokens/s", "predicted", "off",
                  "p99, ms", "predicted", "Memory", "predicted", "Remark"}};
  for (const size_t i : BySize(summary.candidates)) {
    const FitCandidate& c = summary.candidates[i];
    if (!c.measured) continue;
    const FitKl& kl = c.kl.back();
    table.push_back({c.name, FormatBytes(c.file_bytes), Format("%.5f", kl.mean),
                     Format("%.5f", kl.std_error), Format("%.2f", 100 * kl.top1_agreement),
                     Format("%.1f", c.measured->tokens_per_s()),
                     Format("%.1f", c.predicted.tokens_per_s()),
                     Off(c.predicted.tokens_per_s(), c.measured->tokens_per_s()),
                     Format("%.4g", c.measured->p99_ms), Format("%.4g", c.predicted.p99_ms),
                     FormatBytes(c.measured->memory_bytes), FormatBytes(c.predicted.memory_bytes),
                     Remark(summary, i)});
  }
  return table;
}

Table FitDropouts(const FitSummary& summary) {
  Table rows;
  for (const size_t i : BySize(summary.candidates)) {
    const FitCandidate& c = summary.candidates[i];
    if (c.measured) continue;
    if (!c.left_out.empty()) {
      rows.push_back({c.name, "not tried: " + c.left_out});
      continue;
    }
    std::string reason = Format("fell out in round %zu of %zu: KL %.5f on %llu positions",
                                c.kl.size(), summary.rounds.size(), c.kl.back().mean,
                                static_cast<unsigned long long>(c.kl.back().tokens));
    if (c.sparse) reason += "; " + DenseAlternativeText(summary.candidates, i);
    rows.push_back({c.name, std::move(reason)});
  }
  return rows;
}

std::string FitHtml(const FitSummary& summary) {
  std::string html;
  if (summary.chosen) {
    const FitCandidate& c = summary.candidates[*summary.chosen];
    html += HtmlFacts({{"Chosen", c.name},
                       {"File", FormatBytes(c.file_bytes)},
                       {"Mean KL", Format("%.5f nats", c.kl.back().mean)},
                       {"Decode", Format("%.1f tokens/s", c.measured->tokens_per_s())},
                       {"p99", Format("%.4g ms", c.measured->p99_ms)},
                       {"Peak memory", FormatBytes(c.measured->memory_bytes)}},
                      "figures");
  }
  html += HtmlSection("Measured", HtmlOf("Measured candidates", FitTable(summary, false)));
  html += HtmlSection("Size against quality", PlotOf(summary, false));
  html += HtmlSection("Speed against quality", PlotOf(summary, true));
  const Table dropouts = FitDropouts(summary);
  if (!dropouts.empty()) {
    html += HtmlSection("Not measured to the end",
                        HtmlTable("Candidates that fell out", {"Candidate", "Why"}, dropouts, {1}));
  }
  const MachineDescription machine = DescribeMachine();
  html += HtmlSection(
      "How it was measured",
      HtmlFacts({{"Text", summary.texts},
                 {"KL",
                  "KL(original || candidate), nats per position, on text that calibration has "
                  "not seen"},
                 {"Speed",
                  "median and 99th percentile of decode steps at the end of the context, "
                  "in a process of its own"},
                 {"Predicted",
                  "the measured step and memory of a reference of its structure, with the "
                  "candidate's linear layers and bytes in place of its own"},
                 {"Machine", machine.cpu + ", " + machine.isa}},
                "facts"));
  const std::string name = std::filesystem::path(summary.model).filename().string();
  return HtmlPage({.title = name.empty() ? summary.model : name,
                   .kind = "Fit to a budget",
                   .summary = "Budget: " + BudgetText(summary.budget) + "."},
                  html);
}

Json ToJson(const FitSummary& summary) {
  Json candidates{JsonArray{}}, rounds{JsonArray{}};
  for (size_t i = 0; i < summary.candidates.size(); ++i) {
    candidates.Append(CandidateJson(summary, i));
  }
  for (const uint32_t windows : summary.rounds) rounds.Append(windows);
  Json json;
  json.Set("model", summary.model)
      .Set("budget", BudgetJson(summary.budget))
      .Set("texts", summary.texts)
      .Set("reference", summary.reference)
      .Set("rounds", std::move(rounds))
      .Set("candidates", std::move(candidates));
  json.Set("chosen", summary.chosen ? Json(summary.candidates[*summary.chosen].name) : Json());
  if (summary.chosen) {
    json.Set("output", summary.outputs.model)
        .Set("recipe", summary.outputs.recipe)
        .Set("report", summary.outputs.report)
        .Set("card", summary.card);
  }
  if (!summary.shortfall.empty()) json.Set("shortfall", summary.shortfall);
  if (summary.estimated_seconds > 0) json.Set("estimated_seconds", summary.estimated_seconds);
  return json.Set("resumed", summary.resumed).Set("seconds", summary.seconds);
}

}  // namespace edgewise
