#include "trainer/run/stop_signal.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "kernels/base/log.h"
#include "trainer/run/run_lock.h"

namespace drover {

namespace {

std::atomic<int> requested{0};
std::mutex deciding;  // whether a stop ends the process or is noted
bool noting = false, leaving = false;

sigset_t stop_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (int number : {SIGTERM, SIGUSR1, SIGINT, SIGUSR2}) sigaddset(&set, number);
  struct sigaction hangup {};
  if (sigaction(SIGHUP, nullptr, &hangup) == 0 && hangup.sa_handler != SIG_IGN) sigaddset(&set, SIGHUP);
  return set;
}

const char* name_of(int number) {
  switch (number) {
    case SIGTERM: return "TERM";
    case SIGUSR1: return "USR1";
    case SIGHUP: return "HUP";
    case SIGINT: return "INT";
    default: return "USR2";
  }
}

void stop(int number, int rank, const StopPlan& plan) {
  const bool interrupted = number == SIGINT || number == SIGUSR2;
  const StopReason reason = interrupted ? StopReason::interrupted : StopReason::preempted;
  const std::lock_guard lock(deciding);
  if (leaving) return;
  const bool first = requested.load() == 0;
  if (requested.load() < static_cast<int>(reason)) requested = static_cast<int>(reason);
  // launch/run takes "drover: stop requested" as the ranks' answer to its signal.
  if (first && rank == 0) {
    log::put(fmt::format("drover: stop requested ({}): {}\n", name_of(number), noting ? plan.noted : plan.at_once));
  }
  if (noting && (first || plan.second == nullptr)) return;
  remove_held_lock();
  _exit(noting ? plan.second(reason) : plan.exit_code(reason));
}

}  // namespace

void hold_stop_signals() {
  const sigset_t set = stop_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

void release_stop_signals() {
  const sigset_t set = stop_signals();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

bool take_held_interrupt() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  const timespec at_once{};
  return sigtimedwait(&set, nullptr, &at_once) == SIGINT;
}

void take_stop_signals(int rank, const StopPlan& plan) {
  static std::once_flag once;
  std::call_once(once, [=] {
    hold_stop_signals();
    for (int number : {SIGPIPE, SIGXFSZ}) std::signal(number, SIG_IGN);
    std::thread([=, set = stop_signals()] {
      while (true) {
        int number = 0;
        if (sigwait(&set, &number) == 0) stop(number, rank, plan);
      }
    }).detach();
  });
}

void note_stops() {
  const std::lock_guard lock(deciding);
  noting = true;
}

void ignore_stops() {
  const std::lock_guard lock(deciding);
  leaving = true;
}

StopReason stop_requested() { return static_cast<StopReason>(requested.load()); }

}  // namespace drover
