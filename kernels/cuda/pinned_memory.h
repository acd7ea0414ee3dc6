// Host memory whose pages stay where they are, so that the device copies from it by itself.
#pragma once
#include <map>

#include "kernels/arena.h"

namespace drover::cuda {

class PinnedMemory : public Memory {
 public:
  void* allocate(int64_t bytes) override;
  void release(void* block, int64_t bytes) override;  // waits for work that uses it
  Where where() const override { return Where::host; }

  bool holds(const void* host, int64_t bytes) const;

 private:
  std::map<const char*, int64_t> blocks_;  // and their bytes
  int64_t held_ = 0;
};

}  // namespace drover::cuda
