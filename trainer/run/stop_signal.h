// Stop signals: TERM, USR1 and HUP ask a run to end and to go on later, INT and USR2 interrupt it. They are blocked in
// every thread and taken by one thread of their own. No handler may run on a thread that computes: oneDNN's sgemm
// kernels point the stack register into a heap buffer while they work (uxlfoundation/oneDNN #4845), and a handler's
// frame would be written over the heap.
#pragma once

namespace drover {

enum class StopReason : int { none = 0, preempted = 1, interrupted = 2 };

// Blocks the stop signals in this thread and in every thread that it will start. HUP stays ignored where it is
// (nohup). Calls the system only, so that it can run before any library is initialised. A blocked signal is kept.
void hold_stop_signals();

// For a program without anything to save: the signals end it, as they end any other; one that was held ends it here.
void release_stop_signals();

// While they are held: whether an interrupt (INT) is kept, which is taken out. For a program that computes between two
// looks.
bool take_held_interrupt();

// What a program does about them, and says.
struct StopPlan {
  int (*exit_code)(StopReason);         // of a stop that ends the process at once
  const char* at_once;                  // why nothing is lost by that
  const char* noted;                    // what happens next, where a stop is noted
  int (*second)(StopReason) = nullptr;  // where given: another one ends the process at once, with this code
};

// Starts the thread that takes them. Until `note_stops` a stop ends the process at once, without its run's lock. Calls
// after the first do nothing. `rank`: only rank 0 says that it was asked to stop. PIPE and XFSZ are ignored: a write
// fails instead, and says what it was for.
void take_stop_signals(int rank, const StopPlan& plan);

// From now on a stop is noted; who computes looks for it (stop_requested) at a moment that suits it.
void note_stops();

// From now on a stop means nothing: the run has ended, with or without an error. mpirun sends TERM to the ranks that
// are left when the first one leaves with a code.
void ignore_stops();

StopReason stop_requested();

}  // namespace drover
