#include "launch/run_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "launch/curve.h"

namespace drover {

namespace {

constexpr int64_t kLabelColumns = 11;                            // left of a curve
constexpr int64_t kLeastCurveRows = 3, kLeastCurveColumns = 10;  // fewer show nothing
constexpr int64_t kMostCurveRows = 24;

const char* word_of(RunLife life) {
  switch (life) {
    case RunLife::absent: return "absent";
    case RunLife::awaited: return "awaited";
    case RunLife::working: return "working";
    case RunLife::elsewhere: return "elsewhere";
    case RunLife::ended: return "ended";
    case RunLife::lost: return "lost";
  }
  return "?";
}

std::string duration(double seconds) {
  const int64_t s = std::llround(seconds);
  if (s < 3600) return fmt::format("{}:{:02}", s / 60, s % 60);
  return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

std::string who_works(const SeenRun& run) {
  const std::string quiet =
      run.quiet_seconds ? fmt::format("; the last line came {} ago", duration(*run.quiet_seconds)) : "";
  switch (run.life) {
    case RunLife::absent: return "waiting for it: the directory is not there yet";
    case RunLife::awaited: return "waiting for it: no run has begun in the directory yet";
    case RunLife::working: return fmt::format("process {} works{}", run.pid, quiet);
    case RunLife::elsewhere: return fmt::format("process {} on {}{}", run.pid, run.host, quiet);
    case RunLife::ended:
      return !run.steps.empty() && run.steps.back().step == run.total_steps ? "done" : "no process works in it";
    case RunLife::lost: return run.pid > 0 ? fmt::format("process {} is gone", run.pid) : "its process is gone";
  }
  return "";
}

int64_t steps_done(const SeenRun& run) { return run.steps.empty() ? 0 : run.steps.back().step; }

// "step 120/600  ████████········  20.0 %  ETA 12:34"
std::string progress(const SeenRun& run, int64_t columns) {
  const int64_t done = steps_done(run);
  if (run.total_steps <= 0) return fmt::format("step {}", done);
  const double share = std::clamp(static_cast<double>(done) / static_cast<double>(run.total_steps), 0.0, 1.0);
  const std::string left = fmt::format("step {}/{}", done, run.total_steps);
  std::string right = fmt::format("{:.1f} %", 100 * share);
  const std::optional<double> seconds = run.seconds_left();
  if (seconds && *seconds > 0 && run.life != RunLife::ended && run.life != RunLife::lost)
    right += "  ETA " + duration(*seconds);
  const int64_t width = std::min<int64_t>(columns - static_cast<int64_t>(left.size() + right.size()) - 4, 40);
  if (width < 5) return left + "  " + right;
  const int64_t full = std::llround(share * static_cast<double>(width));
  std::string bar;
  for (int64_t i = 0; i < width; ++i) bar += i < full ? "█" : "·";
  return fmt::format("{}  {}  {}", left, bar, right);
}

std::string shown(std::string_view format, double value) {
  return std::isfinite(value) ? fmt::vformat(format, fmt::make_format_args(value)) : "–";
}

std::string figures(const SeenStep& s) {
  const double gib = s.peak_bytes > 0 ? static_cast<double>(s.peak_bytes) / (1 << 30) : kUnseen;
  return fmt::format("loss {}  {} tok/s  {} GiB  lr {}  grad {}", shown("{:.4f}", s.loss),
                     shown("{:.0f}", s.tokens_per_second), shown("{:.2f}", gib), shown("{:.2e}", s.learning_rate),
                     shown("{:.3f}", s.grad_norm));
}

std::string validation_line(const std::vector<SeenValidation>& all) {
  const SeenValidation* best = nullptr;
  for (const SeenValidation& v : all) {
    if (std::isfinite(v.loss) && (best == nullptr || v.loss < best->loss)) best = &v;
  }
  std::string line = fmt::format("validation {} after step {}", shown("{:.4f}", all.back().loss), all.back().step);
  if (best != nullptr && best->step != all.back().step)
    line += fmt::format(", the lowest {:.4f} after step {}", best->loss, best->step);
  return line;
}

// The axis' ends stand next to the first and last row, and below; nothing where there is no room.
std::vector<std::string> curve_lines(const SeenRun& run, int64_t columns, int64_t rows) {
  const int64_t across = columns - kLabelColumns, down = std::min(rows - 1, kMostCurveRows);
  if (run.steps.size() < 2 || across < kLeastCurveColumns || down < kLeastCurveRows) return {};
  std::vector<CurvePoint> losses, validations;
  for (const SeenStep& s : run.steps) losses.push_back({static_cast<double>(s.step), s.loss});
  for (const SeenValidation& v : run.validations) validations.push_back({static_cast<double>(v.step), v.loss});
  const CurveRange range = range_of(losses, validations);
  std::vector<std::string> lines = draw_curve(losses, validations, range, across, down);
  for (size_t i = 0; i < lines.size(); ++i) {
    const bool top = i == 0, end = top || i + 1 == lines.size();
    lines[i] = (end ? fmt::format("{:>9.4g} ┤", top ? range.y1 : range.y0) : fmt::format("{:>11}", "│")) + lines[i];
  }
  const std::string first = fmt::format("{:.0f}", range.x0), last = fmt::format("{:.0f}", range.x1);
  const int64_t between = std::max<int64_t>(across - static_cast<int64_t>(first.size() + last.size()), 1);
  const std::string legend = validations.empty() ? "loss by step" : "loss by step, ● validation";
  const int64_t legend_columns = validations.empty() ? 12 : 26;
  const bool fits = legend_columns + 4 <= between;
  const std::string middle = fits ? fmt::format("{:{}}{}{:{}}", "", (between - legend_columns) / 2, legend, "",
                                                between - legend_columns - (between - legend_columns) / 2)
                                  : std::string(static_cast<size_t>(between), ' ');
  lines.push_back(std::string(static_cast<size_t>(kLabelColumns), ' ') + first + middle + last);
  return lines;
}

// At most `columns` characters of UTF-8, none of which is wider than one; control characters become '?'.
std::string cut(const std::string& line, int64_t columns) {
  std::string result;
  int64_t count = 0;
  for (const char c : line) {
    if ((c & 0xC0) != 0x80 && ++count > columns) break;
    result += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? '?' : c;
  }
  return result;
}

}  // namespace

std::string run_page(const SeenRun& run, const std::string& name, int64_t columns, int64_t rows) {
  std::vector<std::string> lines = {fmt::format("{}: {}", name, who_works(run))};
  if (run.life != RunLife::absent && run.life != RunLife::awaited) {
    lines.push_back(run.steps.empty() ? "no step is done yet" : progress(run, columns));
    if (!run.steps.empty()) lines.push_back(figures(run.steps.back()));
    if (!run.validations.empty()) lines.push_back(validation_line(run.validations));
    if (run.checkpoint) lines.push_back(fmt::format("checkpoint step-{}", *run.checkpoint));
  }
  for (const std::string& line : curve_lines(run, columns, rows - static_cast<int64_t>(lines.size())))
    lines.push_back(line);
  std::string page;
  for (size_t i = 0; i < lines.size() && static_cast<int64_t>(i) < rows; ++i)
    page += (i == 0 ? "" : "\n") + cut(lines[i], columns);
  return page;
}

std::string trouble_page(const std::string& name, const std::string& trouble, int64_t columns, int64_t rows) {
  std::string rest = cut(fmt::format("{}: {}", name, trouble), columns * rows), page;
  while (!rest.empty()) {
    const std::string line = cut(rest, columns);
    page += (page.empty() ? "" : "\n") + line;
    rest.erase(0, line.size());
  }
  return page;
}

OrderedJson run_json(const SeenRun& run, const std::string& name) {
  const auto finite = [](double value) { return std::isfinite(value) ? OrderedJson(value) : OrderedJson(); };
  const auto known = [](const auto& value) { return value ? OrderedJson(*value) : OrderedJson(); };
  OrderedJson j = {{"run", name},
                   {"state", word_of(run.life)},
                   {"host", run.host.empty() ? OrderedJson() : OrderedJson(run.host)},
                   {"pid", run.pid > 0 ? OrderedJson(run.pid) : OrderedJson()},
                   {"step", steps_done(run)},
                   {"total_steps", run.total_steps > 0 ? OrderedJson(run.total_steps) : OrderedJson()},
                   {"seconds_left", known(run.seconds_left())},
                   {"quiet_seconds", known(run.quiet_seconds)}};
  const SeenStep* const last = run.steps.empty() ? nullptr : &run.steps.back();
  const auto of_last = [&](double SeenStep::*field) { return last ? finite(last->*field) : OrderedJson(); };
  j["loss"] = of_last(&SeenStep::loss);
  j["grad_norm"] = of_last(&SeenStep::grad_norm);
  j["learning_rate"] = of_last(&SeenStep::learning_rate);
  j["tokens_per_second"] = of_last(&SeenStep::tokens_per_second);
  j["peak_bytes"] = last && last->peak_bytes > 0 ? OrderedJson(last->peak_bytes) : OrderedJson();
  j["validations"] = OrderedJson::array();
  for (const SeenValidation& v : run.validations)
    j["validations"].push_back({{"step", v.step}, {"validation_loss", finite(v.loss)}});
  j["checkpoint"] = run.checkpoint ? OrderedJson(fmt::format("step-{}", *run.checkpoint)) : OrderedJson();
  return j;
}

}  // namespace drover
