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

// Where sums over tp may overlap with computing, two parts of a micro-batch are at two blocks while the third comes.
StreamedWeights* make_streamed(const ReplicaSettings& s, Replica& r) {
  if (!s.streamed) return nullptr;
  const size_t slots = r.backend().traits().own_memory && r.device.mesh.tp().size() > 1 ? 3 : 2;
  return &r.streamed_weights.emplace(r.backend(), r.arenas.weights, r.adapter ? &*r.adapter : nullptr, slots);
}

Loading loading_of(const ReplicaSettings& s, Replica& r, WeightSource& source) {
  Loading loading{r.device.mesh.tp(), r.backend(), r.arenas.weights, source, make_adapter(s, r)};
  loading.streamed = make_streamed(s, r);
  loading.threads = r.device.threads;
  return loading;
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
            loading_of(s, *this, source)) {}

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

namespace {

// Weights that are read while somebody else may read the directory come through a directory of their own.
struct OwnWeights {
  OwnWeights(BaseWeights from, bool own) : weights(std::move(from)) {
    if (own) weights.read_through(directory.emplace(weights.directory().path()));
  }
  std::optional<ModelDirectory> directory;
  BaseWeights weights;
};

}  // namespace

std::unique_ptr<Replica> open_replica(const ReplicaSettings& settings, Device device, BaseWeights weights,
                                      const ArenaBytes& capacity) {
  const std::shared_ptr<Communicator> world = device.mesh.world;
  std::unique_ptr<Replica> replica;
  together(*world, [&] {
    const bool kept = settings.streamed && !device.backend->traits().own_memory;
    const auto own = std::make_shared<OwnWeights>(std::move(weights), kept);
    replica = std::make_unique<Replica>(settings, std::move(device), own->weights, capacity);
    if (kept) replica->kept_source = std::shared_ptr<WeightSource>(own, &own->weights);
  });
  return replica;
}

}  // namespace drover
