// A rank's part of one model on its device: memory, adapter and blocks. Training, evaluation and generation are built
// on it, and plans on one that only counts.
#pragma once
#include <functional>
#include <memory>
#include <optional>

#include "kernels/arena.h"
#include "kernels/comm/device.h"
#include "model/base_weights.h"
#include "model/stage.h"
#include "optim/trainables.h"
#include "trainer/engine/schedule.h"

namespace drover {

class Checkpoint;

// How the files scale a tensor that they hold as codes.
using ScalingOf = std::function<std::optional<StoredScaling>(const ParamSpec&)>;

struct ReplicaSettings {
  ModelConfig model;
  AdapterLayout adapter;              // empty vector: no adapter
  std::vector<LayerRange> partition;  // layers of every pipeline stage
  DType dtype = DType::f32;
  WeightsAs weights = WeightsAs::as_is;
  Products products = Products::widened;  // of frozen linears that are held in fp8
  bool streamed = false;                  // memory.weights: host
  ScalingOf stored = {};      // for plans, which read nothing; none: all tensors are stored as plain numbers
  int64_t max_positions = 0;  // of the longest document, or of a prompt with its answer
  bool train = true;          // false: the adapter has no gradients and no moments
};

// Bytes of every arena.
struct ArenaBytes {
  int64_t weights = 0, adapter = 0, optimizer = 0;
  int64_t saved = 0;  // the micro-batches in flight, and their streams between the stages
  int64_t scratch = 0;
  int64_t cache = 0;  // keys and values of generation
  int64_t total() const { return weights + adapter + optimizer + saved + scratch + cache; }
  bool operator==(const ArenaBytes&) const = default;
};
// More than any run takes: what a plan's arenas may hold.
inline constexpr int64_t kPlentyBytes = int64_t{1} << 46;
inline constexpr ArenaBytes kPlenty{.weights = kPlentyBytes,
                                    .adapter = kPlentyBytes,
                                    .optimizer = kPlentyBytes,
                                    .saved = kPlentyBytes,
                                    .scratch = kPlentyBytes,
                                    .cache = kPlentyBytes};

struct Arenas {
  Arenas(Memory& memory, const ArenaBytes& capacity);
  Arena weights, adapter, optimizer, scratch, cache;
};

struct Replica {
  // Reads this rank's slices of the weights from `source`. It is not used later, but for streamed weights on a device
  // without memory of its own, which are read from it again and again. The adapter's values are not set.
  Replica(const ReplicaSettings& settings, Device device, WeightSource& source, const ArenaBytes& capacity);
  Replica(const Replica&) = delete;
  Replica& operator=(const Replica&) = delete;

  void load(const Checkpoint&
                checkpoint);  // into the adapter, its moments and its compute copies; bad_data for other tensors
  ArenaBytes peak() const;    // without `saved`, which is the engine's
  Backend& backend() const { return *device.backend; }

  Device device;
  std::shared_ptr<WeightSource> kept_source;  // where it has to stay and nobody else keeps it
  Arenas arenas;
  std::optional<Trainables> trainables;  // of the adapter
  std::optional<AdapterSet> adapter;
  std::optional<StreamedWeights> streamed_weights;
  Stage stage;
};

// A device on which nothing is computed, as the rank at `position` of such a mesh has it.
Device count_device(const BackendTraits& traits, const MeshShape& shape, const MeshPosition& position);

// Collective over the device's world: the replica of a model in a directory.
std::unique_ptr<Replica> open_replica(const ReplicaSettings& settings, Device device, BaseWeights weights,
                                      const ArenaBytes& capacity);

}  // namespace drover
