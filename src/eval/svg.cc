#include "eval/svg.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>

#include "base/strings.h"

namespace edgewise {
namespace {

// Space around the plotting area, in user units.
constexpr double kLeft = 76, kRight = 24, kTop = 28, kBottom = 58;
constexpr double kCharWidth = 7.4, kLineHeight = 15;  // of 13 unit labels

// One axis: values to positions.
struct Axis {
  double low, high;  // first and last tick
  double from, to;   // their positions
  bool log;
  std::vector<double> ticks;

  double Place(double value) const {
    const double share =
        log ? std::log(value / low) / std::log(high / low) : (value - low) / (high - low);
    return from + share * (to - from);
  }
};

struct Box {
  double left, top, right, bottom;
  bool Meets(const Box& o) const {
    return left < o.right && o.left < right && top < o.bottom && o.top < bottom;
  }
};

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  void Cover(double value) { low = std::min(low, value), high = std::max(high, value); }
};

bool CanDraw(double value, bool log) { return std::isfinite(value) && (!log || value > 0); }

Axis MakeAxis(double low, double high, bool log, int ticks, double from, double to) {
  // Values that differ by their rounding are one.
  if (high - low <= 1e-9 * std::max(std::fabs(low), std::fabs(high))) {
    const double room = low == 0 ? 1 : std::fabs(low) / 2;
    low = log ? low / 2 : low - room;
    high = log ? high * 2 : high + room;
  }
  Axis axis{0, 0, from, to, log, AxisTicks(low, high, ticks, log)};
  axis.low = axis.ticks.front();
  axis.high = axis.ticks.back();
  return axis;
}

std::string Text(double x, double y, const char* anchor, const char* css, std::string_view text,
                 const char* more = "") {
  return Format("<text class=\"%s\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s>%s</text>\n", css, x,
                y, anchor, more, EscapeHtml(text).c_str());
}

std::string Line(const char* css, double x1, double y1, double x2, double y2) {
  return Format("<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", css, x1,
                y1, x2, y2);
}

std::string DrawAxes(const ScatterPlot& plot, const Axis& x, const Axis& y) {
  std::string svg;
  for (const double tick : x.ticks) {
    svg += Line("plot-grid", x.Place(tick), y.from, x.Place(tick), y.to);
    svg += Text(x.Place(tick), y.from + 20, "middle", "plot-text", Format("%g", tick));
  }
  for (const double tick : y.ticks) {
    svg += Line("plot-grid", x.from, y.Place(tick), x.to, y.Place(tick));
    svg += Text(x.from - 10, y.Place(tick) + 4.5, "end", "plot-text", Format("%g", tick));
  }
  svg += Line("plot-axis", x.from, y.from, x.to, y.from);
  svg += Line("plot-axis", x.from, y.from, x.from, y.to);
  svg += Text((x.from + x.to) / 2, plot.height - 12, "middle", "plot-text", plot.x_label);
  const std::string turn = Format(" transform=\"rotate(-90 16 %.1f)\"", (y.from + y.to) / 2);
  svg += Text(16, (y.from + y.to) / 2, "middle", "plot-text", plot.y_label, turn.c_str());
  return svg;
}

size_t Characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }));
}

// Finds a place for a label near (x, y) that meets none of `taken`: right, left, above, below, then
// further off.
Box PlaceLabel(double x, double y, double width, const Axis& x_axis, std::vector<Box>* taken) {
  std::vector<Box> places;
  for (double off = 0; off <= 3 * kLineHeight; off += kLineHeight) {
    for (const double dy : {-off, off}) {
      const double middle = y + dy;
      places.push_back(
          {x + 10, middle - kLineHeight / 2, x + 10 + width, middle + kLineHeight / 2});
      places.push_back(
          {x - 10 - width, middle - kLineHeight / 2, x - 10, middle + kLineHeight / 2});
    }
    const double away = off + 8;
    places.push_back({x - width / 2, y - away - kLineHeight, x + width / 2, y - away});
    places.push_back({x - width / 2, y + away, x + width / 2, y + away + kLineHeight});
  }
  const auto fits = [&](const Box& box) {
    return box.left >= x_axis.from + 2 && box.right <= x_axis.to + kRight &&
           std::none_of(taken->begin(), taken->end(), [&](const Box& t) { return t.Meets(box); });
  };
  const auto found = std::find_if(places.begin(), places.end(), fits);
  taken->push_back(found == places.end() ? places[0] : *found);
  return taken->back();
}

// Each run of points that can be drawn as a line of its own; labels stand at the right end.
std::string DrawCurves(const ScatterPlot& plot, const Axis& x, const Axis& y,
                       std::vector<Box>* taken) {
  std::string lines, labels, path;
  for (const PlotCurve& curve : plot.curves) {
    const char* css = curve.emphasized ? " plot-strong" : "";
    std::optional<std::pair<double, double>> last;
    const auto end_line = [&] {
      if (!path.empty()) {
        lines += Format("<polyline class=\"plot-curve%s\" points=\"%s\"/>\n", css, path.c_str());
      }
      path.clear();
    };
    for (const auto& [px, py] : curve.points) {
      if (!CanDraw(px, plot.log_x) || !CanDraw(py, plot.log_y)) {
        end_line();
        continue;
      }
      last = {x.Place(px), y.Place(py)};
      path += Format("%s%.1f,%.1f", path.empty() ? "" : " ", last->first, last->second);
    }
    end_line();
    if (!last || curve.label.empty()) continue;
    const double width = kCharWidth * static_cast<double>(Characters(curve.label));
    const Box box = PlaceLabel(last->first, last->second - kLineHeight, width, x, taken);
    labels += Text(box.left, box.bottom - 3.5, "start", "plot-label", curve.label);
  }
  return lines + labels;
}

std::string DrawPoints(const std::vector<PlotPoint>& points, const std::vector<PlotMark>& marks,
                       const Axis& x, const Axis& y, std::vector<Box>* taken_places) {
  std::string svg;
  std::vector<Box>& taken = *taken_places;
  for (const PlotMark& mark : marks) {
    const double at = x.Place(mark.x);
    svg += Line("plot-mark", at, y.from, at, y.to);
    const double width = kCharWidth * static_cast<double>(Characters(mark.label));
    const bool left = at + 6 + width > x.to + kRight;
    svg += Text(left ? at - 6 : at + 6, y.to + 12, left ? "end" : "start", "plot-text", mark.label);
    taken.push_back(
        {left ? at - 6 - width : at - 2, y.to, left ? at + 2 : at + 6 + width, y.to + 16});
  }
  std::string path;
  for (const PlotPoint& p : points) {
    const double px = x.Place(p.x), py = y.Place(p.y);
    taken.push_back({px - 7, py - 7, px + 7, py + 7});
    if (p.emphasized) path += Format("%s%.1f,%.1f", path.empty() ? "" : " ", px, py);
  }
  if (!path.empty()) svg += "<polyline class=\"plot-line\" points=\"" + path + "\"/>\n";
  for (const PlotPoint& p : points) {
    const double px = x.Place(p.x), py = y.Place(p.y);
    svg += Format(
        "<circle class=\"plot-point%s\" cx=\"%.1f\" cy=\"%.1f\" "
        "r=\"6\"><title>%s</title></circle>\n",
        p.emphasized ? " plot-strong" : "", px, py,
        EscapeHtml(p.detail.empty() ? p.label : p.detail).c_str());
    const Box box =
        PlaceLabel(px, py, kCharWidth * static_cast<double>(Characters(p.label)), x, &taken);
    const bool right = box.left > px, left = box.right < px;
    svg += Text(right  ? box.left
                : left ? box.right
                       : px,
                box.bottom - 3.5,
                right  ? "start"
                : left ? "end"
                       : "middle",
                "plot-label", p.label);
  }
  return svg;
}

std::string EmptyPlot(const ScatterPlot& plot) {
  return Text(plot.width / 2.0, plot.height / 2.0, "middle", "plot-text",
              "Nothing to show: no point has both values.");
}

std::vector<double> LogTicks(double low, double high) {
  const int first = static_cast<int>(std::floor(std::log10(low)));
  const int last = static_cast<int>(std::ceil(std::log10(high)));
  std::vector<double> ticks;
  for (int decade = first; decade <= last; ++decade) {
    for (const double digit : {1.0, 2.0, 5.0}) {
      if (digit > 1 && last - first > 2) continue;
      ticks.push_back(digit * std::pow(10.0, decade));
    }
  }
  // Only the nearest tick outside is kept on either side.
  while (ticks.size() > 2 && ticks[1] <= low) ticks.erase(ticks.begin());
  while (ticks.size() > 2 && ticks[ticks.size() - 2] >= high) ticks.pop_back();
  return ticks;
}

}  // namespace

std::string EscapeHtml(std::string_view text) {
  std::string result;
  for (const char c : ReplaceInvalidUtf8(text)) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default: {
        const auto byte = static_cast<uint8_t>(c);
        const bool control = (byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7F;
        if (control) {
          result += "\uFFFD";
        } else {
          result += c;
        }
      }
    }
  }
  return result;
}

std::vector<double> AxisTicks(double low, double high, int count, bool log) {
  if (log) return LogTicks(low, high);
  const double rough = (high - low) / std::max(count, 1);
  const double decade = std::pow(10.0, std::floor(std::log10(rough)));
  double step = 10 * decade;
  for (const double digit : {1.0, 2.0, 5.0}) {
    if (digit * decade >= rough * (1 - 1e-9)) {
      step = digit * decade;
      break;
    }
  }
  const double first = std::floor(low / step + 1e-9), last = std::ceil(high / step - 1e-9);
  std::vector<double> ticks;
  for (double i = first; i <= last; ++i) ticks.push_back(i == 0 ? 0 : i * step);
  return ticks;
}

std::string ScatterSvg(const ScatterPlot& plot) {
  std::vector<PlotPoint> points = plot.points;
  std::erase_if(points, [&](const PlotPoint& p) {
    return !CanDraw(p.x, plot.log_x) || !CanDraw(p.y, plot.log_y);
  });
  std::sort(points.begin(), points.end(), [](const PlotPoint& a, const PlotPoint& b) {
    return a.x != b.x ? a.x < b.x : a.y < b.y;
  });
  std::vector<PlotMark> marks = plot.marks;
  std::erase_if(marks, [&](const PlotMark& m) { return !CanDraw(m.x, plot.log_x); });

  const std::string id = EscapeHtml(plot.id);
  std::string svg = Format(
      "<svg class=\"plot\" viewBox=\"0 0 %d %d\" role=\"img\" aria-labelledby=\"%s-title "
      "%s-desc\">\n"
      "<title id=\"%s-title\">%s</title>\n<desc id=\"%s-desc\">%s</desc>\n",
      plot.width, plot.height, id.c_str(), id.c_str(), id.c_str(), EscapeHtml(plot.title).c_str(),
      id.c_str(), EscapeHtml(plot.description).c_str());
  Range xs, ys;
  const auto cover = [&](double px, double py) {
    if (CanDraw(px, plot.log_x) && CanDraw(py, plot.log_y)) xs.Cover(px), ys.Cover(py);
  };
  for (const PlotPoint& p : points) cover(p.x, p.y);
  for (const PlotCurve& curve : plot.curves) {
    for (const auto& [px, py] : curve.points) cover(px, py);
  }
  if (xs.low > xs.high) return svg + EmptyPlot(plot) + "</svg>\n";
  for (const PlotMark& m : marks) xs.Cover(m.x);
  const Axis x = MakeAxis(xs.low, xs.high, plot.log_x, 6, kLeft, plot.width - kRight);
  const Axis y = MakeAxis(ys.low, ys.high, plot.log_y, 5, plot.height - kBottom, kTop);
  std::vector<Box> taken;
  svg += DrawAxes(plot, x, y) + DrawPoints(points, marks, x, y, &taken);
  return svg + DrawCurves(plot, x, y, &taken) + "</svg>\n";
}

}  // namespace edgewise
