// Tasks take turns where they yield, and what fails in one ends both.
#include "model/task.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>

namespace drover {
namespace {

struct Scope {
  std::string& log;
  char name;
  ~Scope() { log += name; }
};

Task yields(std::string& log, char name, int times, bool fails = false) {
  const Scope scope{log, static_cast<char>(name - 'a' + 'A')};
  for (int i = 0; i < times; ++i) {
    log += name;
    co_await yield();
  }
  if (fails) throw std::runtime_error("failed");
  log += name;
}

Task nested(std::string& log, bool fails = false) {
  log += '(';
  co_await yields(log, 'i', 2, fails);
  log += ')';
}

TEST(Task, BeginsWhenItIsRun) {
  std::string log;
  Task task = yields(log, 'a', 2);
  EXPECT_EQ(log, "");
  EXPECT_TRUE(task.resume());
  EXPECT_EQ(log, "a");
  run_alone(std::move(task));
  EXPECT_EQ(log, "aaaA");
}

TEST(Task, TwoTakeTurnsToTheirEnds) {
  std::string log;
  interleave(yields(log, 'a', 1), yields(log, 'b', 3));
  EXPECT_EQ(log, "abaAbbbB");
}

TEST(Task, AYieldWithinAnInnerTaskIsTheOuterOnes) {
  std::string log;
  interleave(nested(log), yields(log, 'b', 2));
  EXPECT_EQ(log, "(ibibiI)bB");
}

TEST(Task, AFailureIsThrownAndEndsBoth) {
  std::string log;
  EXPECT_THROW(interleave(yields(log, 'a', 9), yields(log, 'b', 1, true)), std::runtime_error);
  EXPECT_EQ(log.substr(0, 5), "abaBA");
  EXPECT_EQ(log.size(), 5u);
}

TEST(Task, AFailureWithinAnInnerTaskPassesThroughTheOuterOne) {
  std::string log;
  EXPECT_THROW(interleave(nested(log, true), yields(log, 'b', 9)), std::runtime_error);
  EXPECT_EQ(log, "(ibibIB");
}

TEST(Task, OneThatIsLeftWhileAnInnerOneWaitsEndsBoth) {
  std::string log;
  {
    Task task = nested(log);
    EXPECT_TRUE(task.resume());
  }
  EXPECT_EQ(log, "(iI");
}

TEST(Task, CallsDoNotDeepenTheStack) {
  constexpr int kCalls = 100000;
  std::string log;
  run_alone([](std::string& to) -> Task {
    for (int i = 0; i < kCalls; ++i) co_await yields(to, 'a', 0);
  }(log));
  EXPECT_EQ(log.size(), size_t{2} * kCalls);
}

}  // namespace
}  // namespace drover
