#include "tests/nccl/on_device.h"

namespace drover::nccl {

const Api& api_under_test() { return library(); }

}  // namespace drover::nccl
