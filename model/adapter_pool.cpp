#include "model/adapter_pool.h"

#include <algorithm>

#include "kernels/base/error.h"

namespace drover {

int AdapterPool::acquire(const std::string& hash, const AdapterLayout& layout, const Load& load) {
  const auto slot_of = [&](auto it) { return static_cast<int>(it - held_.begin()) + 1; };
  auto found = std::ranges::find_if(held_, [&](const Held& h) { return h.holders > 0 && h.hash == hash; });
  if (found != held_.end()) {
    ++found->holders;
    return slot_of(found);
  }
  Held made{.hash = hash, .holders = 1, .arena = {}, .adapter = {}};
  std::vector<FactorSlice> factors = factor_slices(stage_->config(), layout, stage_->placement());
  const int64_t values = size_of(std::span<const FactorSlice>(factors));
  const int64_t copies = stage_->dtype() == DType::f32 ? 0 : Arena::bytes_of(values, 1, stage_->dtype());
  const int64_t bytes = Arena::bytes_of(values, 1, DType::f32) + copies;
  made.arena = std::make_unique<Arena>("an adapter", backend_->memory(), bytes);
  made.adapter = std::make_unique<AdapterSet>(layout, std::move(factors), stage_->dtype(), *backend_, *made.arena);
  auto free = std::ranges::find(held_, 0, &Held::holders);
  if (free == held_.end()) free = held_.insert(free, Held{});
  const int slot = slot_of(free);
  try {
    stage_->attach(slot, *made.adapter);
    load(*made.adapter);
  } catch (...) {
    stage_->detach(slot);
    throw;
  }
  *free = std::move(made);
  return slot;
}

void AdapterPool::release(int slot) {
  Held& held = held_.at(static_cast<size_t>(slot) - 1);
  require(held.holders > 0, "an adapter is released as often as it was acquired");
  if (--held.holders > 0) return;
  stage_->detach(slot);
  held = {};
}

int64_t AdapterPool::bytes() const {
  int64_t sum = 0;
  for (const Held& held : held_) sum += held.arena ? held.arena->capacity_bytes() : 0;
  return sum;
}

}  // namespace drover
