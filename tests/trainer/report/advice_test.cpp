// Each rule of what to try next, just within and just beyond its threshold; and stalls, which have causes.
#include "trainer/report/advice.h"

#include <gmock/gmock.h>

#include <cmath>

namespace drover {
namespace {

using testing::HasSubstr;
using testing::Not;

enum Rule : size_t { overfit, clipped, rebound, still_falling, truncated, few_trained, idle, stalled };

RunRecord a_run(std::vector<double> losses) {
  RunRecord run;
  run.recipe = parse_recipe_record("optim:\n  max_grad_norm: 1\ncheckpoint:\n  every_steps: 10\n");
  for (size_t i = 0; i < losses.size(); ++i) {
    run.metrics.steps.push_back({.step = static_cast<int64_t>(i) + 1,
                                 .loss = losses[i],
                                 .grad_norm = 0.5,
                                 .learning_rate = 3e-4,
                                 .step_seconds = 1});
  }
  return run;
}

Advice asked(const RunRecord& run, Rule rule) { return advice_of(run, summary_of(run))[rule]; }

TEST(Advice, OverfitNeedsTwoValidationsAfterTheLowestAndTwoPercent) {
  RunRecord run = a_run({1, 1});
  run.metrics.validations = {{1, 2.0}, {2, 1.0}, {3, 1.01}, {4, 1.03}};
  const Advice a = asked(run, overfit);
  EXPECT_THAT(a.suggestion, HasSubstr("step 2"));
  EXPECT_THAT(a.rule, HasSubstr("2 %"));
  run.metrics.validations.back().loss = 1.019;
  EXPECT_FALSE(asked(run, overfit).holds());
  run.metrics.validations = {{1, 2.0}, {2, 1.0}, {3, 1.5}};
  EXPECT_FALSE(asked(run, overfit).holds());
  run.metrics.validations.clear();
  EXPECT_THAT(asked(run, overfit).suggestion, HasSubstr("data.validation"));
}

TEST(Advice, NamesOnlyWaysThatAreOpen) {
  RunRecord run = a_run({1, 1});
  run.metrics.validations = {{1, 2.0}, {2, 1.0}, {3, 1.01}, {4, 1.03}};
  EXPECT_THAT(asked(run, overfit).suggestion, HasSubstr("checkpoint.keep_best"));
  EXPECT_THAT(asked(run, overfit).suggestion, Not(HasSubstr("step-2/adapter")));
  run.checkpoints = {2, 4};
  EXPECT_THAT(asked(run, overfit).suggestion, HasSubstr("step-2/adapter"));
  run.checkpoints = {4};
  run.recipe = parse_recipe_record("checkpoint:\n  keep_best: true\neval:\n  stop_after: 3\n");
  EXPECT_EQ(asked(run, overfit).suggestion, "Train on more data.");
  run.metrics.validations.clear();
  run.recipe = parse_recipe_record("data:\n  validation: x.jsonl\n");
  EXPECT_FALSE(asked(run, overfit).holds());  // it is still to come
  run.recipe = {};
  EXPECT_FALSE(asked(run, overfit).holds());
}

// Losses that end 5 % above their lowest.
std::vector<double> rising(size_t steps) {
  std::vector<double> losses(steps, 1);
  for (size_t i = steps / 2; i < steps; ++i) losses[i] = 1.05;
  return losses;
}

TEST(Advice, ClippedNeedsHalfOfTheStepsAndALossThatIsNotAtItsLowest) {
  RunRecord run = a_run(rising(10));
  for (size_t i = 0; i < 4; ++i) run.metrics.steps[i].grad_norm = 1.5;
  EXPECT_FALSE(asked(run, clipped).holds());
  run.metrics.steps[4].grad_norm = 1.5;
  EXPECT_THAT(asked(run, clipped).suggestion, HasSubstr("0.0001"));
  for (StepRow& row : run.metrics.steps) row.loss = 1;
  EXPECT_FALSE(asked(run, clipped).holds());
  run.recipe = parse_recipe_record("optim:\n  max_grad_norm: 0\n");
  EXPECT_FALSE(asked(run, clipped).holds());
}

TEST(Advice, ALossThatRisesAgainOrIsNotFiniteAsksForALowerRate) {
  std::vector<double> losses(40, 1.0);
  EXPECT_FALSE(asked(a_run(losses), rebound).holds());
  for (size_t i = 20; i < 40; ++i) losses[i] = 1.2;
  EXPECT_TRUE(asked(a_run(losses), rebound).holds());
  losses.assign(40, 1.0);
  losses.back() = kHole;
  EXPECT_TRUE(asked(a_run(losses), rebound).holds());
}

TEST(Advice, ALossThatStillFallsAsksForMoreSteps) {
  std::vector<double> losses;
  for (int i = 0; i < 100; ++i) losses.push_back(3 - 0.02 * i);
  RunRecord run = a_run(losses);
  EXPECT_EQ(asked(run, still_falling).suggestion, "Train longer: more train.epochs.");
  run.recipe = parse_recipe_record("train:\n  max_steps: 100\n");
  EXPECT_THAT(asked(run, still_falling).suggestion, HasSubstr("train.max_steps 150"));
  run.total_steps = 120;
  EXPECT_FALSE(asked(run, still_falling).holds());
  run.total_steps = 100;
  run.state = RunState::running;
  EXPECT_FALSE(asked(run, still_falling).holds());
  run.state = RunState::done;
  run.metrics.steps[50].loss = kHole;
  EXPECT_FALSE(asked(run, still_falling).holds());  // a lower rate is asked for then
  run.metrics.steps[50].loss = 2;
  run.metrics.validations = {{50, 1.0}, {100, 1.2}};  // but not on what it does not see
  EXPECT_FALSE(asked(run, still_falling).holds());
  EXPECT_FALSE(asked(a_run(std::vector<double>(100, 1)), still_falling).holds());
  EXPECT_FALSE(asked(a_run({3, 2, 1}), still_falling).holds());
  losses.clear();  // learnt by heart: half of very little is little
  for (int i = 0; i < 100; ++i) losses.push_back(3 * std::exp(-0.1 * i));
  EXPECT_FALSE(asked(a_run(losses), still_falling).holds());
}

TEST(Advice, DataThatWasCutOrTrainsLittle) {
  RunRecord run = a_run({1});
  EXPECT_FALSE(asked(run, truncated).holds());
  run.lengths = LengthRecord{.documents = 200, .tokens = 1000, .trained_tokens = 500, .max_length = 64, .cut = 1};
  EXPECT_FALSE(asked(run, truncated).holds());
  EXPECT_FALSE(asked(run, few_trained).holds());
  run.lengths->cut = 2, run.lengths->trained_tokens = 40;
  EXPECT_THAT(asked(run, truncated).suggestion, HasSubstr("above 64"));
  EXPECT_TRUE(asked(run, few_trained).holds());
  run.lengths->max_length = 0;
  EXPECT_THAT(asked(run, truncated).seen, HasSubstr("no recipe.yaml"));
}

TEST(Advice, IdleStagesByTheTraceOrElseByThePlan) {
  RunRecord run = a_run({1});
  run.recipe = parse_recipe_record("parallel:\n  pp: 2\n");
  EXPECT_FALSE(asked(run, idle).holds());
  run.plan = PlanRecord{.time = {.bubble = 0.25}};
  EXPECT_TRUE(asked(run, idle).holds());
  run.traces = {{.step = 1, .spans = {{0, 0, 0.9, "F0"}}, .ranks = {0}, .seconds = 1}};
  EXPECT_FALSE(asked(run, idle).holds());  // what was seen counts
  run.traces[0].spans[0].end = 0.7;
  EXPECT_THAT(asked(run, idle).suggestion, Not(HasSubstr("micro_batch_size")));
  run.recipe = parse_recipe_record("parallel:\n  pp: 2\ntrain:\n  micro_batch_size: 2\n");
  EXPECT_THAT(asked(run, idle).suggestion, HasSubstr("smaller train.micro_batch_size"));
  run.recipe = parse_recipe_record("parallel:\n  pp: 1\n");
  EXPECT_FALSE(asked(run, idle).holds());
}

TEST(Stalls, AreNamedByWhatCameBefore) {
  RunRecord run = a_run(std::vector<double>(60, 1));
  run.metrics.validations = {{30, 1.0}};
  EXPECT_TRUE(stalls_of(run).empty());
  for (const size_t at : {10, 30, 44}) run.metrics.steps[at].step_seconds = 5;
  const std::vector<Stall> stalls = stalls_of(run);
  ASSERT_EQ(stalls.size(), 3u);
  EXPECT_THAT(stalls[0].cause, HasSubstr("after the checkpoint of step 10"));
  EXPECT_THAT(stalls[1].cause, HasSubstr("after the validation of step 30"));
  EXPECT_THAT(stalls[2].cause, HasSubstr("no cause is on record"));
  run.traced_steps = {45};
  EXPECT_EQ(stalls_of(run)[2].cause, "it was traced");
  EXPECT_EQ(stalls[2].usual, 1);
  EXPECT_TRUE(asked(run, stalled).holds());
  for (const size_t at : {10, 30, 44}) run.metrics.steps[at].step_seconds = 2.9;
  EXPECT_TRUE(stalls_of(run).empty());
}

TEST(Stalls, AChangeOfPaceIsNone) {
  RunRecord run = a_run(std::vector<double>(400, 1));
  for (size_t i = 300; i < 400; ++i) run.metrics.steps[i].step_seconds = 4;
  EXPECT_TRUE(stalls_of(run).empty());
}

}  // namespace
}  // namespace drover
