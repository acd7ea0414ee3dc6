#include <algorithm>
#include <cmath>

#include "trainer/report/line_chart.h"
#include "trainer/report/number_text.h"
#include "trainer/report/pictures.h"
#include "trainer/report/planned_peak.h"
#include "trainer/report/sections.h"

namespace drover {

namespace {

constexpr size_t kRanksDrawn = 16;
constexpr double kMib = 1 << 20, kGib = 1 << 30;

TableText rank_table(const RunRecord& run) {
  TableText table{
      .headings = {"rank", "weights", "adapter", "optimizer", "saved", "scratch", "arenas (bytes)", "process (bytes)"}};
  const auto exact = [](double bytes) { return std::isfinite(bytes) ? fmt::format("{:.0f}", bytes) : "–"; };
  const auto add = [&](const RankMemory& r, const char* what) {
    table.rows.push_back({fmt::format("{}, {}", r.rank, what), exact(r.weights), exact(r.adapter), exact(r.optimizer),
                          exact(r.saved), exact(r.scratch), exact(r.total), exact(r.process)});
  };
  for (const RankMemory& planned : run.plan->ranks) {
    add(planned, "planned");
    if (const RankMemory* reached = reached_by(run.reached, planned.rank)) add(*reached, "reached");
  }
  return table;
}

Stack stack_of(const RankMemory& r, const char* what, bool whole_process) {
  Stack stack{fmt::format("rank {}, {}", r.rank, what),
              {{"weights", r.weights},
               {"adapter", r.adapter},
               {"optimizer", r.optimizer},
               {"saved", r.saved},
               {"scratch", r.scratch}}};
  if (whole_process && r.rest() > 0) stack.parts.push_back({"the rest of the process", r.rest()});
  return stack;
}

// The fullest ranks of the plan, each with what it reached; of a run that does not say that, the most that one did.
Html planned_memory(const ReportedRun& run) {
  const PlanRecord& plan = *run.record.plan;
  std::vector<RankMemory> ranks = plan.ranks;
  std::ranges::stable_sort(ranks, std::greater(), &RankMemory::total);
  ranks.resize(std::min(ranks.size(), kRanksDrawn));
  std::ranges::sort(ranks, {}, &RankMemory::rank);
  const bool by_rank = !run.record.reached.empty(), whole_process = counts_processes(plan);
  StackChart chart{.title = by_rank ? "Memory planned for each rank, and what it reached"
                                    : "Memory planned for each rank, and the most that one reached",
                   .level_name = "most reached"};
  for (const RankMemory& planned : ranks) {
    chart.stacks.push_back(stack_of(planned, "planned", whole_process));
    if (const RankMemory* reached = reached_by(run.record.reached, planned.rank))
      chart.stacks.push_back(stack_of(*reached, "reached", whole_process));
  }
  const double most = reached_peak(plan, run.record.reached, run.summary.peak_bytes);
  if (!by_rank && std::isfinite(most)) chart.level = most;
  chart.description = fmt::format("Planned up to {}, reached {}.", bytes_text(planned_peak(plan)), bytes_text(most));
  const std::string of = plan.ranks.size() > ranks.size()
                             ? fmt::format(", the {} fullest of {} ranks", ranks.size(), plan.ranks.size())
                             : "";
  const Html drawn = picture(
      fmt::format("{}{}: {} planned on the fullest rank, {} reached ({})",
                  whole_process ? "Memory of a process" : "Memory of the arenas", of, bytes_text(planned_peak(plan)),
                  bytes_text(most), ratio_text(most, planned_peak(plan))),
      stack_chart(chart), details_table("The memory of every rank, in bytes", rank_table(run.record), "memory.csv"));
  return by_rank ? drawn : drawn + absent(run, Part::reached, "What each rank reached is");
}

Html reached_memory(const ReportedRun& run) {
  const std::vector<double> peaks = run.record.metrics.column(&StepRow::peak_bytes);
  if (counted(peaks) == 0) return note("No step says how much memory it took.");
  const bool large = run.summary.peak_bytes >= kGib;
  LineChart chart{.title = "Peak memory of the largest rank",
                  .y_name = large ? "peak memory (GiB)" : "peak memory (MiB)",
                  .from_zero = true,
                  .y_text = plain};
  chart.lines.push_back({"peak", binned(run.record.metrics.step_numbers(), peaks, kColumns), 0, Look::solid});
  for (Bin& bin : chart.lines.front().bins) {
    const double unit = large ? kGib : kMib;
    bin.min /= unit, bin.mean /= unit, bin.max /= unit;
  }
  chart.description = fmt::format("Up to {}.", bytes_text(run.summary.peak_bytes));
  TableText table{.headings = {"step", chart.y_name}};
  for (const Bin& bin : chart.lines.front().bins) table.rows.push_back({plain(bin.x), fmt::format("{:.6g}", bin.max)});
  return picture("Peak memory of the largest rank", line_chart(chart),
                 details_table("The numbers behind the picture", table, "memory.csv"));
}

Html timeline_of(const ReportedRun& run) {
  if (run.record.traces.empty()) return absent(run, Part::traces, "The timeline is");
  const TraceStep& last = run.record.traces.back();
  TableText spans{.headings = {"rank", "action", "begins (s)", "ends (s)"}};
  for (const TraceSpan& s : last.spans) {
    spans.rows.push_back(
        {std::to_string(s.rank), s.name, fmt::format("{:.6f}", s.begin), fmt::format("{:.6f}", s.end)});
  }
  Html html = picture(fmt::format("Step {} took {}; on average a rank computed nothing for {} of it", last.step,
                                  seconds_text(last.seconds), percent_text(last.idle())),
                      timeline(last), details_table("Every action", spans, "timeline.csv"));
  if (run.record.traces.size() > 1) {
    TableText steps{.headings = {"step", "took (s)", "idle"}};
    for (const TraceStep& trace : std::span(run.record.traces).first(run.record.traces.size() - 1))
      steps.rows.push_back(
          {std::to_string(trace.step), fmt::format("{:.6f}", trace.seconds), percent_text(trace.idle())});
    const size_t read = run.record.traces.size(), all = run.record.traced_steps.size();
    const std::string of = read < all ? fmt::format("; with the one above the last {} of {}", read, all) : "";
    html += details_table("Other traced steps" + of, steps, "traced-steps.csv");
  }
  const auto problem = run.record.absent.find(Part::traces);
  return problem == run.record.absent.end() ? html : html + note(fmt::format("Not read: {}.", problem->second));
}

struct PlanLine {
  std::string what;
  double planned, reached;
  std::string (*text)(double);
};

// Rates are named with the file that holds them behind, in parentheses: a place on one machine.
std::string without_path(const std::string& rates) {
  int open = 0;
  for (size_t at = rates.size(); at > 1 && rates.ends_with(")");) {
    open += rates[--at] == ')' ? 1 : rates[at] == '(' ? -1 : 0;
    if (open > 0) continue;
    return rates[at - 1] == ' ' && rates.find('/', at) != rates.npos ? rates.substr(0, at - 1) : rates;
  }
  return rates;
}

Html plan_table(const ReportedRun& run) {
  const PlanRecord& plan = *run.record.plan;
  const RunSummary& s = run.summary;
  const double arenas = plan.fullest() == nullptr ? kHole : plan.fullest()->total;
  const double reached = reached_peak(plan, run.record.reached, s.peak_bytes);
  const bool in_all = counts_processes(plan);
  double reached_arenas = in_all ? kHole : reached;
  for (const RankMemory& rank : run.record.reached) reached_arenas = std::fmax(reached_arenas, rank.total);
  const PlannedTime& t = plan.time;
  TableText table{.headings = {"", "planned", "reached", "reached / planned"}};
  for (const PlanLine& line :
       {PlanLine{"arenas of the fullest rank", arenas, reached_arenas, bytes_text},
        PlanLine{"its process", plan.process_bytes, in_all ? reached : kHole, bytes_text},
        PlanLine{"a step (median)", t.step_seconds, s.step_seconds, seconds_text},
        PlanLine{"tokens per second (median)", t.tokens_per_second, s.tokens_per_second, plain},
        PlanLine{s.steps == 1 ? "the step that was done" : fmt::format("the {} steps that were done", s.steps),
                 t.step_seconds * static_cast<double>(s.steps), s.seconds, seconds_text},
        PlanLine{"the run, with what is between its steps", t.run_seconds, kHole, seconds_text},
        PlanLine{"waiting for other stages, of the pipeline's time", t.bubble, kHole, percent_text},
        PlanLine{"share of the peak FLOP/s", t.mfu, kHole, percent_text},
        PlanLine{"waiting for messages in a step", t.exposed_communication_seconds, kHole, seconds_text}}) {
    if (!std::isfinite(line.planned)) continue;
    table.rows.push_back(
        {line.what, line.text(line.planned), line.text(line.reached), ratio_text(line.reached, line.planned)});
  }
  Html html = drover::table(table);
  if (!std::isfinite(t.step_seconds)) return html + note("The plan states no time.");
  const std::string rates = without_path(t.rates);
  return html + note(fmt::format("Times are planned from {}.", rates.empty() ? "rates that it does not name" : rates));
}

}  // namespace

Html memory_section(const Runs& runs) {
  Html html;
  for (const ReportedRun& run : runs) {
    const bool planned = run.record.plan && run.record.plan->fullest() != nullptr;
    html +=
        of_run(runs, run,
               planned ? planned_memory(run) : reached_memory(run) + absent(run, Part::plan, "What was planned is"));
  }
  return section("memory", "Memory", html);
}

Html timeline_section(const Runs& runs) {
  Html html;
  for (const ReportedRun& run : runs) html += of_run(runs, run, timeline_of(run));
  return section("timeline", "A step's timeline", html);
}

Html plan_section(const Runs& runs) {
  Html html;
  for (const ReportedRun& run : runs)
    html += of_run(runs, run, run.record.plan ? plan_table(run) : absent(run, Part::plan, "The comparison is"));
  return section("plan", "Plan against run", html);
}

}  // namespace drover
