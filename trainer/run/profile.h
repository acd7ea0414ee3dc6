// What the time of a run was spent on: the table that log.profile prints.
#pragma once
#include <map>
#include <string>
#include <string_view>

#include "kernels/timed/op_timer.h"

namespace drover {

// Ops by their share of `seconds`, the most expensive first; then the matrix products together, and what lies outside
// the ops (waiting for other ranks, reading data, writing files).
std::string print_profile(const std::map<std::string_view, OpTime>& times, double seconds);

}  // namespace drover
