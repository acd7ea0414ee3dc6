// What `drover --version` prints.
#pragma once
#include <string>

namespace drover {

std::string version_text();  // the program's and its libraries', a line each

}  // namespace drover
