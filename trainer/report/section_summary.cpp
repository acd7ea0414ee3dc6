#include <cmath>

#include "trainer/report/number_text.h"
#include "trainer/report/sections.h"

namespace drover {

namespace {

Html tile(const std::string& name, const std::string& value, const std::string& more) {
  return Html::element("div", {{"class", "tile"}},
                       Html::element("span", {{"class", "name"}}, name) +
                           Html::element("span", {{"class", "value"}}, value) +
                           Html::element("span", {{"class", "more"}}, more));
}

std::string state_text(const RunRecord& run) {
  const double planned = run.planned_steps().value_or(kHole);
  std::string text = fmt::format("{} after step {}", word_of(run.state), run.metrics.last_step());
  if (planned > static_cast<double>(run.metrics.last_step())) text += fmt::format(" of {}", grouped(planned));
  if (run.state == RunState::ended_early && !run.checkpoints.empty())
    text += fmt::format("; the newest checkpoint is of step {}", run.checkpoints.back());
  return text;
}

Html tiles_of(const RunRecord& run, const RunSummary& s) {
  Html tiles = tile("loss", plain(s.last_loss), fmt::format("from {}", plain(s.first_loss)));
  if (std::isfinite(s.best_validation)) {
    tiles += tile("validation loss", plain(s.last_validation),
                  fmt::format("lowest {} after step {}", plain(s.best_validation), s.best_step));
  }
  tiles += tile("steps", grouped(static_cast<double>(s.steps)), word_of(run.state));
  tiles += tile("tokens", grouped(s.tokens), fmt::format("{} trained", percent_text(s.trained_tokens / s.tokens)));
  tiles += tile("time in steps", seconds_text(s.seconds), fmt::format("{} tokens/s", plain(s.tokens_per_second)));
  tiles += tile("memory", bytes_text(s.peak_bytes), "largest rank's peak");
  if (std::isfinite(s.change)) {
    const bool relative = std::isfinite(s.relative_change);
    tiles +=
        tile("‖ΔW‖ / ‖W‖", relative ? percent_text(s.relative_change) : "–", fmt::format("‖ΔW‖ {}", plain(s.change)));
  }
  return Html::element("div", {{"class", "tiles"}}, tiles);
}

Html facts_of(const RunRecord& run) {
  const auto word = [&](const char* key) { return run.recipe.word(key).value_or("–"); };
  const std::string text = fmt::format("{} · base {} · LoRA r {}, alpha {} · {} rows a step · {} · {}", state_text(run),
                                       word("model.path"), word("lora.r"), word("lora.alpha"),
                                       word("train.global_batch_size"), word("train.dtype"), run.path.string());
  return Html::element("p", {{"class", "facts"}}, text);
}

Html advice_list(const ReportedRun& run) {
  Html holding, others;
  for (const Advice& a : run.advice) {
    const Html rule = Html::element("span", {{"class", "rule-text"}}, a.rule);
    if (a.holds()) {
      holding += Html::element(
          "li", {},
          Html::element("strong", {}, a.suggestion) + Html::element("span", {{"class", "seen"}}, a.seen) + rule);
    } else {
      others += Html::element("li", {}, rule + Html::element("span", {{"class", "seen"}}, a.seen));
    }
  }
  Html html = holding.empty() ? paragraph("No rule holds: nothing here says what to change first.")
                              : Html::element("ul", {{"class", "advice"}}, holding);
  return html + Html::element("details", {},
                              Html::element("summary", {}, "Rules that do not hold") +
                                  Html::element("ul", {{"class", "advice"}}, others));
}

}  // namespace

Html summary_section(const Runs& runs) {
  Html html;
  for (const ReportedRun& run : runs)
    html += of_run(runs, run, facts_of(run.record) + tiles_of(run.record, run.summary));
  return Html::element("section", {{"id", "summary"}}, html);
}

Html advice_section(const Runs& runs) {
  Html html;
  for (const ReportedRun& run : runs) html += of_run(runs, run, advice_list(run));
  return section("next", "What to try next", html);
}

}  // namespace drover
