#include "eval/html_page.h"

#include <algorithm>

#include "base/strings.h"
#include "eval/svg.h"

namespace edgewise {
namespace {

constexpr std::string_view kStyle = R"(
:root{--page:#f6f7f9;--card:#ffffff;--ink:#1a2330;--soft:#566273;--line:#dde2e9;--accent:#0b6e6e;--tint:#e7f3f2}
@media (prefers-color-scheme:dark){:root{--page:#10151c;--card:#182029;--ink:#e6ebf1;--soft:#9aa8b8;--line:#2b3642;--accent:#4fc3b8;--tint:#17302f}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
main{max-width:1080px;margin:0 auto;padding:32px 16px 64px}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 8px;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:0 0 12px}
p{margin:0 0 12px;max-width:70ch}
.kind{color:var(--accent);font-weight:600;font-size:.85rem;letter-spacing:.06em;text-transform:uppercase;margin:0 0 4px}
.soft{color:var(--soft);font-size:.9rem}
section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:20px;margin-top:20px}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:20px 0 0}
.figures div{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px 18px}
.figures dt{color:var(--soft);font-size:.85rem}
.figures dd{margin:0;font-size:1.4rem;font-weight:650;line-height:1.3;overflow-wrap:anywhere}
.scroll{overflow-x:auto}
.scroll:focus-visible,pre:focus-visible{outline:2px solid var(--accent);outline-offset:-2px}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:8px 10px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
thead th{color:var(--soft);font-weight:600;vertical-align:bottom;line-height:1.3}
thead small{display:block;font-weight:400}
th:first-child,td:first-child{text-align:left}
tbody th{font-weight:600}
thead th:first-child,tbody th{position:sticky;left:0;background:var(--card)}
tr.base,tr.base th{background:var(--tint)}
tbody tr:last-child th,tbody tr:last-child td{border-bottom:0}
figure{margin:0}
figcaption{color:var(--soft);font-size:.9rem;margin-top:8px;max-width:75ch}
.plot{display:block;width:100%;min-width:520px;height:auto}
.plot-grid{stroke:var(--line);stroke-width:1}
.plot-axis{stroke:var(--soft);stroke-width:1.2}
.plot-text{fill:var(--soft);font-size:13px}
.plot-label{fill:var(--ink);font-size:13px;font-weight:600}
.plot-line{fill:none;stroke:var(--accent);stroke-width:1.5;opacity:.55}
.plot-point{fill:var(--card);stroke:var(--accent);stroke-width:2}
.plot-strong{fill:var(--accent)}
.plot-curve{fill:none;stroke:var(--soft);stroke-width:1.2;opacity:.8}
.plot-curve.plot-strong{fill:none;stroke:var(--accent);stroke-width:2.2;opacity:1}
.plot-mark{stroke:var(--soft);stroke-width:1.2;stroke-dasharray:5 4}
.facts{display:grid;grid-template-columns:minmax(110px,max-content) 1fr;gap:6px 20px;margin:0}
.facts dt{color:var(--soft)}
.facts dd{margin:0;overflow-wrap:anywhere}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,340px),1fr));gap:20px}
pre{margin:0;padding:14px 16px;overflow-x:auto;background:var(--page);border:1px solid var(--line);border-radius:8px;font:.85rem/1.6 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
ul{margin:0;padding-left:20px}
th.text{text-align:left;white-space:normal}
td.text{text-align:left;white-space:normal;vertical-align:top;min-width:150px;overflow-wrap:anywhere}
@media (max-width:480px){section{padding:16px}.figures dd{font-size:1.25rem}.facts{grid-template-columns:1fr;gap:0}.facts dd{margin-bottom:8px}}
@media print{body{background:#fff}section,.figures div{break-inside:avoid}}
)";

}  // namespace

std::string HtmlPage(const HtmlHead& head, const std::string& body) {
  std::string name = head.kind;
  for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
  std::string html =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta name=\"color-scheme\" content=\"light dark\">\n<title>" +
      EscapeHtml(head.title) + " \u2013 " + EscapeHtml(name) + "</title>\n<style>" +
      std::string(kStyle) + "</style>\n</head>\n<body>\n<main>\n<header>\n<p class=\"kind\">" +
      EscapeHtml(head.kind) + "</p>\n<h1>" + EscapeHtml(head.title) + "</h1>\n";
  if (!head.summary.empty()) html += "<p>" + EscapeHtml(head.summary) + "</p>\n";
  return html + "</header>\n" + body + "</main>\n</body>\n</html>\n";
}

std::string HtmlSection(std::string_view title, const std::string& body) {
  return "<section>\n<h2>" + EscapeHtml(title) + "</h2>\n" + body + "</section>\n";
}

std::string HtmlFacts(const std::vector<ReportFact>& facts, std::string_view css) {
  std::string html = "<dl class=\"" + EscapeHtml(css) + "\">\n";
  const bool boxed = css == "figures";
  for (const ReportFact& fact : facts) {
    html += (boxed ? "<div><dt>" : "<dt>") + EscapeHtml(fact.name) + "</dt><dd>" +
            EscapeHtml(fact.value) + (boxed ? "</dd></div>\n" : "</dd>\n");
  }
  return html + "</dl>\n";
}

std::string HtmlList(const std::vector<std::string>& items) {
  std::string html = "<ul>\n";
  for (const std::string& item : items) html += "<li>" + EscapeHtml(item) + "</li>\n";
  return html + "</ul>\n";
}

std::string HtmlTable(std::string_view label, const std::vector<std::string>& head,
                      const std::vector<std::vector<std::string>>& rows,
                      const std::vector<size_t>& texts) {
  std::string html = "<div class=\"scroll\" role=\"region\" aria-label=\"" + EscapeHtml(label) +
                     "\" tabindex=\"0\">\n<table>\n<thead><tr>";
  const auto is_text = [&](size_t column) {
    return std::find(texts.begin(), texts.end(), column) != texts.end();
  };
  for (size_t i = 0; i < head.size(); ++i) {
    html += (is_text(i) ? "<th scope=\"col\" class=\"text\">" : "<th scope=\"col\">") +
            EscapeHtml(head[i]) + "</th>";
  }
  html += "</tr></thead>\n<tbody>\n";
  for (const std::vector<std::string>& row : rows) {
    html += "<tr><th scope=\"row\">" + EscapeHtml(row.at(0)) + "</th>";
    for (size_t i = 1; i < row.size(); ++i) {
      html += (is_text(i) ? "<td class=\"text\">" : "<td>") + EscapeHtml(row[i]) + "</td>";
    }
    html += "</tr>\n";
  }
  return html + "</tbody>\n</table>\n</div>\n";
}

}  // namespace edgewise
