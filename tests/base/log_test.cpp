#include "kernels/base/log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <utility>

namespace drover {
namespace {

TEST(Log, OnlyRankZeroTalksUnlessAsked) {
  testing::internal::CaptureStderr();
  log::set_rank(0, 2);
  log::info("{} ranks", 2);
  log::warn("slow");
  log::set_rank(1, 2);
  EXPECT_EQ(log::rank(), 1);
  log::info("silent");
  log::write_any("lost");
  log::set_rank(0, 1);
  log::write_any("alone");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "2 ranks\nwarning: slow\nrank 1: lost\nalone\n");
}

// Standard error is a pipe of one page for the time of a test.
struct LogIntoAPipe : testing::Test {
  LogIntoAPipe() {
    EXPECT_EQ(pipe(ends_), 0);
    fcntl(ends_[1], F_SETPIPE_SZ, 4096);
    dup2(ends_[1], STDERR_FILENO);
    close(ends_[1]);
  }
  ~LogIntoAPipe() override {
    dup2(kept_, STDERR_FILENO);
    close(kept_);
    if (ends_[0] >= 0) close(ends_[0]);
  }
  int kept_ = dup(STDERR_FILENO), ends_[2] = {};
};

TEST_F(LogIntoAPipe, AReaderThatHasStoppedHoldsItUpForASecondAtMost) {
  const auto begin = std::chrono::steady_clock::now();
  const std::string line(1000, 'x');
  for (int i = 0; i < 1000; ++i) log::write(line);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(3));
  char page[8192];
  EXPECT_GT(read(ends_[0], page, sizeof page), 0);
  log::write("again");  // it reads once more
  const ssize_t got = read(ends_[0], page, sizeof page);
  EXPECT_EQ(std::string(page, static_cast<size_t>(std::max<ssize_t>(got, 0))), "again\n");
}

TEST_F(LogIntoAPipe, AReaderThatIsGoneIsNoError) {
  std::signal(SIGPIPE, SIG_IGN);
  close(std::exchange(ends_[0], -1));
  log::write("nobody hears this");
}

}  // namespace
}  // namespace drover
