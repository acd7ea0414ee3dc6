// What a backend may be able to do besides ops: enqueue a whole pass with one call, where the pass is what it was
// before but for the content of tensors.
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <span>

#include "kernels/backend.h"

namespace drover {

class PassReplays {
 public:
  virtual ~PassReplays() = default;

  struct Pass {
    std::array<int64_t, 3> key;         // what is enqueued under one key differs in tensors' content alone,
    std::span<const Segment> segments;  // and in these, which every attention of the pass has: single rows, row i the
    int64_t block_size = 0;             // i-th, over keys in blocks. Read before the call returns.
  };
  // Calls `enqueue`, or enqueues what it has enqueued before under this key: the same ops on the same tensors.
  // `enqueue` neither waits nor uploads; where it does, it is called each time. It is also called again after memory
  // was allocated, and for sequences of another length class.
  virtual void replay(const Pass& pass, const std::function<void()>& enqueue) = 0;
};

}  // namespace drover
