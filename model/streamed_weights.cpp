#include "model/streamed_weights.h"

#include <algorithm>

#include "kernels/base/log.h"

namespace drover {

// A slot's memory, for the arenas of the blocks that use it in turn.
class StreamedWeights::Within final : public Memory {
 public:
  explicit Within(Tensor slot) : slot_(slot) {}
  void* allocate(int64_t bytes) override {
    require(bytes <= slot_.bytes(), "a block fits into its slot");
    return slot_.data;
  }
  void release(void*, int64_t) override {}
  Where where() const override { return slot_.where; }
  Tensor first(int64_t bytes) const { return slot_.rows_from(0, bytes / slot_.cols); }

 private:
  Tensor slot_;
};

namespace {

// For weights that are only measured.
class NoMemory final : public Memory {
 public:
  void* allocate(int64_t) override { return reinterpret_cast<void*>(Arena::kAlign); }
  void release(void*, int64_t) override {}
  Where where() const override { return Where::nowhere; }
};

int64_t bytes_of(std::span<const WeightShape> linears, const BackendTraits& traits) {
  NoMemory nowhere;
  Arena arena("a block", nowhere, int64_t{1} << 46);
  for (const WeightShape& shape : linears) traits.lay_out(arena, shape);
  return arena.used_bytes();
}

// Bytes in rows, so that no count of them is too large for a device's copies.
Tensor bytes_in(Arena& arena, int64_t bytes) { return arena.tensor(bytes / Arena::kAlign, Arena::kAlign, DType::u8); }

}  // namespace

StreamedWeights::StreamedWeights(Backend& backend, Arena& arena, AdapterSet* adapter, size_t most_slots)
    : backend_(backend),
      arena_(arena),
      adapter_(adapter),
      most_slots_(most_slots),
      images_(backend.traits().own_memory) {
  require(most_slots >= 2, "a block computes while the next one comes");
}

StreamedWeights::~StreamedWeights() = default;

void StreamedWeights::make_ring(std::span<const std::vector<WeightShape>> blocks) {
  for (const std::vector<WeightShape>& linears : blocks)
    slot_bytes_ = std::max(slot_bytes_, bytes_of(linears, backend_.traits()));
  for (size_t i = 0; i < std::min(most_slots_, blocks.size()); ++i) {
    slots_.push_back({.memory = std::make_unique<Within>(bytes_in(arena_, slot_bytes_))});
  }
  blocks_ = std::vector<Kept>(blocks.size());
}

std::shared_ptr<const Weight> StreamedWeights::add(size_t block, int64_t layer, FrozenLinear linear,
                                                   const WeightShape& shape) {
  Kept& kept = blocks_[block];
  Slot& slot = slot_of(block);
  if (!kept.place) kept.place.emplace("a block", *slot.memory, slot_bytes_);
  if (linear.is_made() && !images_ && !warned_ && slot.memory->where() != Where::nowhere) {
    log::warn(
        "memory.weights: host makes the weights' codes anew each time that a block is read (model.weights); drover "
        "quantize writes a model that holds them");
    warned_ = true;
  }
  kept.layer = layer;
  std::shared_ptr<Weight> weight = backend_.make_weight(*kept.place, shape);
  kept.linears.push_back({std::move(linear), weight});
  return weight;
}

void StreamedWeights::keep(size_t block) {
  Kept& kept = blocks_[block];
  Slot& slot = slot_of(block);
  kept.bytes = kept.place->used_bytes();
  if (!images_) return;
  host_bytes_ += kept.bytes;
  if (slot.memory->where() == Where::nowhere) return;
  for (const Linear& linear : kept.linears) linear.from.load(*linear.weight, backend_);
  kept.image.emplace("a block's image", backend_.upload_memory(), kept.bytes);
  kept.host = bytes_in(*kept.image, kept.bytes);
  backend_.download(slot.memory->first(kept.bytes), kept.host.data);
  slot.block = block;
}

void StreamedWeights::fill(size_t block) {
  Slot& slot = slot_of(block);
  const Kept& kept = blocks_[block];
  slot.block = block;
  slot.wanted.reset();
  copied_bytes_ += kept.bytes;
  if (slot.memory->where() == Where::nowhere) return;
  if (images_) {
    slot.filling = backend_.start_upload(kept.host.data, slot.memory->first(kept.bytes));
    return;
  }
  for (const Linear& linear : kept.linears) linear.from.load(*linear.weight, backend_);
}

void StreamedWeights::acquire(size_t block) {
  Slot& slot = slot_of(block);
  if (slot.block == block) return;
  if (slot.holders > 0) {
    slot.wanted = block;
  } else {
    fill(block);
  }
}

void StreamedWeights::get(size_t block) {
  Slot& slot = slot_of(block);
  if (slot.block != block) {
    require(slot.holders == 0, "passes that take turns are as close together as the ring of weights is long");
    fill(block);
  }
  if (slot.filling) slot.filling->wait();
  slot.filling.reset();
  if (slot.holders++ == 0 && adapter_ != nullptr) adapter_->refresh(blocks_[block].layer);
}

void StreamedWeights::release(size_t block) {
  Slot& slot = slot_of(block);
  require(slot.block == block && slot.holders > 0, "a block of weights is released by who holds it");
  if (--slot.holders == 0 && slot.wanted) fill(*slot.wanted);
}

}  // namespace drover
