// What every rank reached, as a run keeps it for its report.
#include "trainer/run/run_plan.h"

#include <gtest/gtest.h>

#include "kernels/base/json.h"

namespace drover {
namespace {

TEST(ReachedJson, HasEveryRankWithPlansKeys) {
  const std::vector<ReachedMemory> ranks = {
      {.arenas = {.weights = 1, .adapter = 2, .optimizer = 3, .saved = 4, .scratch = 5}, .process_bytes = 100},
      {.arenas = {.saved = 7}, .process_bytes = 90}};
  EXPECT_EQ(parse_json(reached_json(ranks), "reached.json"), Json::parse(R"({"ranks":[
    {"rank":0,"weights_bytes":1,"adapter_bytes":2,"optimizer_bytes":3,"saved_bytes":4,"scratch_bytes":5,
     "total_bytes":15,"process_bytes":100},
    {"rank":1,"weights_bytes":0,"adapter_bytes":0,"optimizer_bytes":0,"saved_bytes":7,"scratch_bytes":0,
     "total_bytes":7,"process_bytes":90}]})"));
}

}  // namespace
}  // namespace drover
