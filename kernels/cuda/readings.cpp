#include "kernels/cuda/readings.h"

#include <algorithm>
#include <vector>

#include "kernels/cuda/check.h"

namespace drover::cuda {

namespace {

struct Place {
  double* pinned = nullptr;
  int64_t capacity = 0;
  cudaEvent_t done = nullptr;
};

}  // namespace

// Places that are free: pinned memory is too dear to be had anew for every step.
struct Readings::Places {
  ~Places() {
    for (const Place& p : free) {
      cudaEventDestroy(p.done);
      cudaFreeHost(p.pinned);
    }
  }
  Place take(int64_t count) {
    const auto fits = std::find_if(free.begin(), free.end(), [&](const Place& p) { return p.capacity >= count; });
    if (fits != free.end()) {
      const Place place = *fits;
      free.erase(fits);
      return place;
    }
    Place place{.capacity = std::max<int64_t>(count, 64)};
    check(cudaMallocHost(reinterpret_cast<void**>(&place.pinned), static_cast<size_t>(place.capacity) * sizeof(double)),
          "cudaMallocHost");
    check(cudaEventCreateWithFlags(&place.done, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    return place;
  }
  std::vector<Place> free;
};

class Readings::Started : public Reading {
 public:
  Started(std::shared_ptr<Places> places, std::shared_ptr<std::function<void()>> after_wait, Place place, size_t count)
      : places_(std::move(places)), after_wait_(std::move(after_wait)), place_(place), count_(count) {}
  ~Started() override {
    places_->free.push_back(place_);
  }  // unread or not: the next one's numbers come later on the same stream
  void wait() override {
    check(cudaEventSynchronize(place_.done), "cudaEventSynchronize");
    if (*after_wait_) (*after_wait_)();
  }
  std::span<const double> values() override {
    wait();
    return {place_.pinned, count_};
  }

 private:
  std::shared_ptr<Places> places_;
  std::shared_ptr<std::function<void()>> after_wait_;
  Place place_;
  size_t count_;
};

Readings::Readings(cudaStream_t stream, std::shared_ptr<std::function<void()>> after_wait)
    : stream_(stream), after_wait_(std::move(after_wait)), places_(std::make_shared<Places>()) {}

std::unique_ptr<Reading> Readings::start(Tensor from) {
  require(from.dtype == DType::f64 && from.contiguous(), "what is read later is a vector of f64");
  const size_t count = static_cast<size_t>(from.size());
  const Place place = places_->take(from.size());
  auto reading = std::make_unique<Started>(places_, after_wait_, place, count);
  check(cudaMemcpyAsync(place.pinned, from.data, count * sizeof(double), cudaMemcpyDeviceToHost, stream_),
        "cudaMemcpyAsync");
  check(cudaEventRecord(place.done, stream_), "cudaEventRecord");
  return reading;
}

}  // namespace drover::cuda
