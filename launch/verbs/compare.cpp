// drover compare: two runs on one screen.
#include <iostream>

#include "launch/verbs/verb.h"
#include "trainer/report/report_numbers.h"
#include "trainer/report/report_text.h"

namespace drover {

namespace {

struct Arguments {
  std::string first, second;
  bool json = false;
};

OrderedJson comparison_json(const ReportedRun& a, const ReportedRun& b) {
  OrderedJson json = {{"first", summary_json(a)}, {"second", summary_json(b)}};
  if (const std::string why = recipe_lacking(a.record, b.record); !why.empty()) {
    json["recipe"] = nullptr;
    json["recipe_lacking"] = why;
    return json;
  }
  json["recipe"] = OrderedJson::array();
  for (const RecipeDifference& d : recipe_differences({&a.record.recipe, &b.record.recipe}))
    json["recipe"].push_back({{"key", d.key}, {"first", d.values[0]}, {"second", d.values[1]}});
  return json;
}

Exit run(const Arguments& a) {
  std::vector<RunRecord> records = read_runs({a.first, a.second}, BaseNorms::where_quick);
  const ReportedRun first = reported(std::move(records[0])), second = reported(std::move(records[1]));
  if (a.json) {
    std::cout << comparison_json(first, second).dump(1, ' ', false, OrderedJson::error_handler_t::replace) << '\n';
  } else {
    std::cout << comparison_text(first, second);
  }
  return Exit::done;
}

}  // namespace

Verb compare_verb(CLI::App& app) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* options = app.add_subcommand("compare", "the difference between two runs, on one screen");
  options->add_option("first", a->first, "the directory of a run (output.dir)")->required();
  options->add_option("second", a->second, "and of another")->required();
  options->add_flag("--json", a->json, "print the result as JSON");
  options->footer("example: drover compare runs/handbook runs/handbook-higher-rate");
  return {.options = options, .run = [a](const Process&) { return run(*a); }};
}

}  // namespace drover
