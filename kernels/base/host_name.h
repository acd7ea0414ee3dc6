// This machine among those of a run.
#pragma once
#include <string>

namespace drover {

std::string host_name();

}  // namespace drover
