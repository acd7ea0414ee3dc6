#include "trainer/report/number_text.h"
#include "trainer/report/pictures.h"
#include "trainer/report/sections.h"

namespace drover {

namespace {

constexpr size_t kShownSamples = 20, kSampleBytes = 1500;

Html length_figure(const LengthRecord& l) {
  BarChart chart{.title = "Documents by length",
                 .description = fmt::format("{} documents of {} to {} tokens, median {}.", l.documents, l.shortest,
                                            l.longest, l.middle),
                 .x_name = "tokens of a document"};
  TableText table{.headings = {"from (tokens)", "below", "documents"}};
  const size_t every = std::max<size_t>(1, l.lengths.size() / 10);
  for (size_t i = 0; i < l.lengths.size(); ++i) {
    const LengthBin& bin = l.lengths[i];
    const std::string count = std::to_string(bin.documents);
    chart.bars.push_back({i % every == 0 ? std::to_string(bin.begin) : "", static_cast<double>(bin.documents),
                          fmt::format("{} to {} tokens: {} documents", bin.begin, bin.end - 1, count)});
    table.rows.push_back({std::to_string(bin.begin), std::to_string(bin.end), count});
  }
  const std::string cuts =
      l.max_length > 0 ? fmt::format("; {} rows were cut at data.max_length {}", l.cut, l.max_length) : "";
  return picture(fmt::format("{} documents: {} to {} tokens, median {}{}", grouped(static_cast<double>(l.documents)),
                             l.shortest, l.longest, l.middle, cuts),
                 bar_chart(chart), details_table("The numbers behind the picture", table, "lengths.csv"));
}

Html packing_figure(const ReportedRun& run) {
  const LengthRecord& l = *run.record.lengths;
  BarChart chart{.title = "Rows by how full they are",
                 .description = fmt::format("{} rows, filled to {} in all.", l.rows, percent_text(l.filled)),
                 .x_name = "share of data.max_length that is filled"};
  TableText table{.headings = {"filled from (%)", "to", "rows"}};
  for (size_t i = 0; i < l.rows_by_filled.size(); ++i) {
    const std::string count = std::to_string(l.rows_by_filled[i]), from = std::to_string(10 * i);
    chart.bars.push_back({from + " %", static_cast<double>(l.rows_by_filled[i]),
                          fmt::format("{} to {} %: {} rows", from, 10 * i + 10, count)});
    table.rows.push_back({from, std::to_string(10 * i + 10), count});
  }
  const RecipeRecord& recipe = run.record.recipe;
  const bool packed = recipe.is("data.packing", "true");
  const char* const how = !recipe.is_there() ? "" : packed ? ", packed" : ", a document each";
  const char* const more = !recipe.is_there() ? " (of the longest document: data.max_length is not known without "
                                                "recipe.yaml)"
                           : packed           ? ""
                                              : ", and what is not filled costs nothing: no padding is computed";
  return picture(fmt::format("{} rows{}; {} of their room is filled{}", grouped(static_cast<double>(l.rows)), how,
                             percent_text(l.filled), more),
                 bar_chart(chart), details_table("The numbers behind the picture", table, "packing.csv"));
}

Html data_of(const ReportedRun& run) {
  if (!run.record.lengths) return absent(run, Part::lengths, "Lengths and packing are");
  const LengthRecord& l = *run.record.lengths;
  if (l.documents == 0) return note("The token store holds no document.");
  Html html = length_figure(l) + packing_figure(run);
  html += note(fmt::format("{} tokens, {} of them trained ({}).", grouped(static_cast<double>(l.tokens)),
                           grouped(static_cast<double>(l.trained_tokens)),
                           percent_text(static_cast<double>(l.trained_tokens) / static_cast<double>(l.tokens))));
  if (!l.notes.empty()) html += Html::element("pre", {}, l.notes);
  return html;
}

Html samples_of(const ReportedRun& run) {
  const std::vector<AnswersOfStep>& answers = run.record.answers;
  if (answers.empty()) return absent(run, Part::answers, "Samples are");
  const bool both = answers.size() > 1;
  TableText table{.headings = {"prompt", fmt::format("after step {}", answers.front().step)},
                  .look = TableLook::long_texts};
  if (both) table.headings.push_back(fmt::format("after step {}", answers.back().step));
  for (const BeforeAfter& row : before_and_after(answers.front(), answers.back())) {
    if (table.rows.size() == kShownSamples) break;
    table.rows.push_back({clipped(row.prompt, kSampleBytes), clipped(row.before, kSampleBytes)});
    if (both) table.rows.back().push_back(clipped(row.after, kSampleBytes));
  }
  if (table.rows.empty()) return note("The answers that were kept are of other prompts, or cannot be read.");
  const Html more = answers.front().rows.size() > table.rows.size()
                        ? note(fmt::format("{} of {} prompts.", table.rows.size(), answers.front().rows.size()))
                        : Html();
  return drover::table(table) + more;
}

}  // namespace

Html data_section(const Runs& runs) {
  Html html;
  for (const ReportedRun& run : runs) html += of_run(runs, run, data_of(run));
  return section("data", "Data", html);
}

Html samples_section(const Runs& runs) {
  Html html;
  for (const ReportedRun& run : runs) html += of_run(runs, run, samples_of(run));
  return section("samples", "Samples before and after", html);
}

}  // namespace drover
