// A run's directory as another process sees it: as it grows, is cut back and is left.
#include "trainer/run/seen_run.h"

#include <unistd.h>

#include <cmath>

#include "kernels/base/append_file.h"
#include "kernels/base/host_name.h"
#include "tests/base/scratch_directory.h"
#include "trainer/run/metrics.h"
#include "trainer/run/seen_lock.h"

namespace drover {
namespace {

class SeenRuns : public testing::Test {
 protected:
  SeenRuns() { fs::create_directories(run_); }

  void lock(const std::string& host, int64_t pid) {
    write_text(run_ / "lock", fmt::format(R"({{"host":"{}","pid":{}}})", host, pid));
  }
  std::vector<int64_t> steps() {
    std::vector<int64_t> steps;
    for (const SeenStep& s : reader_.look().steps) steps.push_back(s.step);
    return steps;
  }

  ScratchDirectory home_;
  fs::path run_ = home_ / "run";
  RunReader reader_{run_};
};

StepMetrics metrics_of(int64_t step, double seconds = 1) {
  return {.step = step,
          .loss = 1.0 / static_cast<double>(step),
          .grad_norm = 2,
          .learning_rate = 0.25,
          .tokens = 100,
          .step_seconds = seconds,
          .peak_bytes = 4096};
}

TEST_F(SeenRuns, GrowLineByLine) {
  MetricsFile metrics(run_ / "metrics.jsonl", 0);
  EXPECT_TRUE(steps().empty());
  metrics.step(metrics_of(1));
  metrics.step(metrics_of(2, 2));
  metrics.validation(2, 3.5, 70);
  EXPECT_EQ(steps(), (std::vector<int64_t>{1, 2}));
  const SeenRun& seen = reader_.look();
  const SeenStep& last = seen.steps.back();
  EXPECT_EQ(last.loss, 0.5);
  EXPECT_EQ(last.grad_norm, 2);
  EXPECT_EQ(last.learning_rate, 0.25);
  EXPECT_EQ(last.tokens_per_second, 50);
  EXPECT_EQ(last.step_seconds, 2);
  EXPECT_EQ(last.peak_bytes, 4096);
  ASSERT_EQ(seen.validations.size(), 1u);
  EXPECT_EQ(seen.validations[0].step, 2);
  EXPECT_EQ(seen.validations[0].loss, 3.5);
  EXPECT_LT(seen.quiet_seconds.value(), 60);

  AppendFile file(run_ / "metrics.jsonl", AppendFile::Begin::keep);
  file.write(R"({"step":3,"lo)");
  EXPECT_EQ(steps(), (std::vector<int64_t>{1, 2}));
  file.write("ss\":0.3}\nnot JSON\n[1]\n");
  EXPECT_EQ(steps(), (std::vector<int64_t>{1, 2, 3}));
}

TEST_F(SeenRuns, AreReadAnewWhenAResumeCutsThemBack) {
  {
    MetricsFile metrics(run_ / "metrics.jsonl", 0);
    for (int64_t step = 1; step <= 5; ++step) metrics.step(metrics_of(step));
    metrics.validation(5, 3.5, 70);
  }
  EXPECT_EQ(steps().size(), 5u);
  MetricsFile resumed(run_ / "metrics.jsonl", 3);
  for (int64_t step = 4; step <= 9; ++step) resumed.step(metrics_of(step));  // longer than it was
  EXPECT_EQ(steps(), (std::vector<int64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9}));
  EXPECT_TRUE(reader_.look().validations.empty());
  fs::resize_file(run_ / "metrics.jsonl", 0);
  EXPECT_TRUE(steps().empty());
}

TEST_F(SeenRuns, SayWhoWorks) {
  write_text(run_ / "recipe.yaml", "");
  const auto life = [&] { return reader_.look().life; };
  EXPECT_EQ(life(), RunLife::ended);
  lock(host_name(), getpid());
  EXPECT_EQ(life(), RunLife::working);
  EXPECT_EQ(reader_.look().pid, getpid());
  lock(host_name(), 0x7FFFFFFF);
  EXPECT_EQ(life(), RunLife::lost);
  lock("elsewhere", 1);
  EXPECT_EQ(life(), RunLife::elsewhere);
  EXPECT_EQ(reader_.look().host, "elsewhere");
  write_text(run_ / "lock", "");
  EXPECT_EQ(life(), RunLife::lost);
  fs::remove_all(run_);
  EXPECT_EQ(life(), RunLife::absent);
  EXPECT_TRUE(reader_.look().host.empty());
}

TEST_F(SeenRuns, HaveATotalAndACheckpoint) {
  write_text(run_ / "lock", "");
  EXPECT_EQ(reader_.look().total_steps, 0);
  EXPECT_FALSE(reader_.look().checkpoint);
  EXPECT_FALSE(reader_.look().seconds_left());
  write_text(run_ / "run.json", R"({"total_steps": 50})");
  for (const char* name : {"step-2", "step-10", "step-30.tmp"}) fs::create_directories(run_ / name);
  MetricsFile metrics(run_ / "metrics.jsonl", 0);
  for (int64_t step = 1; step <= 40; ++step) metrics.step(metrics_of(step, step <= 20 ? 100 : 3));
  EXPECT_EQ(reader_.look().total_steps, 50);
  EXPECT_EQ(reader_.look().checkpoint, 10);
  EXPECT_EQ(reader_.look().seconds_left(), 30);  // ten steps, as the last twenty were
}

TEST_F(SeenRuns, MayNotHaveBegun) {
  EXPECT_EQ(reader_.look().life, RunLife::awaited);
  fs::create_directories(run_ / "data");
  EXPECT_EQ(reader_.look().life, RunLife::awaited);
  lock(host_name(), getpid());
  EXPECT_EQ(reader_.look().life, RunLife::working);
}

TEST_F(SeenRuns, HaveHolesWhereALineHasNull) {
  write_text(run_ / "metrics.jsonl",
             "{\"step\":1,\"loss\":2.5,\"step_seconds\":3}\n{\"step\":2,\"loss\":null,\"grad_norm\":null}\n"
             "{\"step\":-3,\"loss\":1}\n{\"step\":2.5,\"loss\":1}\n{\"step\":1e300,\"loss\":1}\n"
             "{\"step\":2,\"validation_loss\":null}\n");
  write_text(run_ / "run.json", R"({"total_steps": 4})");
  EXPECT_EQ(steps(), (std::vector<int64_t>{1, 2}));
  const SeenRun& seen = reader_.look();
  EXPECT_TRUE(std::isnan(seen.steps[1].loss) && std::isnan(seen.steps[1].grad_norm));
  EXPECT_TRUE(std::isnan(seen.validations[0].loss));
  EXPECT_EQ(seen.seconds_left(), 6);
}

TEST(SeenLock, NamesAProcessOrNone) {
  const ScratchDirectory home;
  const auto state = [&](const std::string& text) {
    write_text(home / "lock", text);
    return seen_lock(home.path()).state;
  };
  EXPECT_EQ(seen_lock(home / "absent").state, LockState::free);
  EXPECT_EQ(state(fmt::format(R"({{"host":"{}","pid":{}}})", host_name(), getpid())), LockState::here);
  EXPECT_EQ(state(R"({"host":"elsewhere","pid":1})"), LockState::elsewhere);
  for (const char* text : {"", "[1]", "{\"host\":3,\"pid\":1}", "{\"host\":\"x\",\"pid\":0}",
                           "{\"host\":\"x\",\"pid\":4294967297}", "{\"host\":\"x\",\"pid\":1.5}"}) {
    EXPECT_EQ(state(text), LockState::left) << text;
  }
}

TEST_F(SeenRuns, AreNoOtherDirectories) {
  write_text(run_ / "notes.txt", "");
  expect_error(Fault::missing_input, {"is not a run", "recipe.yaml, metrics.jsonl and lock", "output.dir"},
               [&] { reader_.look(); });
  write_text(home_ / "file", "");
  RunReader file(home_ / "file");
  expect_error(Fault::missing_input, {"is not a run"}, [&] { file.look(); });
}

}  // namespace
}  // namespace drover
