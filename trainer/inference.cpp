#include "trainer/inference.h"

#include "kernels/comm/agree.h"
#include "trainer/adapter_setup.h"
#include "trainer/engine_settings.h"
#include "trainer/export.h"
#include "trainer/model_check.h"
#include "trainer/plan.h"

namespace drover {

namespace {

KvPool make_pool(Replica& replica, const InferenceSettings& s, int64_t capacity) {
  return {replica.stage, replica.arenas.cache, s.batcher.sequences * KvPool::blocks_for(capacity)};
}

Decoder make_decoder(Replica& replica, KvPool& pool) {
  return {replica.stage, replica.device.mesh, replica.backend(), pool, replica.arenas.scratch};
}

// The largest pass, on Count.
ArenaBytes plan(const ReplicaSettings& replica, const InferenceSettings& s, const Device& device) {
  const Mesh& mesh = device.mesh;
  NoWeights nothing;
  Replica counted(replica, count_device(device.backend->traits(), mesh.shape, mesh.position), nothing, kPlenty);
  KvPool pool = make_pool(counted, s, replica.max_positions);
  Decoder decoder = make_decoder(counted, pool);
  Batcher::rehearse(decoder, s.batcher);
  return counted.peak();
}

}  // namespace

Inference::Inference(const InferenceSettings& s, const Mesh& mesh, const OpenDevice& open_device) {
  ReplicaSettings replica{.dtype = s.dtype, .train = false};
  together(*mesh.world, [&] {
    directory_.emplace(s.model);
    check_weights(*directory_);
    const ModelConfig& config = directory_->config();
    replica.model = config;
    if (s.adapter) replica.adapter = adapter_layout_of(config, adapter_config_in(*s.adapter));
    const std::string why = why_not_tp(config, mesh.shape.tp());
    if (!why.empty()) fail(Exit::bad_recipe, "{}", why);
    replica.partition = partition_layers(config.layers, mesh.shape.pp(), head_cost_in_layers(config));
    const int64_t capacity = s.capacity_tokens > 0 ? s.capacity_tokens : std::min<int64_t>(config.max_positions, 4096);
    if (capacity > config.max_positions) {
      fail(Exit::bad_data, "prompt and answer have {} tokens; the model has {} positions", capacity,
           config.max_positions);
    }
    replica.max_positions = capacity;
  });
  const Device device = open_device(mesh);
  replica_ = open_replica(replica, device, *directory_, plan(replica, s, device));
  pool_.emplace(make_pool(*replica_, s, replica.max_positions));
  decoder_.emplace(make_decoder(*replica_, *pool_));
  batcher_.emplace(*decoder_, s.batcher);
  together(*mesh.world, [&] {
    if (s.adapter) load_adapter(*s.adapter, directory_->config(), *replica_->adapter);
  });
}

}  // namespace drover
