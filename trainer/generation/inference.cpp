#include "trainer/generation/inference.h"

#include "kernels/base/hash.h"
#include "kernels/comm/agree.h"
#include "trainer/engine/plan.h"
#include "trainer/export/export.h"
#include "trainer/setup/adapter_setup.h"
#include "trainer/setup/engine_settings.h"
#include "trainer/setup/model_check.h"

namespace drover {

namespace {

KvPool make_pool(Replica& replica, const InferenceSettings& s, int64_t capacity) {
  return {replica.stage, replica.arenas.cache, s.batcher.sequences * KvPool::blocks_for(capacity)};
}

Decoder make_decoder(Replica& replica, KvPool& pool) {
  return {replica.stage, replica.device.mesh, replica.backend(), pool, replica.arenas.scratch};
}

struct NamedAdapter {
  std::string hash;  // of its files
  AdapterLayout layout;
};

std::vector<NamedAdapter> named_adapters(const InferenceSettings& s, ModelDirectory& base) {
  std::vector<NamedAdapter> adapters;
  for (const fs::path& directory : s.named_adapters) {
    const AdapterFile file(directory);
    if (!keeps_base(file, base)) {
      fail(Fault::bad_data,
           "{}: the adapter has weights in place of the base's or factors of the embedding, and cannot share the base "
           "with others; ask it alone (--adapter DIR), or merge it (export --model DIR --from ADAPTER --merged OUT)",
           directory.string());
    }
    const std::string weights = sha256_file(directory / "adapter_model.safetensors");
    const std::string settings = sha256_file(directory / "adapter_config.json");
    adapters.push_back({weights + settings, adapter_layout_of(base.config(), file.config())});
  }
  return adapters;
}

// The largest pass, on Count.
ArenaBytes plan(const ReplicaSettings& replica, const InferenceSettings& s, const std::vector<NamedAdapter>& adapters,
                const Device& device) {
  const Mesh& mesh = device.mesh;
  NoWeights nothing;
  Replica counted(replica, count_device(device.backend->traits(), mesh.shape, mesh.position), nothing, kPlenty);
  AdapterPool counted_adapters(counted.stage, counted.backend());
  for (const NamedAdapter& a : adapters) counted_adapters.acquire(a.hash, a.layout, [](AdapterSet&) {});
  KvPool pool = make_pool(counted, s, replica.max_positions);
  Decoder decoder = make_decoder(counted, pool);
  Batcher::rehearse(decoder, s.batcher);
  return counted.peak();
}

}  // namespace

Inference::Inference(const InferenceSettings& s, const Mesh& mesh, const OpenDevice& open_device) {
  ReplicaSettings replica{.dtype = s.dtype, .train = false};
  std::vector<NamedAdapter> named;
  together(*mesh.world, [&] {
    directory_.emplace(s.model);
    check_weights(*directory_);
    if (s.adapter) {
      const AdapterFile adapter(*s.adapter);
      base_.emplace(*directory_, adapter);
      replica.adapter = adapter_layout_of(base_->config(), adapter.config());
    } else {
      base_.emplace(*directory_);
    }
    const ModelConfig& config = replica.model = base_->config();
    named = named_adapters(s, *directory_);
    const std::string why = why_not_tp(config, mesh.shape.tp());
    if (!why.empty()) fail(Fault::bad_recipe, "{}", why);
    replica.partition = partition_layers(config.layers, mesh.shape.pp(), head_cost_in_layers(config));
    const int64_t capacity = s.capacity_tokens > 0 ? s.capacity_tokens : std::min<int64_t>(config.max_positions, 4096);
    if (capacity > config.max_positions) {
      fail(Fault::bad_data, "prompt and answer have {} tokens; the model has {} positions", capacity,
           config.max_positions);
    }
    replica.max_positions = capacity;
  });
  const Device device = open_device(mesh);
  replica_ = open_replica(replica, device, *base_, plan(replica, s, named, device));
  pool_.emplace(make_pool(*replica_, s, replica.max_positions));
  decoder_.emplace(make_decoder(*replica_, *pool_));
  batcher_.emplace(*decoder_, s.batcher);
  together(*mesh.world, [&] {
    const ModelConfig& config = base_->config();
    if (replica_->adapter) load_adapter(*s.adapter, config, *replica_->adapter);
    adapters_.emplace(replica_->stage, replica_->backend());
    for (size_t i = 0; i < named.size(); ++i) {
      const auto load = [&](AdapterSet& adapter) { load_adapter(s.named_adapters[i], config, adapter); };
      slots_.push_back(adapters_->acquire(named[i].hash, named[i].layout, load));
    }
  });
}

}  // namespace drover
