// The file of a calibration: it comes back as it was written, and one that is none is refused.
#include "trainer/planning/calibration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/base/error.h"

namespace drover {
namespace {

using testing::HasSubstr;

struct CalibrationFile : testing::Test {
  const fs::path folder = fs::path(testing::TempDir()) / "drover-calibration-test";
  const fs::path file = folder / "c.json";
  void TearDown() override { fs::remove_all(folder); }

  static Calibration some() {
    return {.machine = {"A CPU (avx2)", 2, 4},
            .version = "drover 1",
            .date = "2026-11-30",
            .seconds = 60,
            .outside_per_call = 2e-6,
            .read = 1e9,
            .write = 2e8,
            .ops = {{.op = "linear",
                     .dtype = DType::bf16,
                     .format = Format::nf4,
                     .generates = true,
                     .a = {3, 4},
                     .b = {5, 4},
                     .flops = 120,
                     .bytes = 94,
                     .seconds = 1e-6},
                    {.op = "copy", .dtype = DType::f32, .a = {1, 2}, .bytes = 16, .seconds = 2e-6},
                    {.op = "linear_dx",
                     .format = Format::fp8,
                     .products = Products::fp8,
                     .a = {1, 2},
                     .b = {3, 2},
                     .flops = 12,
                     .bytes = 16,
                     .seconds = 3e-6}},
            .messages = {{"all_reduce", 2, 64, 3e-6}}};
  }
  std::string problem_of(const std::string& text) {
    fs::create_directories(folder);
    write_text(file, text);
    try {
      read_calibration(file);
    } catch (const Error& e) {
      EXPECT_EQ(e.fault(), Fault::bad_data);
      return e.what();
    }
    return "";
  }
};

TEST_F(CalibrationFile, ComesBackAsItWasWritten) {
  write_calibration(some(), file);
  const Calibration c = read_calibration(file);
  EXPECT_EQ(c.machine, some().machine);
  EXPECT_EQ(c.version, "drover 1");
  EXPECT_EQ(c.date, "2026-11-30");
  EXPECT_EQ(c.read, 1e9);
  EXPECT_EQ(c.write, 2e8);
  EXPECT_EQ(c.outside_per_call, 2e-6);
  ASSERT_EQ(c.ops.size(), 3);
  EXPECT_EQ(c.ops[2].format, Format::fp8);
  EXPECT_EQ(c.ops[2].products, Products::fp8);
  EXPECT_EQ(c.ops[0].products, Products::widened);
  EXPECT_EQ(c.ops[0].op, "linear");
  EXPECT_EQ(c.ops[0].format, Format::nf4);
  EXPECT_EQ(c.ops[0].dtype, DType::bf16);
  EXPECT_TRUE(c.ops[0].generates);
  EXPECT_EQ(c.ops[0].b, (Shape{5, 4}));
  EXPECT_EQ(c.ops[1].bytes, 16);
  EXPECT_EQ(c.ops[1].seconds, 2e-6);
  ASSERT_EQ(c.messages.size(), 1);
  EXPECT_EQ(c.messages[0].seconds, 3e-6);
}

TEST_F(CalibrationFile, FromBeforeWritingWasMeasuredIsRead) {
  write_calibration(some(), file);
  std::string text = read_text(file);
  const std::string key = "\"write\":200000000.0,";
  ASSERT_NE(text.find(key), std::string::npos) << text;
  text.erase(text.find(key), key.size());
  write_text(file, text);
  EXPECT_EQ(read_calibration(file).write, 0);
  EXPECT_EQ(read_calibration(file).read, 1e9);
}

TEST_F(CalibrationFile, WhatIsNoneIsRefusedWithWhatToDo) {
  EXPECT_THAT(problem_of("{"), HasSubstr(file.string()));
  EXPECT_THAT(problem_of("{}"), HasSubstr("drover doctor --calibrate"));
  write_calibration(some(), file);
  std::string text = read_text(file);
  text.replace(text.find("\"bf16\""), 6, "\"bf17\"");
  EXPECT_THAT(problem_of(text), HasSubstr("'bf17' is none of f32, bf16"));
  for (const auto& [right, wrong] : {std::pair{"\"outside_per_call\":2e-06", "\"outside_per_call\":-1"},
                                     {"\"ranks\":2", "\"ranks\":0"},
                                     {"\"read\":1000000000.0", "\"read\":1e300"},
                                     {"\"write\":200000000.0", "\"write\":-1"},
                                     {"94,1e-06", "94,1e308"},
                                     {"94,1e-06", "94,5e-324"},
                                     {"120,94", "-120,94"},
                                     {"120,94", "1e300,94"},
                                     {"64,3e-06", "64,-3e-06"}}) {
    text = read_text(file);
    ASSERT_NE(text.find(right), std::string::npos) << right << text;
    text.replace(text.find(right), std::string(right).size(), wrong);
    EXPECT_THAT(problem_of(text), HasSubstr("allowed is")) << wrong;
    write_calibration(some(), file);
  }
  Calibration none = some();
  none.ops.clear();
  write_calibration(none, file);
  EXPECT_THAT(problem_of(read_text(file)), HasSubstr("it holds no op"));
}

TEST_F(CalibrationFile, EachMachineHasItsOwn) {
  const MeasuredMachine one{"NVIDIA H100 80GB HBM3", 1, 1}, eight{"NVIDIA H100 80GB HBM3", 8, 1};
  EXPECT_NE(calibration_file(one), calibration_file(eight));
  EXPECT_THAT(calibration_file(one).filename().string(), testing::StartsWith("calibration-nvidia-h100-80gb-hbm3-"));
}

}  // namespace
}  // namespace drover
