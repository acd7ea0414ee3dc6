// Segments and their block tables on the device, cut into the tasks of attention's own kernels. The last few are kept
// and compared by content: all layers of a micro-batch share one upload, and so do its forward and its backward. A
// device buffer grows when something larger comes.
#pragma once
#include <cuda_runtime_api.h>

#include <array>
#include <span>
#include <vector>

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/device_image.h"
#include "kernels/cuda/traffic.h"
#include "kernels/cuda/upload.h"

namespace drover::cuda {

class AttentionSegments {
 public:
  static constexpr int64_t kSlots = 16;  // the micro-batches that a pipeline has in flight, each in up to two parts

  AttentionSegments(Uploader& uploader, Traffic& traffic) : uploader_(uploader), traffic_(traffic) {}

  const AttentionTasks& on_device(std::span<const Segment> segments, int64_t block_size);
  // Single rows, in their order, whose tasks and tables are uploaded to the same memory each time, as long as they fit
  // into it. `decode_blocks` is rounded up to 1, 2, 4, …
  const AttentionTasks& stage(std::span<const Segment> rows, int64_t block_size);
  int64_t bytes() const;

 private:
  struct Slot {
    std::vector<Segment> segments;
    std::vector<int32_t> tables;  // one behind another
    int64_t block_size = 0;
    AttentionTasks tasks;
    DeviceImage device;
    int64_t used = 0;  // when, in calls
  };
  void fill(Slot& slot, std::span<const Segment> segments, int64_t block_size);

  Uploader& uploader_;
  Traffic& traffic_;
  std::array<Slot, kSlots> slots_;
  int64_t calls_ = 0;
  AttentionTasks staged_;
  DeviceImage staged_device_;
};

}  // namespace drover::cuda
