// The report for a terminal: a run on a screen or two, and two runs on one.
#pragma once
#include "trainer/report/page.h"

namespace drover {

inline constexpr size_t kTextColumns = 80;

// The series in so many characters, ▁ its least and █ its most; empty for a series without a value.
std::string sparkline(std::span<const double> y, size_t columns);

std::string report_text(const ReportedRun& run);
// Why the recipes of two runs cannot be compared: who has none; empty: both have one.
std::string recipe_lacking(const RunRecord& a, const RunRecord& b);

std::string comparison_text(const ReportedRun& a, const ReportedRun& b);

}  // namespace drover
