// drover doctor --calibrate, and which calibration fits a plan.
#pragma once
#include <string>

#include "kernels/devices/devices.h"
#include "launch/exit_code.h"
#include "launch/process.h"
#include "trainer/planning/calibration.h"

namespace drover {

// This machine's device, with so many ranks on it, as a calibration names it.
MeasuredMachine this_machine(DeviceKind device, int ranks, int threads);

// Collective. Measures this machine with the ranks that there are, and writes the file: `out`, or where plans look for
// it.
Exit calibrate_machine(const Process& process, const std::string& out, bool json);

}  // namespace drover
