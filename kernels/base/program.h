// How this program was started, for the commands that it proposes.
#pragma once
#include <string>

namespace drover {

std::string program_name();  // argv[0]; "drover" where the system does not tell

// Opens descriptors 0, 1 and 2 onto /dev/null where they are closed, so that no file of ours is taken for one of them. Calls the system only.
void open_standard_descriptors();

}  // namespace drover
