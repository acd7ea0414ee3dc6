// drover report: what runs did, as one HTML page, as text for a terminal, or as numbers.
#include <fstream>
#include <iostream>

#include "kernels/base/log.h"
#include "launch/verbs/verb.h"
#include "trainer/report/report_numbers.h"
#include "trainer/report/report_text.h"

namespace drover {

namespace {

constexpr std::string_view kPageBegin = "<!DOCTYPE html>";

struct Arguments {
  std::vector<std::string> runs;
  std::string out;
  BaseNorms norms = BaseNorms::where_quick;
  bool ascii = false, json = false;
};

// Nothing is lost by a slip of the pen: only a page is replaced.
void check_is_free(const fs::path& out) {
  if (out == "-") fail(Fault::usage, "--out names a file, and - is none; --ascii and --json print to the terminal");
  std::error_code ignored;
  if (fs::is_directory(out, ignored))
    fail(Fault::usage, "{} is a directory; --out names the page's file", out.string());
  if (!fs::is_regular_file(out, ignored) || fs::file_size(out, ignored) == 0) return;
  std::string begin(kPageBegin.size(), '\0');
  std::ifstream(out, std::ios::binary).read(begin.data(), static_cast<std::streamsize>(begin.size()));
  if (begin == kPageBegin) return;
  fail(Fault::usage, "{} is there and is no page (it does not begin with {}); give another name, or remove it",
       out.string(), kPageBegin);
}

Exit run(const Arguments& a) {
  if (a.runs.size() > kMostRuns)
    fail(Fault::usage, "a report is of at most {} runs, and {} are given", kMostRuns, a.runs.size());
  const fs::path out = a.out.empty() ? fs::path(a.runs.front()) / "report.html" : fs::path(a.out);
  if (!a.json && !a.ascii) check_is_free(out);
  std::vector<ReportedRun> runs;
  for (RunRecord& record : read_runs(a.runs, a.norms)) runs.push_back(reported(std::move(record)));
  if (a.json) {
    std::cout << report_numbers(runs).dump(1, ' ', false, OrderedJson::error_handler_t::replace) << '\n';
  } else if (a.ascii) {
    for (const ReportedRun& one : runs) std::cout << report_text(one) << (runs.size() > 1 ? "\n" : "");
  } else {
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
