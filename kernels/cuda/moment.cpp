#include "kernels/cuda/moment.h"

#include "kernels/cuda/check.h"

namespace drover::cuda {

EventMoment::EventMoment(cudaStream_t stream) {
  check(cudaEventCreateWithFlags(&event_, cudaEventDefault), "cudaEventCreateWithFlags");
  check(cudaEventRecord(event_, stream), "cudaEventRecord");
}

EventMoment::~EventMoment() { cudaEventDestroy(event_); }

bool EventMoment::is_reached() const {
  const cudaError_t state = cudaEventQuery(event_);
  if (state != cudaErrorNotReady) check(state, "cudaEventQuery");
  return state == cudaSuccess;
}

void EventMoment::wait() { check(cudaEventSynchronize(event_), "cudaEventSynchronize"); }

double EventMoment::seconds_until(Moment& later) {
  auto& end = dynamic_cast<EventMoment&>(later);
  wait();
  end.wait();
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, event_, end.event_), "cudaEventElapsedTime");
  return 1e-3 * static_cast<double>(milliseconds);
}

}  // namespace drover::cuda
