#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "trainer/report/number_text.h"
#include "trainer/report/pictures.h"

namespace drover {

namespace {

constexpr double kWidth = 960, kNames = 70, kTop = 22;
constexpr int kDark = 6;        // from here on numbers are in the other colour
constexpr int kShades = 10;     // of the style sheet: h0 to h9
constexpr int64_t kRoomy = 40;  // up to so many layers a cell has room for its number

struct Cell {
  double x, y, width, height;
};

double value_of(const LinearChange& linear, bool relative) { return relative ? linear.relative() : linear.change; }

Html text_at(double x, double y, const char* anchor, const std::string& text) {
  return Html::element(
      "text", {{"x", fmt::format("{:.1f}", x)}, {"y", fmt::format("{:.1f}", y)}, {"text-anchor", anchor}}, text);
}

Html cell(const Cell& place, int shade, const std::string& title, const std::string& number) {
  Html drawing = Html::element("rect",
                               {{"class", fmt::format("h{}", shade)},
                                {"x", fmt::format("{:.1f}", place.x)},
                                {"y", fmt::format("{:.1f}", place.y)},
                                {"width", fmt::format("{:.1f}", place.width)},
                                {"height", fmt::format("{:.1f}", place.height)}},
                               Html::element("title", {}, title));
  if (!number.empty()) {
    drawing += Html::element("text",
                             {{"class", shade >= kDark ? "on-dark" : "on-light"},
                              {"x", fmt::format("{:.1f}", place.x + place.width / 2)},
                              {"y", fmt::format("{:.1f}", place.y + place.height / 2 + 4)},
                              {"text-anchor", "middle"}},
                             number);
  }
  return drawing;
}

Html scale(double most, bool relative) {
  Html items;
  for (int shade = 0; shade < kShades; ++shade) {
    items += Html::element(
        "rect",
        {{"class", fmt::format("h{}", shade)}, {"x", std::to_string(24 * shade)}, {"width", "24"}, {"height", "12"}});
  }
  const Html bar = Html::element("svg", {{"width", "240"}, {"height", "12"}, {"aria-hidden", "true"}}, items);
  return Html::element("p", {{"class", "legend"}},
                       Html::text("0 ") + bar + Html::text(relative ? " " + percent_text(most) : " " + plain(most)));
}

}  // namespace

Html heat_map(const AdapterChange& change, const std::string& title) {
  const bool relative = change.without_base.empty();
  const std::vector<std::string> modules = change.modules();
  const bool outside = std::ranges::any_of(change.linears, [](const LinearChange& l) { return l.layer < 0; });
  const int64_t rows = change.layers() + (outside ? 1 : 0);
  const double height = rows <= kRoomy ? 20 : std::max(5.0, 800.0 / static_cast<double>(rows));
  const double width = (kWidth - kNames - 10) / static_cast<double>(std::max<size_t>(1, modules.size()));
  double most = 0;
  for (const LinearChange& linear : change.linears) {
    if (std::isfinite(value_of(linear, relative))) most = std::max(most, value_of(linear, relative));
  }
  Html drawing = Html::element("title", {}, title) +
                 Html::element("desc", {},
                               fmt::format("{} layers by {} modules; darker is more, up to {}.", rows, modules.size(),
                                           relative ? percent_text(most) : plain(most)));
  for (size_t m = 0; m < modules.size(); ++m)
    drawing += text_at(kNames + width * (static_cast<double>(m) + 0.5), kTop - 8, "middle", modules[m]);
  const int64_t every = std::max<int64_t>(1, static_cast<int64_t>(std::ceil(14 / height)));
  for (int64_t row = 0; row < change.layers(); row += every)
    drawing += text_at(kNames - 8, kTop + height * (static_cast<double>(row) + 0.5) + 4, "end", std::to_string(row));
  for (const LinearChange& linear : change.linears) {
    const int64_t row = linear.layer < 0 ? rows - 1 : linear.layer;
    const auto column = std::ranges::find(modules, linear.module) - modules.begin();
    const double value = value_of(linear, relative);
    const int shade = most > 0 && value > 0 ? std::min(kShades - 1, static_cast<int>(kShades * value / most)) : 0;
    const std::string number = relative ? percent_text(value) : plain(value);
    drawing += cell({kNames + width * static_cast<double>(column), kTop + height * static_cast<double>(row), width - 1,
                     height - (height > 8 ? 1 : 0)},
                    shade, fmt::format("{}: {}", linear.path, number), rows <= kRoomy ? number : "");
  }
  const double bottom = kTop + height * static_cast<double>(rows) + 4;
  return scale(most, relative) +
         Html::element("svg", {{"viewBox", fmt::format("0 0 {} {:.0f}", kWidth, bottom)}, {"role", "img"}}, drawing);
}

}  // namespace drover
