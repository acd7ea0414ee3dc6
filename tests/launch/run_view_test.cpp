#include "launch/run_view.h"

#include <gmock/gmock.h>

#include <cmath>

namespace drover {
namespace {

using testing::HasSubstr;
using testing::Not;

SeenRun run_of(int64_t steps) {
  SeenRun run{.life = RunLife::working, .host = "here", .pid = 12, .total_steps = 600, .quiet_seconds = 3};
  for (int64_t i = 1; i <= steps; ++i) {
    run.steps.push_back({.step = i,
                         .loss = 2 + 1 / static_cast<double>(i),
                         .grad_norm = 0.5,
                         .learning_rate = 2e-4,
                         .tokens_per_second = 812.3,
                         .step_seconds = 2,
                         .peak_bytes = 3 << 29});
  }
  return run;
}

std::vector<std::string> lines_of(const std::string& page) {
  std::vector<std::string> lines = {""};
  for (const char c : page) {
    if (c == '\n') {
      lines.emplace_back();
    } else {
      lines.back() += c;
    }
  }
  return lines;
}

int64_t columns_of(const std::string& line) {
  return std::ranges::count_if(line, [](char c) { return (c & 0xC0) != 0x80; });
}

TEST(RunPage, SaysHowFarItIs) {
  SeenRun run = run_of(120);
  run.validations = {{0, 3.5}, {50, 2.25}, {100, 2.5}};
  run.checkpoint = 100;
  const std::vector<std::string> lines = lines_of(run_page(run, "runs/x", 80, 24));
  ASSERT_EQ(lines.size(), 24u);
  EXPECT_EQ(lines[0], "runs/x: process 12 works; the last line came 0:03 ago");
  EXPECT_EQ(lines[1], "step 120/600  ████████································  20.0 %  ETA 16:00");
  EXPECT_EQ(lines[2], "loss 2.0083  812 tok/s  1.50 GiB  lr 2.00e-04  grad 0.500");
  EXPECT_EQ(lines[3], "validation 2.5000 after step 100, the lowest 2.2500 after step 50");
  EXPECT_EQ(lines[4], "checkpoint step-100");
  EXPECT_THAT(lines[5], HasSubstr("      3.5 ┤●"));
  EXPECT_THAT(lines[22], HasSubstr("    2.008 ┤"));
  EXPECT_THAT(lines[23], HasSubstr("loss by step, ● validation"));
  EXPECT_TRUE(lines[23].starts_with(std::string(11, ' ') + "0 ") && lines[23].ends_with(" 120")) << lines[23];
}

TEST(RunPage, SaysWhoWorks) {
  const auto first = [](SeenRun run) { return lines_of(run_page(run, "x", 80, 24))[0]; };
  SeenRun run = run_of(3);
  run.life = RunLife::elsewhere;
  run.host = "other";
  EXPECT_EQ(first(run), "x: process 12 on other; the last line came 0:03 ago");
  run.life = RunLife::lost;
  EXPECT_EQ(first(run), "x: process 12 is gone");
  run.life = RunLife::ended;
  EXPECT_EQ(first(run), "x: no process works in it");
  EXPECT_THAT(run_page(run, "x", 80, 24), Not(HasSubstr("ETA")));
  run.total_steps = 3;
  EXPECT_EQ(first(run), "x: done");
  EXPECT_EQ(run_page({}, "x", 80, 24), "x: waiting for it: the directory is not there yet");
  EXPECT_EQ(run_page({.life = RunLife::awaited}, "x", 80, 24),
            "x: waiting for it: no run has begun in the directory yet");
  run = {.life = RunLife::working, .pid = 12};
  EXPECT_EQ(run_page(run, "x", 80, 24), "x: process 12 works\nno step is done yet");
}

TEST(RunPage, HolesAreNeitherZeroNorTheLowest) {
  SeenRun run = run_of(2);
  run.steps.back() = {.step = 2};
  run.validations = {{0, 3.5}, {1, NAN}, {2, NAN}};
  const std::vector<std::string> lines = lines_of(run_page(run, "x", 80, 24));
  EXPECT_EQ(lines[2], "loss –  – tok/s  – GiB  lr –  grad –");
  EXPECT_EQ(lines[3], "validation – after step 2, the lowest 3.5000 after step 0");
  const OrderedJson json = run_json(run, "x");
  for (const char* name : {"loss", "grad_norm", "learning_rate", "tokens_per_second", "peak_bytes"})
    EXPECT_TRUE(json[name].is_null()) << name;
  EXPECT_TRUE(json["validations"][2]["validation_loss"].is_null());
  run.validations = {{0, NAN}};
  EXPECT_EQ(lines_of(run_page(run, "x", 80, 24))[3], "validation – after step 0");
}

TEST(RunPage, TroubleFitsAnySize) {
  EXPECT_EQ(trouble_page("x", "cannot read é", 20, 9), "x: cannot read é");
  EXPECT_EQ(trouble_page("x", "cannot read\nthe file of metrics", 20, 2), "x: cannot read?the f\nile of metrics");
  EXPECT_EQ(trouble_page("x", "cannot read the file of metrics", 20, 1), "x: cannot read the f");
}

TEST(RunPage, FitsAnySize) {
  SeenRun run = run_of(1000);
  run.validations = {{0, 3.5}, {500, NAN}};
  run.checkpoint = 900;
  for (const int64_t steps : {600, 0, 100000}) {
    run.total_steps = steps;
    for (const int64_t columns : {20, 21, 37, 80, 300}) {
      for (const int64_t rows : {1, 2, 5, 8, 9, 40, 100}) {
        const std::vector<std::string> lines = lines_of(run_page(run, std::string(60, 'x') + "\n", columns, rows));
        EXPECT_LE(static_cast<int64_t>(lines.size()), rows);
        for (const std::string& line : lines) EXPECT_LE(columns_of(line), columns) << line;
      }
    }
  }
}

TEST(RunPage, JsonHasWhatIsKnown) {
  SeenRun run = run_of(120);
  run.validations = {{100, 2.5}};
  run.checkpoint = 100;
  EXPECT_EQ(run_json(run, "x").dump(),
            R"({"run":"x","state":"working","host":"here","pid":12,"step":120,"total_steps":600,"seconds_left":960.0,)"
            R"("quiet_seconds":3.0,"loss":2.0083333333333333,"grad_norm":0.5,"learning_rate":0.0002,)"
            R"("tokens_per_second":812.3,"peak_bytes":1610612736,)"
            R"("validations":[{"step":100,"validation_loss":2.5}],"checkpoint":"step-100"})");
  EXPECT_EQ(run_json({.life = RunLife::ended}, "x").dump(),
            R"({"run":"x","state":"ended","host":null,"pid":null,"step":0,"total_steps":null,"seconds_left":null,)"
            R"("quiet_seconds":null,"loss":null,"grad_norm":null,"learning_rate":null,"tokens_per_second":null,)"
            R"("peak_bytes":null,"validations":[],"checkpoint":null})");
}

}  // namespace
}  // namespace drover
