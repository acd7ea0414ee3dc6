#include "kernels/base/program.h"

#include <fstream>

namespace drover {

std::string program_name() {
  std::ifstream arguments("/proc/self/cmdline", std::ios::binary);
  std::string name;
  std::getline(arguments, name, '\0');
  return name.empty() ? "drover" : name;
}

}  // namespace drover
