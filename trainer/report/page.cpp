#include "trainer/report/page.h"

#include "trainer/report/sections.h"

namespace drover {

extern const char* const kReportStyle;  // page.css, by CMakeLists.txt

namespace {

// Nothing may be loaded and nothing may run, whatever a run's files hold.
constexpr const char* kPolicy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

std::string names_of(const Runs& runs) {
  std::vector<std::string> names;
  for (const ReportedRun& run : runs) names.push_back(run.record.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

Html head_of(const std::string& title) {
  return Html::element("meta", {{"charset", "utf-8"}}) +
         Html::element("meta", {{"http-equiv", "Content-Security-Policy"}, {"content", kPolicy}}) +
         Html::element("meta", {{"name", "viewport"}, {"content", "width=device-width, initial-scale=1"}}) +
         Html::element("meta", {{"name", "color-scheme"}, {"content", "light dark"}}) +
         Html::element("title", {}, title) + Html::style(kReportStyle);
}

Html contents() {
  Html links;
  for (const auto& [id, name] :
       {std::pair("next", "Next"), std::pair("loss", "Loss"), std::pair("optimizer", "Optimizer"),
        std::pair("speed", "Speed"), std::pair("memory", "Memory"), std::pair("timeline", "Timeline"),
        std::pair("plan", "Plan"), std::pair("data", "Data"), std::pair("samples", "Samples"),
        std::pair("change", "Adapter"), std::pair("proof", "Proof"), std::pair("recipe", "Recipe")})
    links += Html::element("a", {{"href", fmt::format("#{}", id)}}, name) + Html::text(" ");
  return Html::element("nav", {{"aria-label", "Sections"}}, links);
}

}  // namespace

ReportedRun reported(RunRecord record) {
  ReportedRun run{.record = std::move(record)};
  run.summary = summary_of(run.record);
  run.advice = advice_of(run.record, run.summary);
  return run;
}

std::string report_page(const std::vector<ReportedRun>& runs) {
  const std::string title = names_of(runs);
  Html body = Html::element("header", {}, Html::element("h1", {}, title) + contents());
  Html sections;
  for (const auto& make :
       {summary_section, advice_section, loss_section, optimizer_section, speed_section, memory_section,
        timeline_section, plan_section, data_section, samples_section, change_section, proof_section, recipe_section})
    sections += make(runs);
  body += Html::element("main", {}, sections);
  body += Html::element("footer", {}, note("Written by drover report. This file needs nothing else."));
  return Html::document(head_of(title + " – Drover"), body).string();
}

}  // namespace drover
