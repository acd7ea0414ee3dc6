#include <cmath>

#include "trainer/report/number_text.h"
#include "trainer/report/planned_peak.h"
#include "trainer/report/report_text.h"
#include "trainer/report/series_math.h"

namespace drover {

namespace {

constexpr size_t kNameColumns = 24, kValueColumns = 17, kSpark = 30, kMostKeys = 16;

// In columns, not bytes: our texts and most names have one column a character.
std::string padded(const std::string& text, size_t columns) {
  size_t used = 0;
  for (const char c : text) used += (static_cast<unsigned char>(c) & 0xc0) == 0x80 ? 0 : 1;
  return text + std::string(used < columns ? columns - used : 1, ' ');
}

std::string row(const std::string& name, const std::string& a, const std::string& b, const std::string& more) {
  const std::string line = padded(name, kNameColumns) + padded(a, kValueColumns) + padded(b, kValueColumns) + more;
  return line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
}

std::string figure(const std::string& name, double a, double b, std::string (*text)(double)) {
  if (!std::isfinite(a) && !std::isfinite(b)) return "";
  return row(name, text(a), text(b), ratio_text(b, a));
}

double planned(const RunRecord& run) { return run.plan ? planned_peak(*run.plan) : kHole; }

std::string figures(const ReportedRun& a, const ReportedRun& b) {
  const RunSummary &s = a.summary, &t = b.summary;
  return figure("steps", static_cast<double>(s.steps), static_cast<double>(t.steps), grouped) +
         figure("loss at the end", s.last_loss, t.last_loss, plain) +
         figure("lowest validation loss", s.best_validation, t.best_validation, plain) +
         figure("last validation loss", s.last_validation, t.last_validation, plain) +
         figure("highest learning rate", s.learning_rate, t.learning_rate, plain) +
         figure("steps clipped", s.clipped, t.clipped, percent_text) + figure("tokens", s.tokens, t.tokens, grouped) +
         figure("time in steps", s.seconds, t.seconds, seconds_text) +
         figure("tokens/s", s.tokens_per_second, t.tokens_per_second, plain) +
         figure("peak memory", s.peak_bytes, t.peak_bytes, bytes_text) +
         figure("planned memory", planned(a.record), planned(b.record), bytes_text) +
         figure("‖ΔW‖", s.change, t.change, plain) +
         figure("‖ΔW‖ / ‖W‖", s.relative_change, t.relative_change, percent_text);
}

std::string losses(const ReportedRun& a, const ReportedRun& b) {
  const auto line = [](const ReportedRun& run) { return sparkline(run.record.metrics.column(&StepRow::loss), kSpark); };
  return fmt::format("loss, each from its least to its most\n  {}\n  {}\n", line(a), line(b));
}

std::string keys(const ReportedRun& a, const ReportedRun& b) {
  if (const std::string why = recipe_lacking(a.record, b.record); !why.empty())
    return fmt::format("the recipes are not compared: {}\n", why);
  const std::vector<RecipeDifference> all = recipe_differences({&a.record.recipe, &b.record.recipe});
  if (all.empty()) return "the recipes differ in output.dir at most\n";
  std::string text = "keys of the recipe that differ\n";
  for (size_t i = 0; i < std::min(all.size(), kMostKeys); ++i) {
    text += "  " + row(all[i].key, clipped(all[i].values[0], kValueColumns - 4), clipped(all[i].values[1], 28), "");
  }
  if (all.size() > kMostKeys) text += fmt::format("  and {} more (drover report shows all)\n", all.size() - kMostKeys);
  return text;
}

std::string verdict(const ReportedRun& a, const ReportedRun& b) {
  const double s = a.summary.best_validation, t = b.summary.best_validation;
  if (!std::isfinite(s) || !std::isfinite(t))
    return "Not both have a validation loss, so that neither is the better.\n";
  if (!a.record.recipe.is_there() || !b.record.recipe.is_there())
    return "Without a recipe.yaml of both it is not known whether they validate on the same data.\n";
  const bool same_data = a.record.recipe.word("data.validation") == b.record.recipe.word("data.validation");
  if (!same_data) return "Their validation data differ, so that their losses cannot be compared.\n";
  if (s == t) return "Their lowest validation losses are equal.\n";
  const double lower = std::min(s, t), higher = std::max(s, t);
  return fmt::format("{} has the lower validation loss, by {}.\n", s < t ? a.record.name : b.record.name,
                     percent_text(1 - lower / higher));
}

}  // namespace

std::string recipe_lacking(const RunRecord& a, const RunRecord& b) {
  const bool first = a.recipe.is_there(), second = b.recipe.is_there();
  if (first && second) return "";
  if (!first && !second) return "neither run has a recipe.yaml";
  return first ? "the second run has no recipe.yaml" : "the first run has no recipe.yaml";
}

std::string comparison_text(const ReportedRun& a, const ReportedRun& b) {
  std::string text =
      row("", clipped(a.record.name, kValueColumns - 4), clipped(b.record.name, kValueColumns - 4), "second / first");
  text += row("state", word_of(a.record.state), word_of(b.record.state), "");
  return text + figures(a, b) + "\n" + losses(a, b) + "\n" + keys(a, b) + "\n" + verdict(a, b);
}

}  // namespace drover
