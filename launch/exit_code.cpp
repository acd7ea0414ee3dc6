#include "launch/exit_code.h"

namespace drover {

Exit exit_of(Fault fault) {
  switch (fault) {
    case Fault::usage: return Exit::usage;
    case Fault::bad_data: return Exit::bad_data;
    case Fault::missing_input: return Exit::missing_input;
    case Fault::internal: return Exit::internal;
    case Fault::io: return Exit::io;
    case Fault::bad_recipe: return Exit::bad_recipe;
    case Fault::rank_hangs: return Exit::hang;
    case Fault::non_finite: return Exit::non_finite;
    case Fault::corruption: return Exit::corruption;
    case Fault::rank_lost: return Exit::rank_lost;
  }
  return Exit::internal;
}

Exit exit_of(StopReason stop) {
  switch (stop) {
    case StopReason::none: return Exit::done;
    case StopReason::preempted: return Exit::preempted;
    case StopReason::interrupted: return Exit::interrupted;
  }
  return Exit::internal;
}

}  // namespace drover
