// The parts that our HTML pages are made of: self-contained, no script, light and dark, for screens
// and paper. Every text is escaped here, so callers pass it as it is.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace edgewise {

struct ReportFact {
  std::string name;
  std::string value;
};

struct HtmlHead {
  std::string title;    // "edgewise-stories-3M"
  std::string kind;     // above the title: "Compression report"
  std::string summary;  // one or two sentences below it; empty: none
};

// Returns the whole page around `body`, which is HTML already.
std::string HtmlPage(const HtmlHead& head, const std::string& body);

// Returns a section with a heading around `body`, which is HTML already.
std::string HtmlSection(std::string_view title, const std::string& body);

// Returns names with their values; `css` is "figures" (a row of large ones) or "facts".
std::string HtmlFacts(const std::vector<ReportFact>& facts, std::string_view css);

std::string HtmlList(const std::vector<std::string>& items);

// Returns a table that scrolls by itself. The first column heads the rows; columns named in `texts`
// (by index) are wrapped and set left, the others hold figures.
std::string HtmlTable(std::string_view label, const std::vector<std::string>& head,
                      const std::vector<std::vector<std::string>>& rows,
                      const std::vector<size_t>& texts = {});

}  // namespace edgewise
