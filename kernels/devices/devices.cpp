#include "kernels/devices/devices.h"

#include "kernels/cuda/weight.h"

namespace drover {

BackendTraits traits_of(DeviceKind device) { return device == DeviceKind::cuda ? cuda::kTraits : BackendTraits{}; }

}  // namespace drover
