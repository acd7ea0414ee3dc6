// Frozen weights of a stage's blocks that do not stay in the device's memory: they pass through a ring of slots there,
// block i through slot i % slots, each as large as the largest block. A block's weights are laid out once, at its
// slot's addresses, so that what computes with them never changes. They come
//   - on a device with memory of its own, from an image in the host's memory, byte for byte what lay in the slot after
//     the block was loaded there once. The copy runs on the upload queue, behind what was enqueued before it;
//   - else from where the model comes from, read again each time, when they are needed.
// Either way they are the bits of weights that stay. A slot is filled again only when nobody holds its block, so a
// block that is still there, as at the turn from forward to backward, is not copied. An adapter's copies that lie next
// to the weights are written anew whenever somebody begins to hold a block. For one thread.
#pragma once
#include <optional>

#include "model/adapter.h"
#include "model/frozen_linear.h"
#include "model/weight_provider.h"

namespace drover {

class StreamedWeights final : public WeightProvider {
 public:
  // The ring lies in `arena`, which outlives this, and has at most `most_slots` slots (2 or more). `adapter` may be
  // null.
  StreamedWeights(Backend& backend, Arena& arena, AdapterSet* adapter, size_t most_slots);
  ~StreamedWeights() override;

  // While the stage is made: first the shapes of all blocks' linears; then block after block its linears, whose source
  // and members' specs outlive this, with its layer of the whole model, and, when it has all of them, keep.
  void make_ring(std::span<const std::vector<WeightShape>> blocks);
  std::shared_ptr<const Weight> add(size_t block, int64_t layer, FrozenLinear linear, const WeightShape& shape);
  void keep(size_t block);
  // What the linears' members refer to.
  void own(std::shared_ptr<const std::vector<ParamSpec>> specs) { specs_ = std::move(specs); }

  void acquire(size_t block) override;
  // An internal error where another block in its slot is held, which would wait forever.
  void get(size_t block) override;
  void release(size_t block) override;

  int64_t ring_bytes() const { return slot_bytes_ * static_cast<int64_t>(slots_.size()); }
  int64_t host_bytes() const { return host_bytes_; }      // of the images
  int64_t copied_bytes() const { return copied_bytes_; }  // into slots since the stage was made

 private:
  class Within;
  struct Linear {
    FrozenLinear from;
    std::shared_ptr<Weight> weight;
  };
  struct Kept {
    int64_t layer = 0, bytes = 0;
    std::optional<Arena> place;  // its slot
    std::vector<Linear> linears;
    std::optional<Arena> image;  // in the host's memory
    Tensor host;                 // in it
  };
  struct Slot {
    std::unique_ptr<Within> memory;
    std::optional<size_t> block;   // what is there, or on its way
    std::optional<size_t> wanted;  // as soon as nobody holds that
    int holders = 0;
    std::unique_ptr<Transfer> filling;
  };
  Slot& slot_of(size_t block) { return slots_[block % slots_.size()]; }
  void fill(size_t block);

  Backend& backend_;
  Arena& arena_;
  AdapterSet* adapter_;
  size_t most_slots_;
  bool images_;  // else blocks are read again
  std::shared_ptr<const std::vector<ParamSpec>> specs_;
  int64_t slot_bytes_ = 0, host_bytes_ = 0, copied_bytes_ = 0;
  bool warned_ = false;
  std::vector<Slot> slots_;
  std::vector<Kept> blocks_;
};

}  // namespace drover
