// How the rank that hangs is found. Every rank that has waited too long for another says so, and there is a moment for
// all to say it before the first of them ends the job: who has not said it hangs. launch/rank-output names it.
#pragma once
#include <string>

#include "kernels/base/watchdog.h"

namespace drover {

// Says `text`, as this rank's, and that this rank waits; then gives the others that moment.
void say_waiting(const std::string& text, int rank, int ranks);

// While it lives: the start or end of MPI, calls that have no deadline of their own. Where it takes longer than a wait
// for a peer may, this rank says so and the process ends with `rank_hangs`.
Watchdog limit_of_mpi(const char* what, int rank, int ranks);

}  // namespace drover
