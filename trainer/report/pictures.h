// Pictures that are no lines over steps, as SVG: bars, stacked bars, a heat map, a pipeline's timeline.
#pragma once
#include "trainer/report/adapter_change.h"
#include "trainer/report/html.h"
#include "trainer/report/trace_record.h"

namespace drover {

struct Bar {
  std::string label;  // under it; may be empty
  double value = 0;
  std::string title;
};
struct BarChart {
  std::string title, description, x_name;
  std::vector<Bar> bars;
};
Html bar_chart(const BarChart& chart);

struct StackPart {
  std::string name;
  double value = 0;
};
struct Stack {
  std::string name;
  std::vector<StackPart> parts;
};
struct StackChart {
  std::string title, description;
  std::vector<Stack> stacks;  // a line each; parts of the same name look alike
  double level = 0;           // a value that is marked across all; 0: none
  std::string level_name;
};
Html stack_chart(const StackChart& chart);  // values are bytes

// Layers × modules; darker is more. Relative to the base's norms where these are known.
Html heat_map(const AdapterChange& change, const std::string& title);

// Ranks × time; what is not drawn over is idle.
Html timeline(const TraceStep& trace);

}  // namespace drover
