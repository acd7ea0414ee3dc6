// drover report: what runs did, as one HTML page, as text for a terminal, or as numbers.
#include <iostream>

#include "kernels/base/log.h"
#include "launch/verbs/verb.h"
#include "trainer/report/report_numbers.h"
#include "trainer/report/report_text.h"

namespace drover {

namespace {

struct Arguments {
  std::vector<std::string> runs;
  std::string out;
  BaseNorms norms = BaseNorms::where_quick;
  bool ascii = false, json = false;
};

Exit run(const Arguments& a) {
  if (a.runs.size() > kMostRuns)
    fail(Fault::usage, "a report is of at most {} runs, and {} are given", kMostRuns, a.runs.size());
  std::vector<ReportedRun> runs;
  for (const std::string& path : a.runs) runs.push_back(reported(read_run(path, a.norms)));
  if (a.json) {
    std::cout << report_numbers(runs).dump(1, ' ', false, OrderedJson::error_handler_t::replace) << '\n';
  } else if (a.ascii) {
    for (const ReportedRun& one : runs) std::cout << report_text(one) << (runs.size() > 1 ? "\n" : "");
  } else {
    const fs::path out = a.out.empty() ? fs::path(a.runs.front()) / "report.html" : fs::path(a.out);
    write_text(out, report_page(runs));
    std::cout << out.string() << '\n';
  }
  return Exit::done;
}

}  // namespace

Verb report_verb(CLI::App& app) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* options = app.add_subcommand("report", "what runs did: a page of pictures, text or numbers");
  options->add_option("runs", a->runs, "directories of runs (output.dir); several are drawn into one page")->required();
  const auto out = options->add_option("--out", a->out, "the page's file (default: report.html in the first run)");
  const auto ascii =
      options->add_flag("--ascii", a->ascii, "print it for a terminal, and write no page")->excludes(out);
  options->add_flag("--json", a->json, "print the numbers behind the page, and write none")
      ->excludes(out)
      ->excludes(ascii);
  const std::map<std::string, BaseNorms> words = {
      {"auto", BaseNorms::where_quick}, {"always", BaseNorms::always}, {"never", BaseNorms::never}};
  options
      ->add_option("--base-norms", a->norms,
                   "read the base's weights for ‖ΔW‖/‖W‖: auto (up to 32 GB in fp32), always or never")
      ->transform(CLI::CheckedTransformer(words, CLI::ignore_case).description(""))
      ->type_name("WORD");
  options->footer(
      "example: drover report runs/handbook --out handbook.html\n"
      "The page is one file that loads nothing from elsewhere. No GPU and no network is needed.");
  return {.options = options, .run = [a](const Process&) { return run(*a); }};
}

}  // namespace drover
