// How this program was started, for the commands that it proposes.
#pragma once
#include <string>

namespace drover {

std::string program_name();  // argv[0]; "drover" where the system does not tell

}  // namespace drover
