// Lines over steps as SVG, with axes, a legend, and marks that have names.
#pragma once
#include <functional>

#include "trainer/report/chart_axis.h"
#include "trainer/report/html.h"
#include "trainer/report/series_math.h"

namespace drover {

// Styles differ in colour, dashes and marker, so that grey ink shows which is which; the page's style sheet has them.
inline constexpr size_t kLineStyles = 8, kQuietStyle = 7;
enum class Look : uint8_t {
  solid,    // a line through the means
  cloud,    // faint: the range of each bin, or single points where these are few
  markers,  // points that are joined
};

struct ChartLine {
  std::string name;
  std::vector<Bin> bins;
  size_t style = 0;
  Look look = Look::solid;
};
struct ChartRule {  // a level that is named
  double y = 0;
  std::string name;
};
struct ChartMark {  // a step that has a number, explained elsewhere
  double x = 0, y = 0;
  std::string number, title;
};

struct LineChart {
  std::string title, description;  // read by screen readers
  std::string y_name;
  std::vector<ChartLine> lines;
  std::vector<ChartRule> rules;
  std::vector<ChartMark> marks;
  bool from_zero = false, logarithmic = false;
  std::function<std::string(double)> y_text;
};

inline constexpr size_t kColumns = 480;  // bins of a line at most

Html line_chart(const LineChart& chart);  // with its legend

}  // namespace drover
