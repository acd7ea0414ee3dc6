#include "kernels/base/program.h"

#include <fcntl.h>
#include <unistd.h>

#include <fstream>

namespace drover {

namespace {
int (*exit_code_of)(Fault) = [](Fault) { return 70; };
}

void set_exit_codes(int (*code_of)(Fault)) { exit_code_of = code_of; }

void end_process(Fault fault) { _exit(exit_code_of(fault)); }

std::string program_name() {
  std::ifstream arguments("/proc/self/cmdline", std::ios::binary);
  std::string name;
  std::getline(arguments, name, '\0');
  return name.empty() ? "drover" : name;
}

std::string shell_quoted(const std::string& text) {
  constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-+=:,@%";
  if (!text.empty() && text.find_first_not_of(kPlain) == std::string::npos) return text;
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

void open_standard_descriptors() {
  for (int descriptor : {0, 1, 2}) {
    // The lowest free number is the one that is missing: those below it are open by now.
    if (fcntl(descriptor, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0) return;
  }
}

}  // namespace drover
