#include "trainer/stop_signal.h"

#include <csignal>
#include <initializer_list>

namespace drover {

namespace {

volatile std::sig_atomic_t requested = 0;

void on_signal(int number) {
  const int reason = number == SIGUSR2 || number == SIGINT ? static_cast<int>(StopReason::interrupted) : static_cast<int>(StopReason::preempted);
  if (requested < reason) requested = reason;
}

}  // namespace

void install_stop_handlers() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  for (int number : {SIGUSR1, SIGUSR2, SIGTERM, SIGINT}) sigaction(number, &action, nullptr);
}

StopReason stop_requested() { return static_cast<StopReason>(requested); }

}  // namespace drover
