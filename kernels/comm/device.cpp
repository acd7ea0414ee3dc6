#include "kernels/comm/device.h"

#include <map>

#include "kernels/comm/agree.h"

namespace drover {

std::string shared_gpu(const std::vector<std::string>& gpus) {
  std::map<std::string, std::vector<int>> ranks;
  for (size_t rank = 0; rank < gpus.size(); ++rank) ranks[gpus[rank]].push_back(static_cast<int>(rank));
  for (const auto& [gpu, sharing] : ranks) {
    if (sharing.size() > 1) return fmt::format("ranks {} share one GPU ({})", list_ranks(sharing), gpu);
  }
  return {};
}

}  // namespace drover
