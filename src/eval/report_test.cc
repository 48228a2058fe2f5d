#include "eval/report.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "base/strings.h"
#include "eval/svg.h"

namespace edgewise {
namespace {

ReportRow Row(const std::string& name, uint64_t bytes, double kl) {
  ReportRow row;
  row.name = name;
  row.file_bytes = bytes;
  row.kl_mean = kl;
  row.perplexity = 8.75;
  row.top1_agreement = 0.9512;
  return row;
}

ReportData Data() {
  ReportData data;
  data.title = "tiny";
  ReportRow base;
  base.name = "original";
  base.base = true;
  base.file_bytes = 8u << 20;
  data.rows = {base, Row("q8_0", 4u << 20, 0.0005), Row("q4_0", 2u << 20, 0.02),
               Row("worse", 3u << 20, 0.05)};
  return data;
}

size_t Count(std::string_view text, std::string_view part) { return Split(text, part).size() - 1; }

TEST_CASE("Nothing from outside becomes markup") {
  const std::string attack = "<script>alert('x')</script>\"&";
  ReportData data = Data();
  data.title = data.summary = attack;
  data.rows.push_back(Row(attack, 1u << 20, 0.1));
  data.headline = data.method = data.machine = data.versions = {{attack, attack}};
  data.commands = data.notes = {attack};
  const std::string html = ReportHtml(data);
  CHECK(html.find("<script") == std::string::npos);
  CHECK(html.find("'x'") == std::string::npos);
  CHECK(Count(html, "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;") >= 14);
  CHECK(IsUtf8(html));
  CHECK(EscapeHtml(std::string_view("a\x01\xff\n", 4)) == "a\uFFFD\uFFFD\n");
}

TEST_CASE("The page stands alone and is balanced") {
  const std::string html = ReportHtml(Data());
  for (const char* part : {"http:", "https:", "src=", "@import", "url("}) {
    INFO(part);
    CHECK(html.find(part) == std::string::npos);
  }
  for (const char* tag : {"section", "table", "tr", "th", "td", "svg", "g", "div", "figure", "main",
                          "text", "title", "desc"}) {
    INFO(tag);
    const std::string name = tag;
    CHECK(Count(html, "<" + name + ">") + Count(html, "<" + name + " ") ==
          Count(html, "</" + name + ">"));
  }
  CHECK(html.find("role=\"img\"") != std::string::npos);
  CHECK(html.find("prefers-color-scheme:dark") != std::string::npos);
}

TEST_CASE("Only points that no other format beats are filled") {
  const std::string html = ReportHtml(Data());
  CHECK(Count(html, "class=\"plot-point plot-strong\"") == 2);
  CHECK(Count(html, "class=\"plot-point\"") == 1);
  CHECK(Count(html, "class=\"plot-mark\"") == 1);
}

TEST_CASE("What was not measured is a dash, and null in JSON") {
  const ReportData data = Data();
  const std::string markdown = ReportMarkdown(data);
  const auto lines = Split(markdown, "\n");
  REQUIRE(lines.size() == 7);
  CHECK(lines[2] ==
        "| original | 8.00 MiB | \u2013 | \u2013 | \u2013 | \u2013 | \u2013 | \u2013 | \u2013 | "
        "\u2013 | \u2013 | \u2013 |");
  CHECK(lines[3].starts_with(
      "| q8\\_0 | 4.00 MiB | \u2013 | 8.750 | \u2013 | 0.00050 | \u2013 | 95.12 |"));
  for (size_t i = 0; i < 6; ++i) CHECK(Count(lines[i], "|") == 13);
  const Json json = ToJson(data);
  const Json& first = (*json.Find("rows")->AsArray())[0];
  CHECK(first.Find("perplexity")->is_null());
  CHECK(*first.Find("file_bytes")->AsUint() == (8u << 20));
}

TEST_CASE("Markdown and text cannot be broken by a name") {
  ReportData data = Data();
  data.rows.push_back(Row("a|b\n\x1b[31m*x*", 1u << 20, 0.1));
  const std::string markdown = ReportMarkdown(data);
  const auto lines = Split(markdown, "\n");
  CHECK(lines.size() == 8);
  CHECK(lines[6].find("a\\|b \uFFFD\\[31m\\*x\\*") != std::string::npos);
  const std::string text = ReportText(data);
  CHECK(text.find('\x1b') == std::string::npos);
  CHECK(Split(text, "\n").size() == 8);
}

TEST_CASE("Columns of the plain table are aligned") {
  const std::string text = ReportText(Data());
  const auto lines = Split(text, "\n");
  const size_t end = lines[3].find("4.00 MiB") + 8;
  CHECK(lines[0].find("File") + 4 == end);
  CHECK(lines[2].find("8.00 MiB") + 8 == end);
}

TEST_CASE("Ticks are round and cover the range") {
  CHECK(AxisTicks(0.3, 9.2, 5, false) == std::vector<double>{0, 2, 4, 6, 8, 10});
  CHECK(AxisTicks(0, 1, 5, false).size() == 6);
  for (const auto& [low, high] : std::vector<std::pair<double, double>>{
           {1e-5, 3e-1}, {0.004, 0.007}, {1, 1000}, {0.9, 1.1}, {1e-300, 1e300}}) {
    for (const bool log : {false, true}) {
      if (high > 1e100) continue;
      const auto ticks = AxisTicks(low, high, 5, log);
      REQUIRE(ticks.size() >= 2);
      CHECK(ticks.front() <= low * (1 + 1e-9));
      CHECK(ticks.back() >= high * (1 - 1e-9));
      CHECK(ticks.size() < 20);
      for (size_t i = 1; i < ticks.size(); ++i) CHECK(ticks[i] > ticks[i - 1]);
    }
  }
}

ScatterPlot Plot(const std::vector<std::pair<double, double>>& points, bool log) {
  ScatterPlot plot;
  plot.id = "p";
  plot.log_y = log;
  for (const auto& [x, y] : points) plot.points.push_back({x, y, "label", "detail", false});
  return plot;
}

TEST_CASE("Points without a finite place are left out, and equal ones are drawn") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::string svg = ScatterSvg(Plot({{1, 0}, {2, 0.1}, {nan, 1}, {3, INFINITY}}, true));
  CHECK(Count(svg, "<circle") == 1);
  CHECK(svg.find("nan") == std::string::npos);
  CHECK(svg.find("inf") == std::string::npos);
  CHECK(Count(ScatterSvg(Plot({{1, 0}, {2, -1}}, false)), "<circle") == 2);
  const std::string same = ScatterSvg(Plot({{2, 2}, {2, 2}, {2, 2}}, true));
  CHECK(Count(same, "<circle") == 3);
  CHECK(same.find("nan") == std::string::npos);
  CHECK(Count(ScatterSvg(Plot({{1, 0.001}, {2, std::nextafter(0.001, 1)}}, false)), "<circle") ==
        2);
  CHECK(ScatterSvg(Plot({{1, 0}}, true)).find("Nothing to show") != std::string::npos);
  CHECK(ScatterSvg(Plot({}, false)).find("Nothing to show") != std::string::npos);
}

TEST_CASE("Curves are drawn through what can be drawn, and set the axes") {
  ScatterPlot plot = Plot({}, true);
  plot.curves.push_back({{{0, 1}, {5, 10}, {6, 0}, {10, 100}}, "end", true});
  const std::string svg = ScatterSvg(plot);
  CHECK(svg.find("points=\"76.0,362.0 386.0,195.0\"") != std::string::npos);
  CHECK(svg.find("points=\"696.0,28.0\"") != std::string::npos);
  CHECK(Count(svg, "class=\"plot-curve plot-strong\"") == 2);
  CHECK(svg.find(">end<") != std::string::npos);
  plot.curves = {{{{0, 0}, {1, -1}}, "", false}};
  CHECK(ScatterSvg(plot).find("Nothing to show") != std::string::npos);
}

TEST_CASE("Points lie where their values are") {
  ScatterPlot plot = Plot({{0, 1}, {10, 100}, {5, 10}}, true);
  const std::string svg = ScatterSvg(plot);
  // Axes from (76, 362) to (696, 28).
  CHECK(svg.find("cx=\"76.0\" cy=\"362.0\"") != std::string::npos);
  CHECK(svg.find("cx=\"696.0\" cy=\"28.0\"") != std::string::npos);
  CHECK(svg.find("cx=\"386.0\" cy=\"195.0\"") != std::string::npos);
}

}  // namespace
}  // namespace edgewise
