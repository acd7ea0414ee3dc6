// What the outside asked for: handlers only set a flag; the training loop agrees on it between steps.
#pragma once

namespace drover {

enum class StopReason : int { none = 0, preempted = 1, interrupted = 2 };  // USR1, TERM | USR2, INT

void install_stop_handlers();
StopReason stop_requested();

}  // namespace drover
