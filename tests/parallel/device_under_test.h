// What mesh_run computes on: each program that it is built into has its own.
#pragma once
#include "kernels/comm/device.h"

namespace drover {

Device device_under_test(const Mesh& host);

}  // namespace drover
