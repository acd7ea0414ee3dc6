// A moment of a stream, by an event.
#pragma once
#include <cuda_runtime_api.h>

#include "kernels/backend.h"

namespace drover::cuda {

class EventMoment : public Moment {
 public:
  explicit EventMoment(cudaStream_t stream);
  ~EventMoment() override;
  EventMoment(const EventMoment&) = delete;
  EventMoment& operator=(const EventMoment&) = delete;
  bool is_reached() const override;
  double seconds_until(const Moment& later) const override;

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace drover::cuda
