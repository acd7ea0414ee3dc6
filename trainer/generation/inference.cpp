#include "trainer/generation/inference.h"

#include <algorithm>

#include "kernels/comm/agree.h"
#include "kernels/comm/gather.h"
#include "trainer/engine/plan.h"
#include "trainer/export/export.h"
#include "trainer/run/process_memory.h"
#include "trainer/setup/adapter_setup.h"
#include "trainer/setup/engine_settings.h"
#include "trainer/setup/model_check.h"

namespace drover {

namespace {

Decoder make_decoder(Replica& replica, KvPool& pool) {
  return {replica.stage, replica.device.mesh, replica.backend(), pool, replica.arenas.scratch};
}

struct NamedAdapter {
  std::string hash;  // of its files
  AdapterLayout layout;
};

// Every linear adapted with this rank.
AdapterLayout layout_of_rank(const ModelConfig& config, int64_t r) {
  return adapter_layout(config, [&](const std::string&) { return LowRankSpec{.r = r}; });
}

int64_t most_blocks(const InferenceSettings& s, int64_t capacity) {
  return s.batcher.sequences * KvPool::blocks_for(capacity);
}

// The largest pass, on Count, with as many blocks as there may be.
ArenaBytes plan(const ReplicaSettings& replica, const InferenceSettings& s, const std::vector<NamedAdapter>& adapters,
                const Device& device) {
  const Mesh& mesh = device.mesh;
  NoWeights nothing(replica.stored);
  Replica counted(replica, count_device(device.backend->traits(), mesh.shape, mesh.position), nothing, kPlenty);
  AdapterPool counted_adapters(counted.stage, counted.backend());
  for (const NamedAdapter& a : adapters) counted_adapters.acquire(a.hash, a.layout, [](AdapterSet&) {});
  if (s.later_rank > 0) {
    counted_adapters.acquire("later", layout_of_rank(replica.model, s.later_rank), [](AdapterSet&) {});
  }
  KvPool pool(counted.stage, counted.arenas.cache, most_blocks(s, replica.max_positions));
  Decoder decoder = make_decoder(counted, pool);
  Batcher::rehearse(decoder, s.batcher);
  return counted.peak();
}

// How many blocks every rank can have; `bytes` is what is planned with the most there may be. At least one sequence's
// shortest answer must find room: bad_recipe where not even that is there.
int64_t affordable_blocks(const InferenceSettings& s, const ArenaBytes& bytes, int64_t most, const Device& device) {
  Communicator& world = *device.mesh.world;
  int64_t room = s.cache.bytes;
  if (s.cache.share > 0) {
    const int64_t rest = bytes.total() - bytes.cache + device.backend->workspace_bytes();
    const double free = static_cast<double>(free_bytes_of_rank(world, *device.backend) - rest);
    room = static_cast<int64_t>(std::max(0.0, free) * s.cache.share);
  }
  if (s.cache.bytes == 0 && s.cache.share == 0) return most;
  const int64_t of_one = std::max<int64_t>(1, bytes.cache / most);
  const int64_t blocks = -largest(world, -std::min(most, room / of_one));
  const int64_t least = KvPool::blocks_for(s.batcher.pass_rows);
  together(world, [&] {
    if (blocks >= std::min(least, most)) return;
    fail(
        Fault::bad_recipe,
        "there is room for the keys and values of {} tokens, and a pass needs {}: give them more memory (--kv-memory), "
        "or spread the model over more ranks",
        blocks * KvPool::kBlockTokens, least * KvPool::kBlockTokens);
  });
  return blocks;
}

}  // namespace

AdapterLayout Inference::layout_of(const fs::path& directory) {
  const AdapterFile file(directory);
  const std::lock_guard lock(reading_);
  if (!keeps_base(file, *directory_)) {
    fail(Fault::bad_data,
         "{}: the adapter has weights in place of the base's or factors of the embedding, and cannot share the base "
         "with others; ask it alone (--adapter DIR), or merge it (export --model DIR --from ADAPTER --merged OUT)",
         directory.string());
  }
  return adapter_layout_of(base_->config(), file.config());
}

Inference::Inference(const InferenceSettings& s, const Mesh& mesh, const OpenDevice& open_device) : settings_(s) {
  ReplicaSettings replica{.dtype = s.dtype, .weights = s.weights, .streamed = s.streamed, .train = false};
  replica.stored = [this](const ParamSpec& spec) { return base_->scaling(spec); };
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
    for (const fs::path& directory : s.named_adapters) {
      named.push_back({adapter_hash(directory), layout_of(directory)});
    }
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
  ArenaBytes bytes = plan(replica, s, named, device);
  const int64_t most = most_blocks(s, replica.max_positions), blocks = affordable_blocks(s, bytes, most, device);
  bytes.cache = bytes.cache / most * blocks + 2 * replica.model.layers * Arena::kAlign;  // each tensor is aligned
  replica_ = open_replica(replica, device, *base_, bytes);
  pool_.emplace(replica_->stage, replica_->arenas.cache, blocks);
  decoder_.emplace(make_decoder(*replica_, *pool_));
  batcher_.emplace(*decoder_, s.batcher);
  together(*mesh.world, [&] {
    if (replica_->adapter) load_adapter(*s.adapter, config(), *replica_->adapter);
    adapters_.emplace(replica_->stage, replica_->backend());
    for (size_t i = 0; i < named.size(); ++i) {
      const auto load = [&](AdapterSet& adapter) { load_adapter(s.named_adapters[i], config(), adapter); };
      slots_.push_back(adapters_->acquire(named[i].hash, named[i].layout, load));
    }
  });
}

LoadedAdapter Inference::read_adapter(const fs::path& directory) {
  const AdapterLayout layout = layout_of(directory);
  int64_t r = 0;
  for (const auto& layer : layout) {
    for (const auto& spec : layer) r = std::max(r, spec ? spec->r : 0);
  }
  if (r > settings_.later_rank) {
    fail(Fault::bad_data, "{}: the adapter has rank {}; there is room for adapters of rank {} at most",
         directory.string(), r, settings_.later_rank);
  }
  return load_adapter_slices(AdapterFile(directory), layout, config(), replica_->stage.placement());
}

int Inference::attach(const LoadedAdapter& adapter) {
  size_t next = 0;
  return adapters_->acquire(adapter.hash, adapter.layout, [&](AdapterSet& set) {
    set.load([&](const FactorSlice& slice, float* values) {
      require(slice.name == adapter.slices[next].name, "slices have one order");
      std::ranges::copy(adapter.values[next++], values);
    });
  });
}

void Inference::detach(int slot) { adapters_->release(slot); }

}  // namespace drover
