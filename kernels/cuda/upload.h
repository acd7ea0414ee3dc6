// Host → device through a ring of pinned memory: the host array is read before `copy` returns, and the transfer comes
// in its turn on the stream. The host waits only where the ring is full of what the device has not taken yet, so that
// it may be whole steps ahead.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>
#include <deque>
#include <vector>

namespace drover::cuda {

class Uploader {
 public:
  explicit Uploader(cudaStream_t stream);
  ~Uploader();
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;

  // rows of `row_bytes` contiguous host bytes → device rows `pitch_bytes` apart.
  void copy(const void* host, int64_t rows, int64_t row_bytes, void* device, int64_t pitch_bytes);

 private:
  static constexpr int64_t kRingBytes = int64_t{48} << 20, kPieceBytes = int64_t{16} << 20;
  static constexpr size_t kMostFlights = 4096;
  struct Flight {  // bytes of the ring that a transfer reads, until its event
    int64_t begin, end;
    cudaEvent_t done;
  };
  int64_t room(int64_t bytes);
  void land();  // the oldest flight is over

  cudaStream_t stream_;
  char* ring_ = nullptr;
  int64_t head_ = 0;
  std::deque<Flight> flights_;  // the oldest first
  std::vector<cudaEvent_t> idle_;
};

}  // namespace drover::cuda
