// What `drover --version` prints.
#pragma once
#include <string>

namespace drover {

std::string program_version();  // "drover 0.1.0 (commit)"
std::string version_text();     // the program's and its libraries', a line each

}  // namespace drover
