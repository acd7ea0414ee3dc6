// From a recipe's `device` and `parallel.transport` to what this rank computes on and how it speaks to the others.
#pragma once
#include "configs/schema.h"
#include "kernels/comm/device.h"
#include "kernels/devices/devices.h"
#include "launch/process.h"

namespace drover {

// What the recipe's device is on this machine; bad_recipe where it cannot be had.
DeviceKind device_of(const Recipe& recipe);

// Collective over host.world. A rank's GPU is that of its number on the node. Says how the ranks' GPUs speak, unless
// there is one rank.
Device open_device(const Mesh& host, const Recipe& recipe, const Process& process);

}  // namespace drover
