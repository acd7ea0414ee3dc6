// metrics.jsonl as it may be found: whole, cut off, with holes, with what nobody knows.
#include "trainer/report/metrics_series.h"

#include <gmock/gmock.h>

#include <cmath>

namespace drover {
namespace {

using testing::ElementsAre;

TEST(MetricsSeries, ReadsStepsAndValidations) {
  const MetricsSeries series =
      parse_metrics(R"({"step":0,"validation_loss":3.5,"tokens":20})"
                    "\n"
                    R"({"step":1,"loss":3.25,"grad_norm":1.5,"learning_rate":0.001,"tokens":8,"trained_tokens":4,)"
                    R"("tokens_per_second":16.0,"step_seconds":0.5,"peak_bytes":1024})"
                    "\n");
  ASSERT_EQ(series.steps.size(), 1u);
  ASSERT_EQ(series.validations.size(), 1u);
  const StepRow& row = series.steps.front();
  EXPECT_EQ(row.step, 1);
  EXPECT_THAT((std::vector<double>{row.loss, row.grad_norm, row.learning_rate, row.tokens, row.trained_tokens,
                                   row.tokens_per_second, row.step_seconds, row.peak_bytes}),
              ElementsAre(3.25, 1.5, 0.001, 8, 4, 16, 0.5, 1024));
  EXPECT_EQ(series.validations.front().loss, 3.5);
  EXPECT_EQ(series.unread_lines, 0);
  EXPECT_EQ(series.last_step(), 1);
}

TEST(MetricsSeries, AHalfLastLineAndLinesThatAreNoStepArePassedOver) {
  const MetricsSeries series = parse_metrics(
      "{\"step\":1,\"loss\":3}\n"
      "nothing\n"
      "[1]\n"
      "{\"loss\":2}\n"
      "{\"step\":\"2\",\"loss\":2}\n"
      "\n"
      "{\"step\":3,\"loss\":1}\n"
      "{\"step\":4,\"lo");
  EXPECT_THAT(series.step_numbers(), ElementsAre(1, 3));
  EXPECT_EQ(series.unread_lines, 5);
  EXPECT_EQ(parse_metrics("{\"step\":4,\"loss\":1}").unread_lines, 1);  // whole, but its end is not there yet
}

TEST(MetricsSeries, MissingNullAndWrongValuesAreHolesAndUnknownKeysAreNothing) {
  const MetricsSeries series =
      parse_metrics("{\"step\":7,\"loss\":null,\"grad_norm\":\"2\",\"learning_rate\":1,\"colour\":[{}]}\n");
  ASSERT_EQ(series.steps.size(), 1u);
  EXPECT_TRUE(std::isnan(series.steps[0].loss));
  EXPECT_TRUE(std::isnan(series.steps[0].grad_norm));
  EXPECT_TRUE(std::isnan(series.steps[0].step_seconds));
  EXPECT_EQ(series.steps[0].learning_rate, 1);
  EXPECT_EQ(series.unread_lines, 0);
}

TEST(MetricsSeries, StepsAreInOrderAndTheLaterLineOfAStepCounts) {
  const MetricsSeries series =
      parse_metrics("{\"step\":2,\"loss\":5}\n{\"step\":1,\"loss\":4}\n{\"step\":2,\"loss\":3}\n");
  EXPECT_THAT(series.step_numbers(), ElementsAre(1, 2));
  EXPECT_THAT(series.column(&StepRow::loss), ElementsAre(4, 3));
}

TEST(MetricsSeries, NothingIsEmpty) {
  EXPECT_TRUE(parse_metrics("").empty());
  EXPECT_TRUE(parse_metrics("\n\n").empty());
  EXPECT_EQ(parse_metrics("").last_step(), 0);
}

}  // namespace
}  // namespace drover
