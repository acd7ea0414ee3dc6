#include <fmt/format.h>

#include <algorithm>

#include "trainer/report/chart_axis.h"
#include "trainer/report/number_text.h"
#include "trainer/report/pictures.h"

namespace drover {

namespace {

constexpr double kWidth = 960, kNames = 70, kRight = 70, kTop = 8, kRow = 30, kBar = 24;
constexpr double kNarrow = 0.4;  // narrower spans are drawn so wide
constexpr double kLetter = 6.5;  // a name's room, each letter
constexpr size_t kMostSpans = 6000;

std::string at(double value) { return fmt::format("{:.1f}", value); }

Html text_at(double x, double y, const char* anchor, const std::string& text) {
  return Html::element("text", {{"x", at(x)}, {"y", at(y)}, {"text-anchor", anchor}}, text);
}

std::string kind_of(const std::string& action) {
  if (is_message(action)) return "message";
  if (action == "update") return "update";
  return is_backward(action) ? "backward" : "forward";
}

Html span(const TraceSpan& s, const ChartAxis& x, double y) {
  const double from = x.place(s.begin), width = std::max(kNarrow, x.place(s.end) - from);
  const std::string title =
      fmt::format("rank {}, {}: {} from {}", s.rank, s.name, seconds_text(s.end - s.begin), seconds_text(s.begin));
  const bool message = is_message(s.name);  // lies in the lower edge: it may pass while the rank computes
  Html drawing = Html::element("rect",
                               {{"class", kind_of(s.name)},
                                {"x", at(from)},
                                {"y", at(message ? y + kBar - 6 : y)},
                                {"width", at(width)},
                                {"height", at(message ? 6 : kBar - 6)}},
                               Html::element("title", {}, title));
  const double room = kLetter * static_cast<double>(s.name.size()) + 6;
  if (width >= room && !message)
    drawing += Html::element("text",
                             {{"class", "on-span on-" + kind_of(s.name)},
                              {"x", at(from + width / 2)},
                              {"y", at(y + 14)},
                              {"text-anchor", "middle"}},
                             s.name);
  return drawing;
}

// Of very many spans, those of one kind that follow one another within a pixel are drawn as one.
std::vector<TraceSpan> drawn_spans(const TraceStep& trace) {
  if (trace.spans.size() <= kMostSpans) return trace.spans;
  const double pixel = trace.seconds / kWidth;
  std::vector<TraceSpan> spans;
  for (const TraceSpan& s : trace.spans) {
    const bool joins = !spans.empty() && spans.back().rank == s.rank && kind_of(spans.back().name) == kind_of(s.name) &&
                       s.begin - spans.back().end < pixel;
    if (joins) {
      spans.back().end = std::max(spans.back().end, s.end);
    } else {
      spans.push_back(s);
    }
  }
  return spans;
}

Html legend() {
  Html items;
  for (const auto& [kind, name] : {std::pair("forward", "forward"), std::pair("backward", "backward"),
                                   std::pair("message", "message, with waiting for it"), std::pair("update", "update"),
                                   std::pair("idle", "idle")}) {
    const bool low = kind == std::string_view("message");  // as it is drawn
    const Html sample =
        Html::element("rect", {{"class", kind}, {"y", low ? "6" : "0"}, {"width", "18"}, {"height", low ? "6" : "12"}});
    items += Html::element("li", {},
                           Html::element("svg", {{"width", "18"}, {"height", "12"}, {"aria-hidden", "true"}}, sample) +
                               Html::text(fmt::format(" {}", name)));
  }
  return Html::element("ul", {{"class", "legend"}}, items);
}

}  // namespace

Html timeline(const TraceStep& trace) {
  Extent time;
  time.add(0), time.add(trace.seconds);
  const ChartAxis x(time, kNames, kWidth - kRight);
  const double bottom = kTop + kRow * static_cast<double>(trace.ranks.size());
  Html drawing = Html::element("title", {}, fmt::format("What every rank did in step {}", trace.step)) +
                 Html::element("desc", {},
                               fmt::format("{} ranks over {}; idle on average {}.", trace.ranks.size(),
                                           seconds_text(trace.seconds), percent_text(trace.idle())));
  for (size_t i = 0; i < trace.ranks.size(); ++i) {
    const double y = kTop + kRow * static_cast<double>(i);
    drawing += text_at(kNames - 8, y + 16, "end", fmt::format("rank {}", trace.ranks[i]));
    drawing += Html::element("rect", {{"class", "idle"},
                                      {"x", at(kNames)},
                                      {"y", at(y)},
                                      {"width", at(kWidth - kRight - kNames)},
                                      {"height", at(kBar)}});
    drawing += text_at(kWidth - kRight + 6, y + 16, "start", percent_text(trace.idle(trace.ranks[i])) + " idle");
  }
  for (const TraceSpan& one : drawn_spans(trace)) {
    const auto row = std::ranges::lower_bound(trace.ranks, one.rank) - trace.ranks.begin();
    drawing += span(one, x, kTop + kRow * static_cast<double>(row));
  }
  for (const double value : x.ticks(8)) drawing += text_at(x.place(value), bottom + 14, "middle", seconds_text(value));
  return legend() +
         Html::element("svg", {{"viewBox", fmt::format("0 0 {} {}", kWidth, bottom + 20)}, {"role", "img"}}, drawing);
}

}  // namespace drover
