// A plot of points and curves as an SVG element for embedding in HTML; colours come from CSS
// classes of the page.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace edgewise {

// Returns `text` safe inside HTML and XML text and attributes; invalid UTF-8 and control bytes
// become U+FFFD.
std::string EscapeHtml(std::string_view text);

struct PlotPoint {
  double x = 0;
  double y = 0;
  std::string label;
  std::string detail;  // shown on hover; empty: the label
  bool emphasized =
      false;  // filled, and joined by a line with the other emphasized ones in the order of x
};

// A dashed vertical line: a value to compare the points with.
struct PlotMark {
  double x = 0;
  std::string label;
};

// A line through its points, in their order; those that cannot be drawn leave a gap.
struct PlotCurve {
  std::vector<std::pair<double, double>> points;  // x, y
  std::string label;                              // at its end
  bool emphasized = false;                        // drawn strongly, over the others
};

struct ScatterPlot {
  std::string id;           // unique in the page: letters, digits and dashes
  std::string title;        // for screen readers
  std::string description;  // likewise
  std::string x_label;
  std::string y_label;
  bool log_x = false;  // points that are not positive are left out of a logarithmic axis
  bool log_y = false;
  std::vector<PlotPoint> points;
  std::vector<PlotMark> marks;
  std::vector<PlotCurve> curves;
  int width = 720;  // user units; the element scales with its container
  int height = 420;
};

// Returns the <svg> element with classes plot, plot-grid, plot-axis, plot-text, plot-line,
// plot-point (and plot-strong), plot-mark, plot-curve (and plot-strong), plot-label. A plot without
// a point that can be drawn says so. Labels are moved off each other.
std::string ScatterSvg(const ScatterPlot& plot);

// Returns about `count` round values that cover [low, high]; 1-2-5 steps, or powers of ten (with 2
// and 5 where few) when `log`.
std::vector<double> AxisTicks(double low, double high, int count, bool log);

}  // namespace edgewise
