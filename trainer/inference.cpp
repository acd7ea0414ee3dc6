#include "trainer/inference.h"

#include "kernels/comm/agree.h"
#include "kernels/count/count.h"
#include "trainer/export.h"
#include "trainer/model_check.h"

namespace drover {

namespace {

struct Parts {
  std::unique_ptr<AdapterSet> adapter;
  std::unique_ptr<Stage> stage;
  std::unique_ptr<KvPool> pool;
  std::unique_ptr<Decoder> decoder;
};

Parts build(const ModelConfig& config, const AdapterLayout& layout, const InferenceSettings& s, int64_t capacity, Mesh& mesh, Backend& backend, WeightSource& source,
            const std::vector<Arena*>& arenas) {
  Parts p;
  const int pp = mesh.position.pp(), stages = mesh.shape.pp();
  const LayerRange layers =
      partition_layers(config.layers, stages, head_cost_in_layers(config))[static_cast<size_t>(pp)];
  const Placement placement{.tp_rank = mesh.position.tp(),
                            .tp_size = mesh.shape.tp(),
                            .layer_begin = layers.begin,
                            .layer_end = layers.end,
                            .first = pp == 0,
                            .last = pp == stages - 1};
  if (!layout.empty())
    p.adapter =
        std::make_unique<AdapterSet>(layout, factor_slices(config, layout, placement), s.dtype, backend, *arenas[1]);
  p.stage = std::make_unique<Stage>(StageShape{config, placement, s.dtype, capacity},
                                    Loading{mesh.tp(), backend, *arenas[0], source, p.adapter.get()});
  p.pool = std::make_unique<KvPool>(*p.stage, *arenas[2], s.batcher.sequences * KvPool::blocks_for(capacity));
  p.decoder = std::make_unique<Decoder>(*p.stage, mesh, backend, *p.pool, *arenas[3]);
  return p;
}

// Bytes of {weights, adapter, cache, scratch}: the same parts on Count, and the largest pass.
std::vector<int64_t> plan(const ModelConfig& config, const AdapterLayout& layout, const InferenceSettings& s, int64_t capacity, const Mesh& mesh, const BackendTraits& traits) {
  CountBackend backend(traits);
  Mesh counted = make_count_mesh(mesh.shape, mesh.position);
  NoWeights nothing;
  std::vector<std::unique_ptr<Arena>> owned;
  std::vector<Arena*> arenas;
  for (const char* name : {"weights", "adapter", "cache", "scratch"}) arenas.push_back(owned.emplace_back(std::make_unique<Arena>(name, backend.memory(), int64_t{1} << 46)).get());
  Parts parts = build(config, layout, s, capacity, counted, backend, nothing, arenas);
  Batcher::rehearse(*parts.decoder, s.batcher);
  return {arenas[0]->peak_bytes(), arenas[1]->peak_bytes(), arenas[2]->peak_bytes(), arenas[3]->peak_bytes()};
}

}  // namespace

Inference::Inference(const InferenceSettings& s, const Mesh& mesh, const OpenDevice& open_device) {
  AdapterLayout layout;
  int64_t capacity = 0;
  together(*mesh.world, [&] {
    directory_.emplace(s.model);
    check_weights(*directory_);
    const ModelConfig& config = directory_->config();
    if (s.adapter) layout = adapter_layout_of(config, adapter_config_in(*s.adapter));
    const std::string why = why_not_tp(config, mesh.shape.tp());
    if (!why.empty()) fail(Exit::bad_recipe, "{}", why);
    capacity = s.capacity_tokens > 0 ? s.capacity_tokens : std::min<int64_t>(config.max_positions, 4096);
    partition_layers(config.layers, mesh.shape.pp(), head_cost_in_layers(config));  // 78 where it cannot be divided so
    if (capacity > config.max_positions) fail(Exit::bad_data, "prompt and answer have {} tokens; the model has {} positions", capacity, config.max_positions);
  });
  const ModelConfig& config = directory_->config();
  device_.emplace(open_device(mesh));
  Backend& backend = *device_->backend;
  const std::vector<int64_t> bytes = plan(config, layout, s, capacity, mesh, backend.traits());
  std::vector<Arena*> arenas;
  constexpr const char* kNames[] = {"weights", "adapter", "cache", "scratch"};
  for (size_t i = 0; i < 4; ++i) arenas.push_back(arenas_.emplace_back(std::make_unique<Arena>(kNames[i], backend.memory(), bytes[i])).get());
  DirectoryWeights source(*directory_);
  Parts parts = build(config, layout, s, capacity, device_->mesh, backend, source, arenas);
  directory_->release_pages();
  adapter_ = std::move(parts.adapter);
  stage_ = std::move(parts.stage);
  pool_ = std::move(parts.pool);
  decoder_ = std::move(parts.decoder);
  batcher_.emplace(*decoder_, s.batcher);
  together(*mesh.world, [&] {
    if (adapter_) load_adapter(*s.adapter, config, *adapter_);
  });
}

}  // namespace drover
