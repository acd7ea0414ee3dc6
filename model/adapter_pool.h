// Adapters that are used and not trained, any number at once on one stage: each has a slot, and its factors in memory
// of its own, which nothing changes. One adapter asked for twice is one slot, which stays as long as somebody holds it.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/stage.h"

namespace drover {

class AdapterPool {
 public:
  AdapterPool(Stage& stage, Backend& backend) : stage_(&stage), backend_(&backend) {}
  AdapterPool(AdapterPool&&) = default;

  // The slot (from 1) of the adapter that `hash` names by its content. Where the pool has it not yet, memory is taken,
  // and `load` fills it; what that throws leaves the pool as it was.
  using Load = std::function<void(AdapterSet&)>;
  int acquire(const std::string& hash, const AdapterLayout& layout, const Load& load);
  void release(int slot);  // once for each acquire: the last one gives slot and memory back

  int64_t bytes() const;  // of all adapters

 private:
  struct Held {
    std::string hash;
    int64_t holders = 0;
    std::unique_ptr<Arena> arena;
    std::unique_ptr<AdapterSet> adapter;
  };
  Stage* stage_;
  Backend* backend_;
  std::vector<Held> held_;  // of slot i + 1; one without holders is free
};

}  // namespace drover
