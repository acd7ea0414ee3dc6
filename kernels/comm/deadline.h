// How long a wait for a peer lasts, and how it waits: first by spinning, then by giving up the core, then by short
// sleeps, so that ranks that share a core do not keep it from the one that computes.
#pragma once
#include <chrono>

namespace drover {

// Deadline of every wait for a peer: DROVER_COMM_TIMEOUT_S, 600 where that is unset or not a positive number.
double comm_deadline_seconds();

class Deadline {
 public:
  explicit Deadline(double seconds = comm_deadline_seconds());
  void pause();  // one step of the back-off
  bool passed() const { return std::chrono::steady_clock::now() >= end_; }

 private:
  std::chrono::steady_clock::time_point start_, end_;
  int pauses_ = 0;
};

}  // namespace drover
