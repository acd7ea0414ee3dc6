#include "trainer/report/report_text.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "trainer/report/number_text.h"
#include "trainer/report/planned_peak.h"
#include "trainer/report/series_math.h"

namespace drover {

namespace {

constexpr size_t kSpark = 48;

std::string heading(const std::string& text) { return fmt::format("\n{}\n", text); }

// What a terminal may be given of a stranger's text.
std::string one_line(const std::string& text, size_t bytes) {
  std::string line = text;
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return clipped(line, bytes);
}

std::string wrapped(const std::string& text, const std::string& indent) {
  std::string result, line = indent;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    const std::string word = text.substr(at, end - at);
    if (line.size() + word.size() + 1 > kTextColumns && line.size() > indent.size()) {
      result += line + "\n";
      line = std::string(indent.size(), ' ');
    }
    line += (line.size() > indent.size() ? " " : "") + word;
    at = end + 1;
  }
  return result + line + "\n";
}

std::string series_line(const char* name, std::span<const double> y, std::string (*text)(double)) {
  if (counted(y) == 0) return "";
  return fmt::format("  {:<14} {}\n  {:<14} {} → {}   least {}, most {}\n", name, sparkline(y, kSpark), "",
                     text(first_of(y)), text(last_of(y)), text(least_of(y)), text(most_of(y)));
}

std::string series_of(const ReportedRun& run) {
  const MetricsSeries& m = run.record.metrics;
  std::vector<double> validation;
  for (const ValidationRow& row : m.validations) validation.push_back(row.loss);
  return series_line("loss", m.column(&StepRow::loss), plain) + series_line("validation", validation, plain) +
         series_line("learning rate", m.column(&StepRow::learning_rate), plain) +
         series_line("gradient norm", m.column(&StepRow::grad_norm), plain) +
         series_line("tokens/s", m.column(&StepRow::tokens_per_second), plain) +
         series_line("peak memory", m.column(&StepRow::peak_bytes), bytes_text);
}

std::string stalls_text(const RunSummary& s) {
  constexpr size_t kShown = 5;
  std::string text;
  for (size_t i = 0; i < std::min(kShown, s.stalls.size()); ++i) {
    const Stall& stall = s.stalls[i];
    text += wrapped(fmt::format("step {}: {} (usual {}), {}", stall.step, seconds_text(stall.seconds),
                                seconds_text(stall.usual), stall.cause),
                    "  stall ");
  }
  if (const size_t more = s.stalls.size() - std::min(kShown, s.stalls.size()); more > 0)
    text += fmt::format("  and {} more stall{}\n", more, more == 1 ? "" : "s");
  return text;
}

std::string memory_text(const RunRecord& run, double peak_in_steps) {
  constexpr size_t kShown = 8;
  const PlanRecord& plan = *run.plan;
  std::string text = fmt::format("  planned {}, reached {}\n", bytes_text(planned_peak(plan)),
                                 bytes_text(reached_peak(plan, run.reached, peak_in_steps)));
  if (run.reached.empty() || plan.ranks.size() == 1) return text;
  for (const RankMemory& planned : std::span(plan.ranks).first(std::min(kShown, plan.ranks.size()))) {
    const RankMemory* reached = reached_by(run.reached, planned.rank);
    const double here = peak_of(planned, plan), there = reached == nullptr ? kHole : peak_of(*reached, plan);
    text += fmt::format("  rank {:<9} planned {}, reached {} ({})\n", planned.rank, bytes_text(here), bytes_text(there),
                        ratio_text(there, here));
  }
  if (plan.ranks.size() > kShown) text += fmt::format("  and {} more ranks\n", plan.ranks.size() - kShown);
  return text;
}

// Layers down, modules across, a shade each.
std::string change_text(const AdapterChange& change) {
  static constexpr std::array kShades = {"·", "░", "▒", "▓", "█"};
  constexpr int64_t kMostLayers = 32;
  const bool relative = change.without_base.empty();
  double most = 0;
  for (const LinearChange& l : change.linears) most = std::max(most, relative ? l.relative() : l.change);
  const int64_t together = (change.layers() + kMostLayers - 1) / kMostLayers;
  std::string text = fmt::format("  █ is {}; columns are layers{}\n", relative ? percent_text(most) : plain(most),
                                 together > 1 ? fmt::format(", {} to a column, the largest", together) : "");
  for (const std::string& module : change.modules()) {
    std::vector<double> shades(
        static_cast<size_t>((change.layers() + std::max<int64_t>(1, together) - 1) / std::max<int64_t>(1, together)));
    for (const LinearChange& l : change.linears) {
      if (l.module != module || l.layer < 0) continue;
      double& shade = shades[static_cast<size_t>(l.layer / together)];
      shade = std::max(shade, relative ? l.relative() : l.change);
    }
    text += fmt::format("  {:<12} ", module);
    for (const double shade : shades) {
      const double part = most > 0 ? shade / most : 0;
      text += kShades[static_cast<size_t>(std::clamp(part * kShades.size(), 0.0, kShades.size() - 1.0))];
    }
    text += "\n";
  }
  return text;
}

std::string advice_text(const ReportedRun& run) {
  std::string text;
  for (const Advice& a : run.advice) {
    if (a.holds()) text += wrapped(a.suggestion, "  * ") + wrapped(a.seen, "    ");
  }
  return text.empty() ? "  no rule holds\n" : text;
}

std::string samples_text(const RunRecord& run) {
  constexpr size_t kShown = 3, kBytes = 62;
  if (run.answers.size() < 2) return "";
  std::string text = heading(fmt::format("samples after step {} and {}", run.answers[0].step, run.answers[1].step));
  size_t shown = 0;
  for (const BeforeAfter& row : before_and_after(run.answers[0], run.answers[1])) {
    if (shown++ == kShown) break;
    text += fmt::format("  prompt  {}\n  before  {}\n  after   {}\n", one_line(row.prompt, kBytes),
                        one_line(row.before, kBytes), one_line(row.after, kBytes));
  }
  return text;
}

std::string proof_text(const ProofRecord& proof) {
  std::string text;
  for (const ProofPart& part : proof.parts)
    text += fmt::format("  {:<10} ln p off by {} (of a token by up to {})\n", part.name, plain(part.distance),
                        plain(part.largest));
  return text;
}

}  // namespace

std::string report_text(const ReportedRun& run) {
  const RunRecord& r = run.record;
  const RunSummary& s = run.summary;
  std::string text = fmt::format("{}: {} after step {}\n", one_line(r.name, 60), word_of(r.state), s.steps);
  text += fmt::format("  {} tokens ({} trained) in {}; median step {}, {} tokens/s\n", grouped(s.tokens),
                      percent_text(s.trained_tokens / s.tokens), seconds_text(s.seconds), seconds_text(s.step_seconds),
                      plain(s.tokens_per_second));
  text += heading("over the steps") + series_of(run) + stalls_text(s);
  if (r.plan && r.plan->fullest() != nullptr) text += heading("memory") + memory_text(r, s.peak_bytes);
  if (r.lengths && r.lengths->documents > 0) {
    std::vector<double> counts;
    for (const LengthBin& bin : r.lengths->lengths) counts.push_back(static_cast<double>(bin.documents));
    text += heading("data") + fmt::format("  {} documents of {} to {} tokens{}; rows are {} full\n  {:<14} {}\n",
                                          r.lengths->documents, r.lengths->shortest, r.lengths->longest,
                                          r.lengths->max_length > 0 ? fmt::format(", {} cut", r.lengths->cut) : "",
                                          percent_text(r.lengths->filled), "lengths", sparkline(counts, kSpark));
  }
  if (!r.traces.empty()) {
    text += heading("pipeline") + fmt::format("  step {}: {} ranks, idle for {}\n", r.traces.back().step,
                                              r.traces.back().ranks.size(), percent_text(r.traces.back().idle()));
  }
  if (r.change && !r.change->linears.empty())
    text += heading(r.change->without_base.empty() ? "adapter, ‖ΔW‖ / ‖W‖" : "adapter, ‖ΔW‖") + change_text(*r.change);
  if (r.proof && !r.proof->parts.empty()) text += heading("answers as it was trained") + proof_text(*r.proof);
  return text + samples_text(r) + heading("what to try next") + advice_text(run);
}

}  // namespace drover
