// A moment of a stream, by an event.
#pragma once
#include <cuda_runtime_api.h>

#include "kernels/event.h"

namespace drover::cuda {

class EventMoment : public Moment {
 public:
  explicit EventMoment(cudaStream_t stream);
  ~EventMoment() override;
  EventMoment(const EventMoment&) = delete;
  EventMoment& operator=(const EventMoment&) = delete;
  void wait() override;
  bool is_reached() const override;
  double seconds_until(Moment& later) override;

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace drover::cuda
