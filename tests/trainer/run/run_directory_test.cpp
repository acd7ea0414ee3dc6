#include "trainer/run/run_directory.h"

#include "tests/base/scratch_directory.h"

namespace drover {
namespace {

class RunDirectories : public testing::Test {
 protected:
  // The least of a recipe whose paths can be made absolute.
  ReadRecipe recipe() const {
    ReadRecipe read;
    read.recipe.model.path = home_ / "model";
    read.recipe.output.dir = home_ / "run";
    return read;
  }
  ScratchDirectory home_;
  std::unique_ptr<Communicator> world_ = make_self_communicator("world");
};

TEST_F(RunDirectories, IsOneRunsAtATime) {
  const RunDirectory first(home_ / "run", *world_);
  const RunDirectory other(home_ / "other", *world_);
  expect_error(Fault::bad_recipe, {"in use by process"}, [&] { RunDirectory second(home_ / "run", *world_); });
}

TEST_F(RunDirectories, HasNothingToGoOnFromAtFirst) {
  RunDirectory directory(home_ / "run", *world_);
  EXPECT_FALSE(directory.to_resume("auto", {}));
  EXPECT_FALSE(directory.to_resume("never", {}));
  expect_error(Fault::missing_input, {"step-3"}, [&] { directory.to_resume((home_ / "step-3").string(), {}); });
}

// Both are of the ranks that did the last step.
TEST_F(RunDirectories, WhatWasPlannedAndReachedStaysUntilAStep) {
  RunDirectory directory(home_ / "run", *world_);
  const fs::path plan = home_ / "run" / "plan.json", reached = home_ / "run" / RunDirectory::kReachedFile;
  directory.accept(recipe(), 0, -1, 9, "first");
  EXPECT_EQ(read_text(plan), "first");
  write_text(reached, "{}");
  directory.accept(recipe(), 8, -1, 9, "second");
  EXPECT_EQ(read_text(plan), "first");
  EXPECT_TRUE(fs::exists(reached));
  directory.replace_plan();
  EXPECT_EQ(read_text(plan), "second");
  EXPECT_FALSE(fs::exists(reached));
  directory.accept(recipe(), 8, -1, 9);  // nothing is planned
  directory.replace_plan();
  EXPECT_FALSE(fs::exists(plan));
}

// A full disk: the loop saves the run before it ends it.
TEST_F(RunDirectories, WhatCannotBeWrittenIsKeptAndEndsTheRecords) {
  RunDirectory directory(home_ / "run", *world_);
  directory.accept(recipe(), 0, -1, 9);
  EXPECT_TRUE(fs::exists(home_ / "run" / "recipe.yaml"));
  EXPECT_EQ(read_text(home_ / "run" / "run.json"), "{\"total_steps\":9}\n");
  int written = 0;
  directory.record([&](MetricsFile&) { ++written; });
  EXPECT_FALSE(directory.unrecorded());
  directory.record([](MetricsFile&) { fail(Fault::io, "the disk is full"); });
  ASSERT_TRUE(directory.unrecorded());
  EXPECT_STREQ(directory.unrecorded()->what(), "the disk is full");
  directory.record([&](MetricsFile&) { ++written; });
  EXPECT_EQ(written, 1);
}

TEST_F(RunDirectories, AnotherFaultIsNotOfTheRecords) {
  RunDirectory directory(home_ / "run", *world_);
  directory.accept(recipe(), 0, -1, 9);
  expect_error(Fault::internal, {"a bug"},
               [&] { directory.record([](MetricsFile&) { fail(Fault::internal, "a bug"); }); });
  EXPECT_FALSE(directory.unrecorded());
}

}  // namespace
}  // namespace drover
