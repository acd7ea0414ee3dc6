#include "kernels/nccl/nccl_mesh.h"

#include "kernels/comm/agree.h"
#include "kernels/comm/device.h"
#include "kernels/comm/gather.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/uuid.h"
#include "kernels/nccl/link.h"

namespace drover::nccl {

namespace {

ncclUniqueId agreed_id(const Api& api, Communicator& world) {
  ncclUniqueId id{};
  together(world, [&] {
    if (world.rank() != 0) return;
    const ncclResult_t result = api.get_unique_id(&id);
    if (result != ncclSuccess)
      fail(Fault::rank_lost, "NCCL cannot start: {}; NCCL_DEBUG=WARN in the environment says more",
           api.error_string(result));
  });
  return gather(world, id).front();
}

// Connections are made by the first call that needs them: so they are made here, where a deadline holds, and not in the
// first step.
void meet(Communicator& axis, bool neighbours, cuda::CudaBackend& backend) {
  constexpr int64_t kLarge =
      1 << 20;  // elements: NCCL sums small and large tensors by other ways, each with connections of its own
  Arena arena("nccl", backend.memory(),
              Arena::bytes_of(kLarge, 1, DType::f32) + Arena::bytes_of(axis.size(), kLarge / 64, DType::f32) +
                  2 * Arena::kAlign);
  Tensor sum = arena.tensor(kLarge, 1, DType::f32), whole = arena.tensor(axis.size(), kLarge / 64, DType::f32),
         out = arena.tensor(1, 1, DType::f32), in = arena.tensor(1, 1, DType::f32);
  axis.all_reduce(sum.rows_from(0, axis.size()));
  axis.all_reduce(sum);
  axis.all_gather(whole.rows_from(axis.rank(), 1), whole);
  const auto pair = [&](int upper) {  // with the rank below, as the pipeline does
    if (upper < 1 || upper >= axis.size()) return;
    const int peer = axis.rank() == upper ? upper - 1 : upper;
    const PeerMessage both[] = {{PeerMessage::Way::send, out, peer, 0}, {PeerMessage::Way::receive, in, peer, 0}};
    axis.exchange(both)->wait();
  };
  if (neighbours) {  // even ranks with the one above first, so that no chain of ranks waits for its end
    pair(axis.rank() % 2 == 0 ? axis.rank() + 1 : axis.rank());
    pair(axis.rank() % 2 == 0 ? axis.rank() : axis.rank() + 1);
  }
  float ignored;
  backend.download(sum.rows_from(0, 1), &ignored);  // waits
}

}  // namespace

Mesh make_mesh(const Api& api, const Mesh& host, cuda::CudaBackend& backend, const Settings& settings) {
  Communicator& world = *host.world;
  // NCCL would refuse it too, or hang.
  cudaDeviceProp gpu{};
  cuda::check(cudaGetDeviceProperties(&gpu, settings.device), "cudaGetDeviceProperties");
  const std::string sharing = shared_gpu(world.gather_strings(fmt::format("{} {}", gpu.name, cuda::uuid_of(gpu))));
  if (!sharing.empty())
    fail(Fault::bad_recipe,
         "{}, and NCCL wants one for every rank; start fewer ranks a node, or set parallel.transport: staged", sharing);
  check_same(world, "NCCL's version", version_of(api));
  const ncclUniqueId id = agreed_id(api, world);
  const auto link = std::make_shared<Link>(api, host.world, backend, settings.device);
  const ncclComm_t all = link->init(world.size(), world.rank(), id);

  Mesh mesh = drover::make_mesh(host.shape, host.world, [&](Axis axis, int colour, int key) {
    const ncclComm_t members = link->split(all, colour, key, name_of(axis));
    return make_communicator(link, host.axes[axis], members, settings.deterministic);
  });
  for (const Axis axis : kAxes) {
    if (mesh.shape[axis] > 1) meet(*mesh.axes[axis], axis == Axis::pp, backend);
  }
  return mesh;
}

}  // namespace drover::nccl
