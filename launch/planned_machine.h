// The rates of plans: those that were measured on this machine with as many ranks, else rough ones of its
// kind.
#pragma once
#include "launch/calibration.h"
#include "launch/planning/hardware.h"
#include "trainer/planning/time_plan.h"

namespace drover {

// Those of a machine of the hardware table, not calibrated.
RoughRates rough_rates(const Machine& machine);
PlannedMachine machine_of_table(const Machine& machine);

// Rough rates of this machine.
PlannedMachine uncalibrated_machine(DeviceKind device, int ranks, int cores);

// `file`: a calibration to take, of whatever machine; empty: the cache's of this machine with `ranks` ranks that share
// `cores` cores.
PlannedMachine planned_machine(DeviceKind device, int ranks, int cores, const std::string& file);

}  // namespace drover
