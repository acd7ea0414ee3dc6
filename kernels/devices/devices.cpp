#include "kernels/devices/devices.h"

#include "kernels/base/error.h"
#include "kernels/cuda/strip.h"

namespace drover {

std::string chosen_device(const std::string& asked) {
  if (asked == "cpu") return asked;
  const CudaStatus cuda = cuda_status();
  if (cuda.usable) return "cuda";
  if (asked == "cuda") fail(Exit::bad_recipe, "device: cuda cannot be used here: {}; or set device: cpu (plans of a recipe for GPUs work anywhere: drover plan)", cuda.why_not);
  return "cpu";
}

BackendTraits traits_of(const std::string& device) { return device == "cuda" ? cuda::kTraits : BackendTraits{}; }

}  // namespace drover
