// The sections of the page, in files by topic. Each gives a <section>, also where there is nothing to draw: then it
// says why.
#pragma once
#include "trainer/report/page.h"

namespace drover {

using Runs = std::vector<ReportedRun>;

// section.cpp
Html section(const std::string& id, const std::string& heading, const Html& content);
Html paragraph(const std::string& text);
Html note(const std::string& text);
Html picture(const std::string& caption, const Html& drawing, const Html& numbers);
// `content` under the run's name where there are several runs.
Html of_run(const Runs& runs, const ReportedRun& run, const Html& content);
// A sentence for the part that the run does not have.
Html absent(const ReportedRun& run, Part part, const std::string& what);
std::string name_in(const Runs& runs, const ReportedRun& run, const std::string& what);  // "loss" or "loss, run"

// section_summary.cpp
Html summary_section(const Runs& runs);
Html advice_section(const Runs& runs);
// section_training.cpp
Html loss_section(const Runs& runs);
Html optimizer_section(const Runs& runs);
Html speed_section(const Runs& runs);
// section_machine.cpp
Html memory_section(const Runs& runs);
Html timeline_section(const Runs& runs);
Html plan_section(const Runs& runs);
// section_data.cpp
Html data_section(const Runs& runs);
Html samples_section(const Runs& runs);
// section_adapter.cpp
Html change_section(const Runs& runs);
Html proof_section(const Runs& runs);
Html recipe_section(const Runs& runs);

}  // namespace drover
