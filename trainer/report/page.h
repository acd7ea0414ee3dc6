// The report: one HTML file without anything from elsewhere, which says of runs what their directories say.
#pragma once
#include <vector>

#include "trainer/report/advice.h"
#include "trainer/report/html.h"

namespace drover {

// What a page, its text and its numbers are made of: the same figures, taken once.
struct ReportedRun {
  RunRecord record;
  RunSummary summary;
  std::vector<Advice> advice;
};
ReportedRun reported(RunRecord record);

inline constexpr size_t kMostRuns = 8;  // of a page: as many as lines have styles

std::string report_page(const std::vector<ReportedRun>& runs);

}  // namespace drover
