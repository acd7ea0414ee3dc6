#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "trainer/report/chart_axis.h"
#include "trainer/report/number_text.h"
#include "trainer/report/pictures.h"

namespace drover {

namespace {

constexpr double kWidth = 960, kLeft = 66, kRight = 14;
constexpr size_t kFills = 6;  // of the style sheet

std::string at(double value) { return fmt::format("{:.1f}", value); }

Html rectangle(const std::string& kind, double x, double y, double width, double height, const std::string& title) {
  return Html::element("rect",
                       {{"class", kind}, {"x", at(x)}, {"y", at(y)}, {"width", at(width)}, {"height", at(height)}},
                       Html::element("title", {}, title));
}

Html text_at(double x, double y, const char* anchor, const std::string& text) {
  return Html::element("text", {{"x", at(x)}, {"y", at(y)}, {"text-anchor", anchor}}, text);
}

Html picture(const std::string& title, const std::string& description, double height, const Html& drawing) {
  return Html::element("svg", {{"viewBox", fmt::format("0 0 {} {}", kWidth, height)}, {"role", "img"}},
                       Html::element("title", {}, title) + Html::element("desc", {}, description) + drawing);
}

// The number that each part's name has in all stacks.
std::map<std::string, size_t> fills_of(const StackChart& chart) {
  std::map<std::string, size_t> fills;
  for (const Stack& stack : chart.stacks) {
    for (const StackPart& part : stack.parts) fills.emplace(part.name, fills.size());
  }
  return fills;
}

Html legend(const std::map<std::string, size_t>& fills) {
  std::vector<std::pair<size_t, std::string>> ordered;
  for (const auto& [name, fill] : fills) ordered.emplace_back(fill, name);
  std::ranges::sort(ordered);
  Html items;
  for (const auto& [fill, name] : ordered) {
    const Html sample =
        Html::element("rect", {{"class", fmt::format("fill f{}", fill % kFills)}, {"width", "18"}, {"height", "12"}});
    items += Html::element("li", {},
                           Html::element("svg", {{"width", "18"}, {"height", "12"}, {"aria-hidden", "true"}}, sample) +
                               Html::text(" " + name));
  }
  return Html::element("ul", {{"class", "legend"}}, items);
}

}  // namespace

Html bar_chart(const BarChart& chart) {
  constexpr double kHeight = 220, kTop = 14, kBottom = 40;
  Extent counts;
  counts.add(0);
  for (const Bar& bar : chart.bars) counts.add(bar.value);
  const ChartAxis y(counts, kHeight - kBottom, kTop);
  Html drawing;
  for (const double value : y.ticks(4)) {
    drawing += Html::element("line", {{"class", "grid"},
                                      {"x1", at(kLeft)},
                                      {"x2", at(kWidth - kRight)},
                                      {"y1", at(y.place(value))},
                                      {"y2", at(y.place(value))}});
    drawing += text_at(kLeft - 6, y.place(value) + 4, "end", plain(value));
  }
  const double width = (kWidth - kLeft - kRight) / std::max(1.0, static_cast<double>(chart.bars.size()));
  for (size_t i = 0; i < chart.bars.size(); ++i) {
    const Bar& bar = chart.bars[i];
    const double x = kLeft + width * static_cast<double>(i), top = y.place(bar.value);
    drawing += rectangle("fill f0", x + 1, top, std::max(1.0, width - 2), kHeight - kBottom - top, bar.title);
    if (!bar.label.empty()) drawing += text_at(x, kHeight - kBottom + 16, "start", bar.label);
  }
  drawing += text_at(kWidth - kRight, kHeight - 6, "end", chart.x_name);
  return picture(chart.title, chart.description, kHeight, drawing);
}

Html stack_chart(const StackChart& chart) {
  constexpr double kNames = 150, kRow = 34, kTop = 22, kBar = 22;
  const double bottom = kTop + kRow * static_cast<double>(chart.stacks.size());
  Extent extent;
  extent.add(0), extent.add(chart.level);
  for (const Stack& stack : chart.stacks) {
    double sum = 0;
    for (const StackPart& part : stack.parts) sum += part.value;
    extent.add(sum);
  }
  const ChartAxis x(extent, kNames, kWidth - 90);
  const std::map<std::string, size_t> fills = fills_of(chart);
  Html drawing;
  for (size_t i = 0; i < chart.stacks.size(); ++i) {
    const Stack& stack = chart.stacks[i];
    const double y = kTop + kRow * static_cast<double>(i);
    double sum = 0;
    drawing += text_at(kNames - 8, y + 16, "end", stack.name);
    for (const StackPart& part : stack.parts) {
      const double from = x.place(sum), to = x.place(sum + part.value);
      sum += part.value;
      drawing += rectangle(fmt::format("fill f{}", fills.at(part.name) % kFills), from, y, std::max(0.0, to - from),
                           kBar, fmt::format("{}, {}: {}", stack.name, part.name, bytes_text(part.value)));
    }
    drawing += text_at(x.place(sum) + 6, y + 16, "start", bytes_text(sum));
  }
  if (chart.level > 0) {
    const double place = x.place(chart.level);
    drawing += Html::element("path", {{"class", "rule"}, {"d", fmt::format("M{:.1f} 16V{:.1f}", place, bottom)}});
    drawing += text_at(place, 11, "middle", fmt::format("{}: {}", chart.level_name, bytes_text(chart.level)));
  }
  return legend(fills) + picture(chart.title, chart.description, bottom + 6, drawing);
}

}  // namespace drover
