#include "trainer/engine/schedule.h"

#include <gmock/gmock.h>

#include "kernels/base/error.h"

namespace drover {
namespace {

using testing::Contains;
using testing::HasSubstr;

ScheduleShape shape(int stages, int micro_batches, int first_trained = 0) {
  return {.stages = stages, .stage = 0, .micro_batches = micro_batches, .first_trained_stage = first_trained};
}

TEST(Schedule, OneStageIsGradientAccumulation) {
  const std::vector<Action> expected = {{ActionKind::forward, 0}, {ActionKind::backward, 0},
                                        {ActionKind::forward, 1}, {ActionKind::backward, 1},
                                        {ActionKind::forward, 2}, {ActionKind::backward, 2}};
  const Schedule schedule = one_f_one_b(shape(1, 3));
  EXPECT_EQ(schedule.actions, expected);
  EXPECT_EQ(slots(schedule), 1);
}

TEST(Schedule, OneStageMayTakeSeveralTogether) {
  ScheduleShape s = shape(1, 5);
  s.together = 2;
  const std::vector<Schedule> schedule = all_stages(s);
  EXPECT_TRUE(print(schedule).starts_with("stage 0: F0 F1 B0 B1 F2 F3 B2 B3 F4 B4\n")) << print(schedule);
  EXPECT_TRUE(simulate(schedule).problems.empty());
  EXPECT_EQ(slots(schedule[0]), 2);
  EXPECT_EQ(streams(schedule[0]), 2);
  EXPECT_EQ(together_end(schedule[0], 0), 2u);
  EXPECT_EQ(together_end(schedule[0], 2), 4u);
  EXPECT_EQ(together_end(schedule[0], 8), 9u);
  s.first_trained_stage = 1;  // an evaluation
  const Schedule forward = one_f_one_b(s);
  EXPECT_EQ(together_end(forward, 0), 2u);
  EXPECT_EQ(together_end(forward, 4), 5u);
  s.stages = 2;
  EXPECT_THROW(one_f_one_b(s), Error);
}

TEST(Schedule, PrintsWhatRuns) {
  EXPECT_EQ(
      print(all_stages(shape(2, 3))),
      "stage 0: F0 >F0 F1 >F1 <B0 B0 F2 >F2 <B1 B1 <B2 B2\n"
      "stage 1: <F0 F0 B0 >B0 <F1 F1 B1 >B1 <F2 F2 B2 >B2\n"
      "F forward, B backward, <F receive x, >F send x, <B receive dx, >B send dx; the number is the micro-batch\n");
}

TEST(Schedule, EveryShapeEndsAndIsComplete) {
  for (int p = 1; p <= 8; ++p) {
    for (int m = 0; m <= 13; ++m) {
      for (int f = 0; f <= p; ++f) {
        const auto stages = all_stages(shape(p, m, f));
        const Simulation run = simulate(stages);
        EXPECT_TRUE(run.problems.empty())
            << "p " << p << " m " << m << " f " << f << ": " << run.problems.front() << "\n"
            << print(stages);
        for (int s = 0; s < p; ++s) {
          EXPECT_EQ(slots(stages[static_cast<size_t>(s)]), s >= f ? std::max(1, std::min(m, p - s)) : 1)
              << "p " << p << " m " << m << " f " << f;
        }
      }
    }
  }
}

TEST(Schedule, MessagesThatFollowOneAnotherStartTogether) {
  // rank 1: <F0 F0 B0 >B0 <F1 F1 B1 >B1 <F2 F2 B2 >B2
  const Schedule last = all_stages(shape(2, 3))[1];
  EXPECT_EQ(group_end(last, 0), 1u);
  EXPECT_EQ(group_end(last, 1), 1u);  // F0
  EXPECT_EQ(group_end(last, 3), 5u);  // >B0 <F1: micro-batch 0 streams out while 1 streams in
  EXPECT_EQ(slots(last), 1);
  EXPECT_EQ(streams(last), 2);
  // stage 0: F0 >F0 <B0 B0: dx comes into the buffer that x left from, so not before x has left.
  const Schedule first = all_stages(shape(2, 1))[0];
  EXPECT_EQ(group_end(first, 1), 2u);
  EXPECT_EQ(streams(first), 1);
  for (const Schedule& s : all_stages(shape(4, 9)))
    EXPECT_EQ(streams(s), slots(s) + (s.shape.stage > 0 ? 1 : 0)) << s.shape.stage;
  for (const Schedule& s : all_stages(shape(4, 9, 4)))
    EXPECT_EQ(streams(s), s.shape.stage == 1 || s.shape.stage == 2 ? 2 : 1) << s.shape.stage;
}

TEST(Schedule, IdleFractionIsThatOf1F1B) {
  for (int p : {1, 2, 3, 4, 8}) {
    for (int m : {1, 2, 3, 8, 16, 32}) {
      EXPECT_NEAR(simulate(all_stages(shape(p, m))).idle_fraction, (p - 1.0) / (m + p - 1.0), 1e-12)
          << "p " << p << " m " << m;
      EXPECT_NEAR(simulate(all_stages(shape(p, m)), {1, 2}).idle_fraction, (p - 1.0) / (m + p - 1.0), 1e-12)
          << "p " << p << " m " << m;
      EXPECT_NEAR(simulate(all_stages(shape(p, m, p))).idle_fraction, (p - 1.0) / (m + p - 1.0), 1e-12)
          << "p " << p << " m " << m;
    }
  }
}

TEST(Schedule, FrozenStagesRunNoBackward) {
  const auto stages = all_stages(shape(4, 6, 2));
  for (const Schedule& s : stages) {
    for (const Action& a : s.actions) {
      const bool backward = a.kind == ActionKind::recv_backward || a.kind == ActionKind::backward;
      EXPECT_TRUE(!backward || s.shape.stage >= 2) << s.shape.stage;
      EXPECT_TRUE(a.kind != ActionKind::send_backward || s.shape.stage == 3) << s.shape.stage;
    }
  }
}

// Breaks a good schedule of stage `stage` and expects the words among the problems.
template <typename Break>
void expect_caught(int stage, const std::string& words, Break&& breaking) {
  auto stages = all_stages(shape(2, 3));
  breaking(stages[static_cast<size_t>(stage)].actions);
  EXPECT_THAT(simulate(stages).problems, Contains(HasSubstr(words)));
}

TEST(Simulation, FindsWhatIsWrong) {
  using Actions = std::vector<Action>;
  expect_caught(0, "stage 0: B2 is missing", [](Actions& a) { a.pop_back(); });
  expect_caught(1, "deadlock: stage 0 waits for ever in action 4 (<B0): stage 1 does not send it",
                [](Actions& a) { a.erase(a.begin() + 3); });
  expect_caught(1, "stage 0 sends x of micro-batch 2 to stage 1, which never receives it",
                [](Actions& a) { a.erase(a.begin() + 8); });
  expect_caught(0, "stage 0, action 1 (F0): comes after >F0", [](Actions& a) { std::swap(a[0], a[1]); });
  expect_caught(0, "stage 0, action 1 (F0): done twice", [](Actions& a) { a.insert(a.begin(), a[0]); });
  expect_caught(0, "(<F0): this stage has no such action", [](Actions& a) {
    a.insert(a.begin(), {ActionKind::recv_forward, 0});
  });
  expect_caught(0, "(F9): there is no such micro-batch", [](Actions& a) { a.push_back({ActionKind::forward, 9}); });
}

TEST(Simulation, FindsADeadlockOfSlots) {
  // Receives before sends on both sides: each waits for the other.
  auto stages = all_stages(shape(2, 2));
  auto& a = stages[0].actions;  // F0 >F0 F1 >F1 <B0 B0 <B1 B1
  std::swap(a[1], a[4]);
  EXPECT_THAT(simulate(stages).problems, Contains(HasSubstr("deadlock: stage 0")));
  EXPECT_THAT(simulate(stages).problems, Contains(HasSubstr("deadlock: stage 1")));
}

TEST(Simulation, FindsSendsThatCross) {
  // 1F1B's steady state with an action between its send and its receive: both stages send first, and neither receives.
  auto stages = all_stages(shape(2, 3));
  auto& a = stages[0].actions;  // F0 >F0 F1 >F1 <B0 B0 F2 >F2 <B1 B1 <B2 B2
  a.insert(a.begin() + 4, a[6]), a.erase(a.begin() + 7);
  auto& b = stages[1].actions;  // <F0 F0 B0 >B0 <F1 F1 B1 >B1 <F2 F2 B2 >B2
  b.insert(b.begin() + 4, {ActionKind::forward, 2});
  EXPECT_THAT(simulate(stages).problems,
              Contains(HasSubstr("deadlock: stage 0 waits for ever in action 3 (>F1): stage 1 does not receive it")));
  EXPECT_THAT(simulate(stages).problems,
              Contains(HasSubstr("deadlock: stage 1 waits for ever in action 3 (>B0): stage 0 does not receive it")));
}

TEST(Simulation, FindsASlotTakenTooEarly) {
  // 2 in flight in a ring of 2, but micro-batch 2 opens before micro-batch 0 has left.
  Schedule s = one_f_one_b(shape(1, 4));
  using enum ActionKind;
  s.actions = {{forward, 0},  {forward, 1},  {backward, 1}, {forward, 2},
               {backward, 0}, {backward, 2}, {forward, 3},  {backward, 3}};
  EXPECT_THAT(simulate({s}).problems,
              Contains(HasSubstr("stage 0, action 3 (F2): its slot still holds micro-batch 0")));
}

std::vector<int64_t> sizes(const std::vector<LayerRange>& ranges) {
  std::vector<int64_t> s;
  int64_t next = 0;
  for (const LayerRange& r : ranges) {
    EXPECT_EQ(r.begin, next);
    next = r.end;
    s.push_back(r.size());
  }
  return s;
}

TEST(PartitionLayers, TheDearestStageIsAsCheapAsPossible) {
  using V = std::vector<int64_t>;
  EXPECT_EQ(sizes(partition_layers(32, 1, 3)), (V{32}));
  EXPECT_EQ(sizes(partition_layers(32, 4, 0)), (V{8, 8, 8, 8}));
  EXPECT_EQ(sizes(partition_layers(10, 4, 0)), (V{2, 2, 3, 3}));
  EXPECT_EQ(sizes(partition_layers(32, 4, 4)), (V{9, 9, 9, 5}));
  EXPECT_EQ(sizes(partition_layers(5, 2, 0.5)), (V{3, 2}));
  EXPECT_EQ(sizes(partition_layers(4, 4, 9)), (V{1, 1, 1, 1}));
  EXPECT_EQ(sizes(partition_layers(126, 16, 2)).size(), 16u);
}

TEST(PartitionLayers, MoreStagesThanLayersIsARecipeError) {
  try {
    partition_layers(3, 4, 0);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::bad_recipe);
    EXPECT_THAT(error.what(), HasSubstr("parallel.pp is 4, but the model has 3 layers"));
  }
}

}  // namespace
}  // namespace drover
