// A step on one clock: stages wait for messages, and only for them.
#include "trainer/planning/timeline.h"

#include <gtest/gtest.h>

#include "trainer/engine/plan.h"

namespace drover {
namespace {

// The schedule's works with `forward` and `backward` seconds each, then a sum and an update of a second each.
std::vector<StepRecord> records(int stages, int micro_batches, const std::vector<double>& forward,
                                const std::vector<double>& backward) {
  std::vector<StepRecord> all;
  for (const Schedule& schedule : all_stages({.stages = stages, .micro_batches = micro_batches})) {
    StepRecord record;
    const size_t stage = static_cast<size_t>(schedule.shape.stage);
    for (size_t next = 0; next < schedule.actions.size();) {
      const size_t group = group_end(schedule, next), end = group == next ? next + 1 : group;
      WorkTime work{.actions = {schedule.actions.begin() + static_cast<std::ptrdiff_t>(next),
                                schedule.actions.begin() + static_cast<std::ptrdiff_t>(end)}};
      if (group == next) {
        work.seconds = work.actions.front().kind == ActionKind::forward ? forward[stage] : backward[stage];
      } else {
        work.message_bytes = 1000;
      }
      record.works.push_back(work);
      next = end;
    }
    record.works.push_back({.kind = WorkKind::sum, .actions = {}, .seconds = 1});
    record.works.push_back({.kind = WorkKind::update, .actions = {}, .seconds = 1});
    all.push_back(record);
  }
  return all;
}

const auto at_once = [](int64_t) { return 0.0; };

TEST(Timeline, OneStageIsTheSumOfItsWorks) {
  const Timeline t = timeline_of(records(1, 3, {2}, {3}), at_once);
  EXPECT_DOUBLE_EQ(t.seconds, 3 * 5 + 2);
  EXPECT_DOUBLE_EQ(t.bubble, 0);
  EXPECT_EQ(t.events.size(), 6);
}

// 1F1B with equal stages idles (p-1)/(m+p-1) of the time; sends that do not wait leave nothing else.
TEST(Timeline, EqualStagesIdleAsTheyMust) {
  for (const auto& [p, m] : {std::pair{2, 4}, {4, 8}, {8, 8}}) {
    const std::vector<double> one(static_cast<size_t>(p), 1), two(static_cast<size_t>(p), 2);
    const Timeline t = timeline_of(records(p, m, one, two), at_once);
    EXPECT_DOUBLE_EQ(t.pipeline, 3.0 * (m + p - 1)) << p;
    EXPECT_NEAR(t.bubble, static_cast<double>(p - 1) / (m + p - 1), 1e-12) << p;
  }
}

// Two stages, two micro-batches, forward 1, backward 2, a message takes 0.5:
// stage 0: F0 0-1, F1 1-2; stage 1: F0 1.5-2.5, B0 2.5-4.5, F1 4.5-5.5, B1 5.5-7.5; stage 0: B0 5-7, B1 8-10.
TEST(Timeline, MessagesTravel) {
  const Timeline t =
      timeline_of(records(2, 2, {1, 1}, {2, 2}), [](int64_t bytes) { return static_cast<double>(bytes) / 2000; });
  EXPECT_DOUBLE_EQ(t.pipeline, 10);
  EXPECT_DOUBLE_EQ(t.seconds, 12);
  EXPECT_DOUBLE_EQ(t.bubble, 1 - 12.0 / 20);
  EXPECT_DOUBLE_EQ(t.exposed, 0);
}

TEST(Timeline, TheSlowestStageSaysHowLongItTakes) {
  const Timeline t = timeline_of(records(2, 50, {1, 3}, {1, 3}), at_once);
  EXPECT_NEAR(t.pipeline, 50 * 6 + 2, 1e-9);
}

// The works of a rank that adds up over tp while it computes: what is waited for is what was not hidden.
TEST(StepRecorder, SumsHideBehindComputing) {
  RoughRates rough{.product = 1,
                   .attention = 1,
                   .attention_backward = 1,
                   .memory = 1,
                   .call_seconds = 0,
                   .link = 1,
                   .link_seconds = 0,
                   .network = 1,
                   .ranks_a_node = 2};
  const Rates rates(rough);
  StepRecorder recorder(rates, {});
  const auto computes = [&](int64_t bytes) { recorder.end(OpCall{.op = "add", .bytes = bytes}); };
  recorder.begin(Work{});
  computes(1);
  const int64_t sum = recorder.started({.kind = "all_reduce", .axis = "tp", .size = 2, .bytes = 3});
  computes(1);
  recorder.waited(sum);
  computes(1);
  recorder.called({.kind = "all_gather", .axis = "tp", .size = 2, .bytes = 2});
  recorder.end(Work{});
  computes(4);
  const StepRecord record = recorder.take();
  ASSERT_EQ(record.works.size(), 1);
  EXPECT_DOUBLE_EQ(record.works[0].seconds, 1 + 3 + 1 + 1);
  EXPECT_DOUBLE_EQ(record.exposed, 2 + 1);
  EXPECT_DOUBLE_EQ(record.outside, 4);
  EXPECT_DOUBLE_EQ(record.computing(), 7);
  EXPECT_EQ(record.calls, 4);
}

}  // namespace
}  // namespace drover
