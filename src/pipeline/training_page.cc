#include "pipeline/training_page.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "eval/html_page.h"
#include "eval/svg.h"

namespace edgewise {
namespace {

using Points = std::vector<std::pair<double, double>>;

constexpr size_t kMostPoints = 400;  // of a curve; more would not be seen apart

struct Curves {
  Points loss, held_out, kl, learning_rate, gradient_norm;  // by step
};

Result<Curves> ReadLog(std::string_view log) {
  Curves curves;
  size_t number = 0;
  for (const std::string_view text : Split(log, "\n")) {
    ++number;
    if (text.empty()) continue;
    const auto problem = [&](const std::string& what) {
      return MakeError(Code::kBadData, "line %zu of the log: %s", number, what.c_str());
    };
    const auto line = ParseJson(text);
    if (!line) return problem(line.error().message);
    const auto member = [&](const char* key) {
      const Json* value = line->Find(key);
      return value != nullptr ? value->AsDouble() : std::nullopt;
    };
    const auto step = member("step"), rate = member("learning_rate");
    if (!step || !rate) return problem("lacks a step or its learning rate");
    // JSON has no number for a loss that is not finite: the curve has a gap there.
    curves.loss.emplace_back(*step, member("loss").value_or(NAN));
    curves.gradient_norm.emplace_back(*step, member("gradient_norm").value_or(NAN));
    curves.learning_rate.emplace_back(*step, *rate);
    if (const auto held_out = member("held_out_loss")) {
      curves.held_out.emplace_back(*step, *held_out);
    }
    if (const auto kl = member("held_out_kl")) curves.kl.emplace_back(*step, *kl);
  }
  return curves;
}

// The means of runs of neighbours; what is not finite is left out of them.
Points Thinned(const Points& points) {
  const size_t run = (points.size() + kMostPoints - 1) / kMostPoints;
  if (run <= 1) return points;
  Points thinned;
  for (size_t first = 0; first < points.size(); first += run) {
    const size_t last = std::min(first + run, points.size());
    double x = 0, y = 0, count = 0;
    for (size_t i = first; i < last; ++i) {
      x += points[i].first / static_cast<double>(last - first);
      if (!std::isfinite(points[i].second)) continue;
      y += points[i].second;
      ++count;
    }
    thinned.emplace_back(x, y / count);
  }
  return thinned;
}

std::string Plot(const char* id, const char* title, const char* unit, bool log,
                 std::vector<PlotCurve> curves) {
  ScatterPlot plot;
  plot.id = id;
  plot.title = title;
  plot.description = Format("%s by step", title);
  plot.x_label = "Step";
  plot.y_label = unit;
  plot.log_y = log;
  plot.height = 320;
  for (PlotCurve& curve : curves) curve.points = Thinned(curve.points);
  plot.curves = std::move(curves);
  return HtmlSection(title, ScatterSvg(plot));
}

std::string Count(uint64_t value) { return Format("%llu", static_cast<unsigned long long>(value)); }

}  // namespace

Result<std::string> TrainingHtml(const TrainSummary& s, const Json& settings,
                                 std::string_view log) {
  EW_TRY(Curves curves, ReadLog(log));
  std::vector<ReportFact> figures = {{"Held-out loss", Format("%.4f nats", s.held_out_loss)},
                                     {"Perplexity", Format("%.4g", std::exp(s.held_out_loss))},
                                     {"Steps", Count(s.steps)},
                                     {"Parameters", Count(s.parameters)},
                                     {"Speed", Format("%.0f tokens/s", s.tokens_per_s)},
                                     {"Peak memory", FormatBytes(s.peak_rss_bytes)}};
  if (s.teacher_loss > 0) {
    figures.insert(figures.begin() + 2,
                   {"The teacher's loss", Format("%.4f nats", s.teacher_loss)});
  }
  if (s.held_out_kl) {
    figures.insert(figures.begin(), {"KL from the teacher", Format("%.5f nats", *s.held_out_kl)});
  }
  std::string html = HtmlFacts(figures, "figures");
  html += Plot("loss", "Loss", "Nats per token", false,
               {{std::move(curves.loss), "training", false},
                {std::move(curves.held_out), "held out", true}});
  if (!curves.kl.empty()) {
    html += Plot("kl", "KL divergence from the teacher, held out", "Nats per token", false,
                 {{std::move(curves.kl), "", true}});
  }
  html += Plot("gradient", "Norm of the gradient, before clipping", "Norm (log scale)", true,
               {{std::move(curves.gradient_norm), "", true}});
  html += Plot("rate", "Learning rate", "Learning rate", false,
               {{std::move(curves.learning_rate), "", true}});
  std::vector<ReportFact> facts = {
      {"Data", Format("%s documents as %s, %s tokens to learn", Count(s.documents).c_str(),
                      s.format.c_str(), Count(s.tokens).c_str())},
      {"Held out", Count(s.held_out_documents) + " documents"}};
  if (s.bad_row_count > 0) facts.push_back({"Bad rows, left out", Count(s.bad_row_count)});
  if (s.skipped_steps > 0) {
    facts.push_back({"Steps without an update", Count(s.skipped_steps) + ", not finite"});
  }
  for (const auto& [key, value] : *settings.AsObject()) {
    const std::string* text = value.AsString();
    facts.push_back({key, text != nullptr ? *text : value.Dump()});
  }
  html += HtmlSection("Data and settings", HtmlFacts(facts, "facts"));
  return HtmlPage({.title = std::filesystem::path(s.output).filename().string(),
                   .kind = "Training",
                   .summary = "Loss is the mean of a step's targets; held-out loss is the "
                              "cross-entropy on documents that are not learned."},
                  html);
}

}  // namespace edgewise
