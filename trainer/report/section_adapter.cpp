#include <algorithm>
#include <cmath>

#include "trainer/report/number_text.h"
#include "trainer/report/pictures.h"
#include "trainer/report/sections.h"

namespace drover {

namespace {

Html change_of(const ReportedRun& run) {
  if (!run.record.change) return absent(run, Part::change, "The adapter's size is");
  const AdapterChange& change = *run.record.change;
  const bool relative = change.without_base.empty();
  TableText table{.headings = {"linear", "‖ΔW‖", "‖W‖", "‖ΔW‖ / ‖W‖"}};
  const auto exact = [](double value) { return std::isfinite(value) ? fmt::format("{:.6g}", value) : ""; };
  for (const LinearChange& l : change.linears)
    table.rows.push_back({l.path, exact(l.change), exact(l.base), exact(l.relative())});
  const std::string what = relative ? "‖ΔW‖ / ‖W‖ of every linear: how far the adapter moves it"
                                    : "‖ΔW‖ of every linear: how far the adapter moves it";
  Html html =
      picture(what, heat_map(change, what), details_table("The numbers behind the picture", table, "change.csv"));
  if (!relative) html += note(fmt::format("‖W‖ is left out: {}.", change.without_base));
  return html;
}

std::string what_of(const std::string& part) {
  if (part == "reloaded") return "the training engine, with the adapter's files read back";
  if (part == "served") return "serving, with these files";
  if (part == "merged") return "serving, merged into the base's number types";
  return part;
}

Html proof_of(const ReportedRun& run) {
  if (!run.record.proof) return absent(run, Part::proof, "The proof is");
  const ProofRecord& proof = *run.record.proof;
  TableText table{.headings = {"computed by", "mean ln p", "‖Δ‖ / ‖ln p‖", "largest |Δ| of a token"}};
  const auto exact = [](double value) { return std::isfinite(value) ? fmt::format("{:.6g}", value) : "–"; };
  if (std::isfinite(proof.trained_logprob))
    table.rows.push_back({"the engine that trained", exact(proof.trained_logprob), "", ""});
  for (const ProofPart& part : proof.parts)
    table.rows.push_back({what_of(part.name), exact(part.logprob), exact(part.distance), exact(part.largest)});
  Html html =
      paragraph(fmt::format("ln p of {} trained tokens of the {} data after step {}, in {} with files in {}: what "
                            "answers, against what trained.",
                            grouped(proof.tokens), proof.rows, proof.step, proof.dtype, proof.adapter_dtype));
  html += drover::table(table);
  for (const auto& [part, why] : proof.why) html += note(fmt::format("Not compared, {}: {}.", part, why));
  return html;
}

Html own_settings(const RecipeRecord& recipe) {
  TableText table{.headings = {"key", "value", "from"}, .look = TableLook::texts};
  for (const RecipeKey& key : recipe.keys) {
    if (key.origin != "default") table.rows.push_back({key.key, key.value, key.origin});
  }
  if (!recipe.is_there()) return note("There is no recipe.yaml.");
  return table.rows.empty() ? note("Every key has its default.") : drover::table(table);
}

Html differences(const Runs& runs) {
  TableText table{.headings = {"key"}, .look = TableLook::texts};
  std::vector<const RecipeRecord*> recipes;
  for (const ReportedRun& run : runs) {
    table.headings.push_back(run.record.name);
    recipes.push_back(&run.record.recipe);
  }
  if (std::ranges::any_of(recipes, [](const RecipeRecord* r) { return !r->is_there(); }))
    return note("The recipes are not compared: a run has no recipe.yaml.");
  for (const RecipeDifference& difference : recipe_differences(recipes)) {
    table.rows.push_back({difference.key});
    table.rows.back().insert(table.rows.back().end(), difference.values.begin(), difference.values.end());
  }
  if (table.rows.empty()) return paragraph("The recipes differ in output.dir at most.");
  return paragraph("Keys whose values differ:") + drover::table(table);
}

}  // namespace

Html change_section(const Runs& runs) {
  Html html;
  for (const ReportedRun& run : runs) html += of_run(runs, run, change_of(run));
  return section("change", "What the adapter changes", html);
}

Html proof_section(const Runs& runs) {
  Html html;
  for (const ReportedRun& run : runs) html += of_run(runs, run, proof_of(run));
  return section("proof", "Does it answer as it was trained?", html);
}

Html recipe_section(const Runs& runs) {
  Html html = runs.size() > 1 ? differences(runs) : Html();
  for (const ReportedRun& run : runs) {
    Html all = runs.size() == 1 ? own_settings(run.record.recipe) : Html();
    all += Html::element("details", {},
                         Html::element("summary", {}, "The whole recipe, with where each value came from") +
                             Html::element("pre", {}, run.record.recipe.text));
    html += of_run(runs, run, all);
  }
  return section("recipe", "Recipe", html);
}

}  // namespace drover
