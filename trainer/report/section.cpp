#include "trainer/report/sections.h"

namespace drover {

Html section(const std::string& id, const std::string& heading, const Html& content) {
  return Html::element("section", {{"id", id}}, Html::element("h2", {}, heading) + content);
}

Html paragraph(const std::string& text) { return Html::element("p", {}, text); }
Html note(const std::string& text) { return Html::element("p", {{"class", "note"}}, text); }

Html picture(const std::string& caption, const Html& drawing, const Html& numbers) {
  return Html::element("figure", {}, Html::element("figcaption", {}, caption) + drawing + numbers);
}

Html of_run(const Runs& runs, const ReportedRun& run, const Html& content) {
  return runs.size() == 1 ? content : Html::element("h3", {}, run.record.name) + content;
}

Html absent(const ReportedRun& run, Part part, const std::string& what) {
  const auto found = run.record.absent.find(part);
  return note(fmt::format("{} left out: {}.", what, found == run.record.absent.end() ? "it is empty" : found->second));
}

std::string name_in(const Runs& runs, const ReportedRun& run, const std::string& what) {
  return runs.size() == 1 ? what : run.record.name + ": " + what;
}

}  // namespace drover
