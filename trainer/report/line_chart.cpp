#include "trainer/report/line_chart.h"

#include <fmt/format.h>

#include "trainer/report/number_text.h"

namespace drover {

namespace {

constexpr double kWidth = 960, kHeight = 300, kLeft = 66, kRight = 14, kTop = 24, kBottom = 34;
constexpr size_t kFewPoints = 120;
constexpr double kWideRange = 20;  // a logarithmic axis is for more than this

std::string at(double value) { return fmt::format("{:.1f}", value); }
std::string class_of(const char* kind, size_t style) { return fmt::format("{} s{}", kind, style % kLineStyles); }

struct Frame {
  ChartAxis x, y;
  bool logarithmic;
};

Frame frame_of(const LineChart& chart) {
  Extent x, y;
  for (const ChartLine& line : chart.lines) {
    for (const Bin& bin : line.bins) x.add(bin.x), y.add(bin.min), y.add(bin.max);
  }
  for (const ChartRule& rule : chart.rules) y.add(rule.y);
  if (chart.from_zero) y.add(0);
  if (x.least == x.most) x.least -= 1, x.most += 1;
  const bool logarithmic = chart.logarithmic && y.least > 0 && y.most > kWideRange * y.least;
  if (!logarithmic && y.most > y.least) {
    const double room = 0.05 * (y.most - y.least);
    y.most += room;
    if (!chart.from_zero) y.least -= y.least >= 0 && y.least < room ? y.least : room;
  }
  return {ChartAxis(x, kLeft, kWidth - kRight), ChartAxis(y, kHeight - kBottom, kTop, logarithmic), logarithmic};
}

Html text_at(double x, double y, const char* anchor, const std::string& text) {
  return Html::element("text", {{"x", at(x)}, {"y", at(y)}, {"text-anchor", anchor}}, text);
}

Html axes(const LineChart& chart, const Frame& frame) {
  Html html;
  for (const double value : frame.y.ticks(5)) {
    const double y = frame.y.place(value);
    html += Html::element(
        "line", {{"class", "grid"}, {"x1", at(kLeft)}, {"x2", at(kWidth - kRight)}, {"y1", at(y)}, {"y2", at(y)}});
    html += text_at(kLeft - 6, y + 4, "end", chart.y_text(value));
  }
  for (const double value : frame.x.ticks(10)) {
    if (value < 0 || value != static_cast<double>(static_cast<int64_t>(value))) continue;
    html += text_at(frame.x.place(value), kHeight - kBottom + 16, "middle", plain(value));
  }
  html += text_at(kWidth - kRight, kHeight - 4, "end", "step");
  html += text_at(4, 12, "start", chart.y_name);
  return html;
}

Html marker(size_t style, double x, double y, const std::string& title) {
  constexpr double r = 4;
  const Html inner = title.empty() ? Html() : Html::element("title", {}, title);
  const std::string name = class_of("dot", style);
  if (style % 4 == 0)
    return Html::element("circle", {{"class", name}, {"cx", at(x)}, {"cy", at(y)}, {"r", "3.5"}}, inner);
  std::string path;
  if (style % 4 == 1)
    path = fmt::format("M{:.1f} {:.1f}l{} {}l-{} {}l-{} -{}z", x, y - r - 1, r + 1, r + 1, r + 1, r + 1, r + 1, r + 1);
  if (style % 4 == 2)
    path = fmt::format("M{:.1f} {:.1f}h{}v{}h-{}z", x - r + 1, y - r + 1, 2 * r - 2, 2 * r - 2, 2 * r - 2);
  if (style % 4 == 3) path = fmt::format("M{:.1f} {:.1f}l{} {}h-{}z", x, y - r, r, 2 * r - 1, 2 * r);
  return Html::element("path", {{"class", name}, {"d", path}}, inner);
}

std::string polyline(const std::vector<Bin>& bins, const Frame& frame) {
  std::string path;
  for (const Bin& bin : bins)
    path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", frame.x.place(bin.x), frame.y.place(bin.mean));
  return path;
}

std::string band(const std::vector<Bin>& bins, const Frame& frame) {
  std::string path;
  for (const Bin& bin : bins)
    path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", frame.x.place(bin.x), frame.y.place(bin.max));
  for (auto bin = bins.rbegin(); bin != bins.rend(); ++bin)
    path += fmt::format("L{:.1f} {:.1f}", frame.x.place(bin->x), frame.y.place(bin->min));
  return path + "z";
}

Html path(const std::string& kind, const std::string& d) { return Html::element("path", {{"class", kind}, {"d", d}}); }

Html draw(const ChartLine& line, const Frame& frame) {
  Html html;
  if (line.bins.empty()) return html;
  const bool few = line.bins.size() <= kFewPoints;
  if (line.look == Look::cloud && few) {
    for (const Bin& bin : line.bins) {
      html += Html::element("circle", {{"class", class_of("faint", line.style)},
                                       {"cx", at(frame.x.place(bin.x))},
                                       {"cy", at(frame.y.place(bin.mean))},
                                       {"r", "2.5"}});
    }
    return html;
  }
  if (line.look == Look::cloud)
    return path(class_of("band", line.style), band(line.bins, frame)) +
           path(class_of("thin", line.style), polyline(line.bins, frame));
  html += path(class_of(line.look == Look::markers ? "joined" : "line", line.style), polyline(line.bins, frame));
  if (line.look != Look::markers && line.bins.size() > 1) return html;
  for (const Bin& bin : line.bins) {
    const std::string title = fmt::format("{}: step {}, {}", line.name, plain(bin.x), plain(bin.mean));
    html += marker(line.style, frame.x.place(bin.x), frame.y.place(bin.mean), few ? title : "");
  }
  return html;
}

Html legend(const LineChart& chart) {
  Html items;
  for (const ChartLine& line : chart.lines) {
    Html sample;
    if (line.look == Look::cloud && line.bins.size() <= kFewPoints) {
      sample =
          Html::element("circle", {{"class", class_of("faint", line.style)}, {"cx", "14"}, {"cy", "5"}, {"r", "2.5"}});
    } else if (line.look == Look::cloud) {
      sample = Html::element("rect", {{"class", class_of("band", line.style)}, {"width", "28"}, {"height", "10"}});
    } else {
      sample = path(class_of(line.look == Look::markers ? "joined" : "line", line.style), "M0 5h28");
      if (line.look == Look::markers) sample += marker(line.style, 14, 5, "");
    }
    const Html key = Html::element("svg", {{"width", "28"}, {"height", "10"}, {"aria-hidden", "true"}}, sample);
    items += Html::element("li", {}, key + Html::text(" " + line.name));
  }
  return Html::element("ul", {{"class", "legend"}}, items);
}

Html rules_and_marks(const LineChart& chart, const Frame& frame) {
  Html html;
  for (const ChartRule& rule : chart.rules) {
    const double y = frame.y.place(rule.y);
    html += path("rule", fmt::format("M{:.1f} {:.1f}H{:.1f}", kLeft, y, kWidth - kRight));
    html += Html::element(
        "text", {{"class", "on-lines"}, {"x", at(kWidth - kRight - 4)}, {"y", at(y - 5)}, {"text-anchor", "end"}},
        rule.name);
  }
  for (const ChartMark& mark : chart.marks) {
    const double x = frame.x.place(mark.x), y = frame.y.place(mark.y);
    const Html number =
        Html::element("circle", {{"cx", at(x)}, {"cy", at(y)}, {"r", "8"}}) + text_at(x, y + 4, "middle", mark.number);
    html += Html::element("g", {{"class", "mark"}}, Html::element("title", {}, mark.title) + number);
  }
  return html;
}

}  // namespace

Html line_chart(const LineChart& chart) {
  const Frame frame = frame_of(chart);
  const std::string scale = frame.logarithmic ? " The scale is logarithmic." : "";
  Html drawing = Html::element("title", {}, chart.title) + Html::element("desc", {}, chart.description + scale);
  drawing += axes(chart, frame);
  for (const ChartLine& line : chart.lines) drawing += draw(line, frame);
  drawing += rules_and_marks(chart, frame);
  const Html svg =
      Html::element("svg", {{"viewBox", fmt::format("0 0 {} {}", kWidth, kHeight)}, {"role", "img"}}, drawing);
  return chart.lines.size() > 1 ? legend(chart) + svg : svg;
}

}  // namespace drover
