// The numbers behind the page as JSON: a run's figures, its advice and its series as they are drawn. What is not known
// is null.
#pragma once
#include "kernels/base/json.h"
#include "trainer/report/page.h"

namespace drover {

OrderedJson report_numbers(const std::vector<ReportedRun>& runs);
OrderedJson summary_json(const ReportedRun& run);  // without the series

}  // namespace drover
