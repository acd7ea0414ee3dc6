#include "trainer/engine/replica.h"

#include "kernels/comm/agree.h"
#include "kernels/count/count.h"
#include "trainer/run/checkpoint.h"

namespace drover {

namespace {

Placement placement_of(const ReplicaSettings& s, const Mesh& mesh) {
  const LayerRange range = s.partition[static_cast<size_t>(mesh.position.pp())];
  return {.tp_rank = mesh.position.tp(),
          .tp_size = mesh.shape.tp(),
          .layer_begin = range.begin,
          .layer_end = range.end,
          .first = mesh.position.pp() == 0,
          .last = mesh.position.pp() == mesh.shape.pp() - 1};
}

AdapterSet* make_adapter(const ReplicaSettings& s, Replica& r) {
  if (s.adapter.empty()) return nullptr;
  std::vector<FactorSlice> factors = factor_slices(s.model, s.adapter, placement_of(s, r.device.mesh));
  r.trainables.emplace(std::vector<Slice>(factors.begin(), factors.end()), r.backend(), r.arenas.adapter,
                       s.train ? &r.arenas.optimizer : nullptr);
  return &r.adapter.emplace(s.adapter, std::move(factors), r.trainables->parameters, r.trainables->gradients, s.dtype,
                            r.backend(), r.arenas.adapter);
}

}  // namespace

Arenas::Arenas(Memory& memory, const ArenaBytes& capacity)
    : weights("weights", memory, capacity.weights),
      adapter("adapter", memory, capacity.adapter),
      optimizer("optimizer", memory, capacity.optimizer),
      scratch("scratch", memory, capacity.scratch),
      cache("cache", memory, capacity.cache) {}

Replica::Replica(const ReplicaSettings& s, Device on, WeightSource& source, const ArenaBytes& capacity)
    : device(std::move(on)),
      arenas(backend().memory(), capacity),
      stage(StageShape{s.model, placement_of(s, device.mesh), s.dtype, s.max_positions, s.weights, s.products},
            Loading{device.mesh.tp(), backend(), arenas.weights, source, make_adapter(s, *this)}) {}

void Replica::load(const Checkpoint& checkpoint) {
  checkpoint.load(*trainables, backend());
  adapter->refresh();
}

ArenaBytes Replica::peak() const {
  return {.weights = arenas.weights.peak_bytes(),
          .adapter = arenas.adapter.peak_bytes(),
          .optimizer = arenas.optimizer.peak_bytes(),
          .scratch = arenas.scratch.peak_bytes(),
          .cache = arenas.cache.peak_bytes()};
}

Device count_device(const BackendTraits& traits, const MeshShape& shape, const MeshPosition& position) {
  return {std::make_shared<CountBackend>(traits), make_count_mesh(shape, position)};
}

std::unique_ptr<Replica> open_replica(const ReplicaSettings& settings, Device device, BaseWeights weights,
                                      const ArenaBytes& capacity) {
  const std::shared_ptr<Communicator> world = device.mesh.world;
  std::unique_ptr<Replica> replica;
  together(*world, [&] { replica = std::make_unique<Replica>(settings, std::move(device), weights, capacity); });
  return replica;
}

}  // namespace drover
