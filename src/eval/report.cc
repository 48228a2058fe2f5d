#include "eval/report.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "base/strings.h"
#include "eval/html_page.h"
#include "eval/svg.h"

namespace edgewise {
namespace {

std::string Number(const std::optional<double>& value, const char* format, double factor = 1) {
  if (!value) return "\u2013";
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  return Format(format, factor * *value);
#pragma GCC diagnostic pop
}

std::string Size(const std::optional<uint64_t>& bytes) {
  return bytes ? FormatBytes(*bytes) : "\u2013";
}

std::string Divergence(const std::optional<double>& value) {
  return Number(value, value && *value != 0 && *value < 1e-4 ? "%.2e" : "%.5f");
}

std::string Speed(const std::optional<double>& value) {
  return Number(value, value && *value >= 100 ? "%.0f" : "%.1f");
}

struct Column {
  const char* name;
  const char* unit;
  std::string (*show)(const ReportRow& row);
};

constexpr size_t kColumns = 12;
constexpr std::array<Column, kColumns> kTable = {{
    {"Format", "", [](const ReportRow& r) { return r.name; }},
    {"File", "", [](const ReportRow& r) { return Size(r.file_bytes); }},
    {"Bits", "per weight", [](const ReportRow& r) { return Number(r.bits_per_weight, "%.2f"); }},
    {"PPL", "", [](const ReportRow& r) { return Number(r.perplexity, "%.3f"); }},
    {"PPL ratio", "to original", [](const ReportRow& r) { return Number(r.ppl_ratio, "%.4f"); }},
    {"KL mean", "nats", [](const ReportRow& r) { return Divergence(r.kl_mean); }},
    {"KL p99", "nats", [](const ReportRow& r) { return Divergence(r.kl_p99); }},
    {"Top-1", "same, %", [](const ReportRow& r) { return Number(r.top1_agreement, "%.2f", 100); }},
    {"Prefill", "tokens/s", [](const ReportRow& r) { return Speed(r.prefill_tokens_per_s); }},
    {"Decode", "tokens/s", [](const ReportRow& r) { return Speed(r.decode_tokens_per_s); }},
    {"p99", "ms per token", [](const ReportRow& r) { return Number(r.decode_p99_ms, "%.2f"); }},
    {"Peak RSS", "", [](const ReportRow& r) { return Size(r.peak_rss_bytes); }},
}};

// True when no other variant is as small and as near to the base.
bool IsBestOfItsSize(const ReportRow& row, const std::vector<ReportRow>& rows) {
  if (!row.file_bytes || !row.kl_mean) return false;
  return std::none_of(rows.begin(), rows.end(), [&](const ReportRow& o) {
    if (&o == &row || o.base || !o.file_bytes || !o.kl_mean) return false;
    const bool no_worse = *o.file_bytes <= *row.file_bytes && *o.kl_mean <= *row.kl_mean;
    return no_worse && (*o.file_bytes < *row.file_bytes || *o.kl_mean < *row.kl_mean);
  });
}

std::string SizeAgainstKl(const ReportData& data) {
  uint64_t largest = 0;
  for (const ReportRow& row : data.rows) largest = std::max(largest, row.file_bytes.value_or(0));
  const bool giga = largest >= (4ull << 30);
  const double unit = giga ? 0x1p30 : largest >= (4u << 20) ? 0x1p20 : 0x1p10;
  ScatterPlot plot;
  plot.id = "size-kl";
  plot.title = "File size and KL divergence";
  plot.x_label = Format("File size, %s", giga ? "GiB" : unit == 0x1p20 ? "MiB" : "KiB");
  plot.y_label = "Mean KL divergence, nats (log scale)";
  plot.log_y = true;
  for (const ReportRow& row : data.rows) {
    if (!row.file_bytes) continue;
    const double size = static_cast<double>(*row.file_bytes) / unit;
    if (row.base) {
      plot.marks.push_back({size, row.name});
      continue;
    }
    if (!row.kl_mean) continue;
    const std::string detail =
        row.name + ": " + Size(row.file_bytes) + ", KL " + Divergence(row.kl_mean);
    plot.points.push_back({size, *row.kl_mean, row.name, detail, IsBestOfItsSize(row, data.rows)});
    plot.description += detail + ". ";
  }
  return ScatterSvg(plot);
}

std::string ResultsTable(const std::vector<ReportRow>& rows) {
  std::string html =
      "<div class=\"scroll\" role=\"region\" aria-label=\"Results by format\" tabindex=\"0\">\n"
      "<table>\n<thead><tr>";
  for (const Column& column : kTable) {
    html += "<th scope=\"col\">" + EscapeHtml(column.name) + "<small>" + EscapeHtml(column.unit) +
            "</small></th>";
  }
  html += "</tr></thead>\n<tbody>\n";
  for (const ReportRow& row : rows) {
    html += row.base ? "<tr class=\"base\">" : "<tr>";
    html += "<th scope=\"row\">" + EscapeHtml(row.name) + "</th>";
    for (size_t i = 1; i < kColumns; ++i)
      html += "<td>" + EscapeHtml(kTable[i].show(row)) + "</td>";
    html += "</tr>\n";
  }
  return html + "</tbody>\n</table>\n</div>\n";
}

std::string HtmlCommands(const std::vector<std::string>& commands) {
  std::string html = "<pre tabindex=\"0\" aria-label=\"Commands\">";
  for (const std::string& command : commands) html += EscapeHtml(command) + "\n";
  return html + "</pre>\n";
}

std::string EscapeMarkdown(std::string_view text) {
  std::string result;
  for (const char c : EscapeHtml(text)) {
    if (std::string_view("\\`*_[]|~").find(c) != std::string_view::npos) result += '\\';
    result += c == '\n' ? ' ' : c;
  }
  return result;
}

std::string PlainName(std::string_view text) {
  std::string result;
  for (const char c : ReplaceInvalidUtf8(text)) {
    result += static_cast<uint8_t>(c) < 0x20 || c == 0x7F ? '?' : c;
  }
  return result;
}

// Columns that a terminal shows for `text`: its characters, wide ones not considered.
size_t Width(std::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }));
}

Json FactsJson(const std::vector<ReportFact>& facts) {
  Json object{JsonArray()};
  for (const ReportFact& fact : facts)
    object.Append(Json().Set("name", fact.name).Set("value", fact.value));
  return object;
}

Json StringsJson(const std::vector<std::string>& strings) {
  return Json(JsonArray(strings.begin(), strings.end()));
}

template <class T>
Json OrNull(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

}  // namespace

std::string ReportHtml(const ReportData& data) {
  std::string html;
  if (!data.headline.empty()) html += HtmlFacts(data.headline, "figures");
  html += HtmlSection("Results", ResultsTable(data.rows));
  html += HtmlSection(
      "Size against quality",
      "<figure>\n<div class=\"scroll\" role=\"region\" aria-label=\"Plot\" tabindex=\"0\">\n" +
          SizeAgainstKl(data) +
          "</div>\n<figcaption>Lower and further left is better. Filled points: no other format is "
          "both smaller and "
          "nearer to the original. The dashed line is the original\u2019s "
          "size.</figcaption>\n</figure>\n");
  if (!data.method.empty())
    html += HtmlSection("How it was measured", HtmlFacts(data.method, "facts"));
  if (!data.notes.empty()) html += HtmlSection("What to know", HtmlList(data.notes));
  html += "<div class=\"pair\">\n";
  if (!data.machine.empty()) html += HtmlSection("Machine", HtmlFacts(data.machine, "facts"));
  if (!data.versions.empty()) html += HtmlSection("Versions", HtmlFacts(data.versions, "facts"));
  html += "</div>\n";
  if (!data.commands.empty()) html += HtmlSection("Measure it again", HtmlCommands(data.commands));
  return HtmlPage({.title = data.title, .kind = "Compression report", .summary = data.summary},
                  html);
}

std::string ReportMarkdown(const ReportData& data) {
  std::string text, rule;
  for (size_t i = 0; i < kColumns; ++i) {
    text += std::string("| ") + kTable[i].name;
    if (*kTable[i].unit != '\0') text += std::string(" (") + kTable[i].unit + ")";
    text += " ";
    rule += i == 0 ? "|---" : "|---:";
  }
  text += "|\n" + rule + "|\n";
  for (const ReportRow& row : data.rows) {
    for (const Column& column : kTable) text += "| " + EscapeMarkdown(column.show(row)) + " ";
    text += "|\n";
  }
  return text;
}

std::string ReportText(const ReportData& data) {
  std::vector<std::array<std::string, kColumns>> lines(2 + data.rows.size());
  std::array<size_t, kColumns> widths = {};
  for (size_t i = 0; i < kColumns; ++i) {
    lines[0][i] = kTable[i].name;
    lines[1][i] = kTable[i].unit;
    for (size_t r = 0; r < data.rows.size(); ++r)
      lines[r + 2][i] = PlainName(kTable[i].show(data.rows[r]));
    for (const auto& line : lines) widths[i] = std::max(widths[i], Width(line[i]));
  }
  std::string text;
  for (const auto& line : lines) {
    std::string row;
    for (size_t i = 0; i < kColumns; ++i) {
      const std::string fill(widths[i] - Width(line[i]), ' ');
      row += i == 0 ? line[i] + fill : "  " + fill + line[i];
    }
    while (row.ends_with(' ')) row.pop_back();
    text += row + "\n";
  }
  return text;
}

Json ToJson(const ReportData& data) {
  Json rows{JsonArray()};
  for (const ReportRow& r : data.rows) {
    Json row;
    row.Set("name", r.name).Set("base", r.base);
    row.Set("file_bytes", OrNull(r.file_bytes)).Set("bits_per_weight", OrNull(r.bits_per_weight));
    row.Set("perplexity", OrNull(r.perplexity)).Set("ppl_ratio", OrNull(r.ppl_ratio));
    row.Set("kl_mean", OrNull(r.kl_mean)).Set("kl_p99", OrNull(r.kl_p99));
    row.Set("top1_agreement", OrNull(r.top1_agreement));
    row.Set("prefill_tokens_per_s", OrNull(r.prefill_tokens_per_s));
    row.Set("decode_tokens_per_s", OrNull(r.decode_tokens_per_s));
    row.Set("decode_p99_ms", OrNull(r.decode_p99_ms));
    row.Set("peak_rss_bytes", OrNull(r.peak_rss_bytes));
    rows.Append(std::move(row));
  }
  Json object;
  object.Set("title", data.title).Set("summary", data.summary).Set("rows", std::move(rows));
  object.Set("headline", FactsJson(data.headline)).Set("method", FactsJson(data.method));
  object.Set("machine", FactsJson(data.machine)).Set("versions", FactsJson(data.versions));
  object.Set("commands", StringsJson(data.commands)).Set("notes", StringsJson(data.notes));
  return object;
}

}  // namespace edgewise
