// Has the frozen weights of a stage's blocks in the device's memory while they compute. Stage asks for each block in
// the order of its walk, one ahead:
//   acquire(next) … get(block) … what reads the block is enqueued … release(block)
// A block that is computed again in backward is held once for both. Two passes that take turns hold blocks at the same
// time: a block stays until each get of it had its release.
#pragma once
#include <cstddef>

namespace drover {

class WeightProvider {
 public:
  virtual ~WeightProvider() = default;
  virtual void acquire(size_t block) = 0;  // it is wanted next: its way to the device may start. Does not wait
  virtual void get(size_t block) = 0;      // what is enqueued from here on may read it
  virtual void release(size_t block) = 0;  // what was enqueued until here has been all that reads it
};

// All blocks are in memory, and stay.
class ResidentWeights final : public WeightProvider {
 public:
  void acquire(size_t) override {}
  void get(size_t) override {}
  void release(size_t) override {}
};

inline WeightProvider& resident_weights() {
  static ResidentWeights resident;
  return resident;
}

// A block's weights from get to release.
class HeldWeights {
 public:
  HeldWeights(WeightProvider& provider, size_t block) : provider_(provider), block_(block) { provider.get(block); }
  ~HeldWeights() { provider_.release(block_); }
  HeldWeights(const HeldWeights&) = delete;
  HeldWeights& operator=(const HeldWeights&) = delete;

 private:
  WeightProvider& provider_;
  size_t block_;
};

}  // namespace drover
