// This process: how it was started, and how it ends by itself.
#pragma once
#include <string>

#include "kernels/base/error.h"

namespace drover {

// The code with which the process ends by a fault that no caller hears of; set before threads start, `internal` until
// then.
void set_exit_codes(int (*code_of)(Fault));
[[noreturn]] void end_process(Fault fault);  // at once, from any thread

std::string program_name();  // argv[0]; "drover" where the system does not tell
// The text as one word of a POSIX shell, for commands that are printed.
std::string shell_quoted(const std::string& text);

// Opens descriptors 0, 1 and 2 onto /dev/null where they are closed, so that no file of ours is taken for one of them.
// Calls the system only.
void open_standard_descriptors();

}  // namespace drover
