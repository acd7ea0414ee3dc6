// Passes take turns at their stops, and what fails in one ends both.
#include "model/pass.h"

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

Pass stops(std::string& log, char name, int times, bool fails = false) {
  const Scope scope{log, static_cast<char>(name - 'a' + 'A')};
  for (int i = 0; i < times; ++i) {
    log += name;
    co_await others_go_on();
  }
  if (fails) throw std::runtime_error("failed");
  log += name;
}

Pass nested(std::string& log) {
  log += '(';
  for (Pass inner = stops(log, 'i', 2); inner.go_on();) co_await others_go_on();
  log += ')';
}

TEST(Pass, BeginsWhenItIsRun) {
  std::string log;
  Pass pass = stops(log, 'a', 2);
  EXPECT_EQ(log, "");
  EXPECT_TRUE(pass.go_on());
  EXPECT_EQ(log, "a");
  run_alone(std::move(pass));
  EXPECT_EQ(log, "aaaA");
}

TEST(Pass, TwoTakeTurnsToTheirEnds) {
  std::string log;
  run_in_turn(stops(log, 'a', 1), stops(log, 'b', 3));
  EXPECT_EQ(log, "abaAbbbB");
}

TEST(Pass, AStopWithinAPassIsItsOwn) {
  std::string log;
  run_in_turn(nested(log), stops(log, 'b', 2));
  EXPECT_EQ(log, "(ibibiI)bB");
}

TEST(Pass, AFailureIsThrownAndEndsBoth) {
  std::string log;
  EXPECT_THROW(run_in_turn(stops(log, 'a', 9), stops(log, 'b', 1, true)), std::runtime_error);
  EXPECT_EQ(log.substr(0, 5), "abaBA");
  EXPECT_EQ(log.size(), 5u);
}

}  // namespace
}  // namespace drover
