#include <cmath>

#include "trainer/report/line_chart.h"
#include "trainer/report/number_text.h"
#include "trainer/report/sections.h"

namespace drover {

namespace {

std::string exact(double value) { return std::isfinite(value) ? fmt::format("{:.6g}", value) : ""; }

std::vector<Bin> bins_of(const RunRecord& run, double StepRow::*field) {
  const std::vector<double> x = run.metrics.step_numbers();
  return x.empty() ? std::vector<Bin>() : binned(x, run.metrics.column(field), kColumns);
}

std::vector<Bin> smoothed_bins(const RunRecord& run, double StepRow::*field, double window) {
  const std::vector<double> x = run.metrics.step_numbers();
  return x.empty() ? std::vector<Bin>() : binned(x, smoothed(run.metrics.column(field), window), kColumns);
}

std::vector<Bin> validation_bins(const RunRecord& run) {
  std::vector<double> x, y;
  for (const ValidationRow& row : run.metrics.validations) {
    x.push_back(static_cast<double>(row.step));
    y.push_back(row.loss);
  }
  return x.empty() ? std::vector<Bin>() : binned(x, y, kColumns);
}

// The lines of a chart as a table: what is drawn, bin by bin.
Html numbers_of(const LineChart& chart, const std::string& file) {
  TableText table{.headings = {"line", "step", "mean", "least", "most", "values"}};
  for (const ChartLine& line : chart.lines) {
    for (const Bin& bin : line.bins) {
      table.rows.push_back(
          {line.name, exact(bin.x), exact(bin.mean), exact(bin.min), exact(bin.max), std::to_string(bin.count)});
    }
  }
  return details_table("The numbers behind the picture", table, file);
}

Html chart_figure(const std::string& caption, const LineChart& chart, const std::string& file) {
  bool any = false;
  for (const ChartLine& line : chart.lines) any = any || !line.bins.empty();
  if (!any) return note(caption + ": no step has it.");
  return picture(caption, line_chart(chart), numbers_of(chart, file));
}

LineChart one_line_each(const Runs& runs, double StepRow::*field, const std::string& what) {
  LineChart chart{.title = what, .y_name = what, .y_text = plain};
  for (size_t i = 0; i < runs.size(); ++i)
    chart.lines.push_back({name_in(runs, runs[i], what), bins_of(runs[i].record, field), i, Look::solid});
  return chart;
}

Html gradient_figure(const Runs& runs) {
  LineChart chart = one_line_each(runs, &StepRow::grad_norm, "gradient norm");
  chart.logarithmic = true;
  std::string clips;
  if (runs.size() == 1) chart.lines.front().look = Look::cloud;
  double ruled = 0;
  for (const ReportedRun& run : runs) {
    const RunSummary& s = run.summary;
    if (!std::isfinite(s.clipped)) continue;
    if (s.max_grad_norm != ruled)
      chart.rules.push_back({s.max_grad_norm, fmt::format("clipped above {}", plain(s.max_grad_norm))});
    ruled = s.max_grad_norm;
    clips += fmt::format(" {} of the steps{} were clipped at {}.", percent_text(s.clipped),
                         runs.size() > 1 ? " of " + run.record.name : "", plain(s.max_grad_norm));
  }
  chart.description = "Gradient norm before clipping." + clips;
  return chart_figure("Gradient norm before clipping." + clips, chart, "gradient-norm.csv");
}

Html stall_table(const ReportedRun& run) {
  constexpr size_t kNamed = 200, kShown = 20;  // few are shown on paper too
  const std::vector<Stall>& stalls = run.summary.stalls;
  if (stalls.empty())
    return note(fmt::format("No step took more than {:g} times its neighbours' median.", kStallFactor));
  TableText table{.headings = {"", "step", "took", "usual", "what came before"}, .look = TableLook::texts};
  for (size_t i = 0; i < std::min(kNamed, stalls.size()); ++i) {
    const Stall& s = stalls[i];
    table.rows.push_back(
        {std::to_string(i + 1), std::to_string(s.step), seconds_text(s.seconds), seconds_text(s.usual), s.cause});
  }
  const std::string more = stalls.size() > kNamed ? fmt::format(", the first {} of {}", kNamed, stalls.size()) : "";
  const std::string heading = fmt::format("Stalls: {}{}; steps over {:g} times their neighbours' median, {} lost",
                                          stalls.size(), more, kStallFactor, seconds_text(run.summary.lost_seconds));
  if (stalls.size() <= kShown) return paragraph(heading) + drover::table(table);
  return details_table(heading, table, "stalls.csv");
}

// Numbered in the picture while there are few.
void mark_stalls(const ReportedRun& run, LineChart& chart) {
  constexpr size_t kMarked = 20;
  const std::vector<Stall>& stalls = run.summary.stalls;
  for (size_t i = 0; i < stalls.size() && stalls.size() <= kMarked; ++i) {
    for (const StepRow& row : run.record.metrics.steps) {
      if (row.step != stalls[i].step || !std::isfinite(row.tokens_per_second)) continue;
      chart.marks.push_back({static_cast<double>(row.step), row.tokens_per_second, std::to_string(i + 1),
                             fmt::format("step {} took {}, usual is {}: {}", row.step, seconds_text(stalls[i].seconds),
                                         seconds_text(stalls[i].usual), stalls[i].cause)});
    }
  }
}

}  // namespace

Html loss_section(const Runs& runs) {
  LineChart chart{.title = "Loss over steps", .y_name = "loss (nats per trained token)", .y_text = plain};
  for (size_t i = 0; i < runs.size(); ++i) {
    const RunRecord& run = runs[i].record;
    const double window = runs[i].summary.smoothing;
    if (runs.size() == 1) chart.lines.push_back({"each step", bins_of(run, &StepRow::loss), kQuietStyle, Look::cloud});
    const bool smooth = window >= 2;
    if (smooth || runs.size() > 1) {
      const std::string what = smooth ? fmt::format("mean of about {:.0f} steps", window) : "each step";
      chart.lines.push_back(
          {name_in(runs, runs[i], what), smoothed_bins(run, &StepRow::loss, smooth ? window : 1), i, Look::solid});
    }
    if (!run.metrics.validations.empty()) {
      const size_t style = runs.size() == 1 ? 1 : i;
      chart.lines.push_back({name_in(runs, runs[i], "validation"), validation_bins(run), style, Look::markers});
    }
  }
  const RunSummary& s = runs.front().summary;
  chart.description = fmt::format("From {} to {}; lowest validation loss {}.", plain(s.first_loss), plain(s.last_loss),
                                  plain(s.best_validation));
  Html html = chart_figure("Training loss and validation loss", chart, "loss.csv");
  for (const ReportedRun& run : runs) {
    if (run.record.metrics.unread_lines > 0) {
      const int64_t lines = run.record.metrics.unread_lines;
      html += note(fmt::format("{}: {} of metrics.jsonl could not be read and {} left out.", run.record.name,
                               lines == 1 ? "1 line" : fmt::format("{} lines", lines), lines == 1 ? "is" : "are"));
    }
  }
  return section("loss", "Loss", html);
}

Html optimizer_section(const Runs& runs) {
  LineChart rate = one_line_each(runs, &StepRow::learning_rate, "learning rate");
  rate.from_zero = true;
  rate.description = fmt::format("Up to {}.", plain(runs.front().summary.learning_rate));
  return section("optimizer", "Learning rate and gradients",
                 chart_figure("Learning rate of every step", rate, "learning-rate.csv") + gradient_figure(runs));
}

Html speed_section(const Runs& runs) {
  LineChart chart = one_line_each(runs, &StepRow::tokens_per_second, "tokens per second");
  chart.from_zero = true;
  chart.description = fmt::format("Median {} tokens per second.", plain(runs.front().summary.tokens_per_second));
  if (runs.size() == 1) mark_stalls(runs.front(), chart);
  Html html = chart_figure("Tokens per second, of all ranks together", chart, "speed.csv");
  for (const ReportedRun& run : runs) html += of_run(runs, run, stall_table(run));
  return section("speed", "Speed", html);
}

}  // namespace drover
