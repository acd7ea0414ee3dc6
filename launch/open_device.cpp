#include "launch/open_device.h"

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "kernels/comm/agree.h"
#include "kernels/comm/staged.h"
#include "kernels/cpu/cpu_backend.h"

namespace drover {

namespace {

DeviceKind chosen_device(DeviceChoice asked) {
  if (asked == DeviceChoice::cpu) return DeviceKind::cpu;
  const CudaStatus cuda = cuda_status();
  if (cuda.usable) return DeviceKind::cuda;
  if (asked == DeviceChoice::cuda) {
    fail(Fault::bad_recipe,
         "device: cuda cannot be used here: {}; or set device: cpu (plans of a recipe for GPUs work anywhere: drover "
         "plan)",
         cuda.why_not);
  }
  return DeviceKind::cpu;
}

DeviceKind agreed_device(Communicator& world, const Recipe& recipe) {
  DeviceKind mine = DeviceKind::cpu;
  together(world, [&] { mine = device_of(recipe); });
  const std::vector<std::string> all =
      world.gather_strings(mine == DeviceKind::cuda ? "cuda" : "cpu " + cuda_status().why_not);
  std::vector<int> without;
  std::string why;
  for (size_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank] == "cuda") continue;
    without.push_back(static_cast<int>(rank));
    if (why.empty()) why = all[rank].substr(4);
  }
  if (!without.empty() && without.size() < all.size()) {
    fail(Fault::bad_recipe,
         "rank{} {} found no usable GPU, and the others did: {}; set device: cpu, or start ranks only where there are "
         "GPUs",
         without.size() == 1 ? "" : "s", list_ranks(without), why);
  }
  return mine;
}

}  // namespace

DeviceKind device_of(const Recipe& recipe) {
  const DeviceKind device = chosen_device(recipe.device);
  if (device == DeviceKind::cpu && recipe.parallel.transport != Transport::automatic) {
    fail(Fault::bad_recipe,
         "parallel.transport: {} is for device: cuda, and these ranks compute on CPUs, where MPI is the transport; "
         "leave it out",
         word_of(recipe.parallel.transport));
  }
  return device;
}

Device open_device(const Mesh& host, const Recipe& recipe, const Process& process) {
  Communicator& world = *host.world;
  if (agreed_device(world, recipe) == DeviceKind::cpu)
    return {make_cpu_backend(process.threads), host, process.threads};

  Device device{nullptr, host, process.threads};
  const CudaChoice choice{.device = process.mpi.local_rank % std::max(1, cuda_status().devices),
                          .deterministic = recipe.train.deterministic};
  together(world, [&] { device.backend = make_cuda_backend(choice); });
  if (world.size() == 1) return device;

  const CudaIdentity gpu = cuda_identity(choice.device);
  const std::string sharing = shared_gpu(world.gather_strings(gpu.name + " " + gpu.uuid));
  const Transport transport = recipe.parallel.transport;
  std::string why = transport == Transport::staged ? "as the recipe says" : transport == Transport::nccl ? "" : sharing;
  if (why.empty()) {
    std::string trouble;
    try {
      nccl_version();
    } catch (const Error& error) {
      trouble = error.what();
    }
    if (transport == Transport::nccl) {
      together(world, [&] {
        if (!trouble.empty()) fail(Fault::bad_recipe, "{}", trouble);
      });
    }
    for (const std::string& text : world.gather_strings(trouble)) {
      if (why.empty()) why = text;
    }
  }
  if (why.empty()) {
    device.mesh = make_nccl_mesh(host, *device.backend, choice);
    log::info("the ranks' GPUs speak through NCCL {}", nccl_version());
  } else {
    device.mesh = make_staged_mesh(host, *device.backend);
    log::warn("the ranks' GPUs speak through host memory and MPI, which is slow: {}", why);
  }
  return device;
}

}  // namespace drover
