#include "kernels/cuda/upload.h"

#include <algorithm>
#include <cstring>

#include "kernels/cuda/check.h"

namespace drover::cuda {

Uploader::Uploader(cudaStream_t stream) : stream_(stream) {
  check(cudaMallocHost(reinterpret_cast<void**>(&ring_), kRingBytes), "cudaMallocHost");
}

Uploader::~Uploader() {
  cudaStreamSynchronize(stream_);
  while (!flights_.empty()) land();
  for (cudaEvent_t e : idle_) cudaEventDestroy(e);
  cudaFreeHost(ring_);
}

void Uploader::land() {
  idle_.push_back(flights_.front().done);
  flights_.pop_front();
}

// Where the next `bytes` of the ring begin, when nothing in flight reads them.
int64_t Uploader::room(int64_t bytes) {
  constexpr int64_t kAlign = 256;
  if (head_ + bytes > kRingBytes) head_ = 0;
  const int64_t begin = head_, end = begin + bytes;
  while (!flights_.empty() && cudaEventQuery(flights_.front().done) == cudaSuccess) land();
  while (flights_.size() >= kMostFlights || std::any_of(flights_.begin(), flights_.end(), [&](const Flight& f) {
           return f.begin < end && begin < f.end;
         })) {
    check(cudaEventSynchronize(flights_.front().done), "cudaEventSynchronize");
    land();
  }
  head_ = (end + kAlign - 1) / kAlign * kAlign;
  return begin;
}

void Uploader::copy(const void* host, int64_t rows, int64_t row_bytes, void* device, int64_t pitch_bytes) {
  const char* from = static_cast<const char*>(host);
  char* to = static_cast<char*>(device);
  if (pitch_bytes == row_bytes || rows == 1) {  // one long row
    row_bytes *= rows;
    pitch_bytes = row_bytes;
    rows = 1;
  }
  const int64_t rows_at_once = std::max<int64_t>(1, kPieceBytes / std::max<int64_t>(1, row_bytes));
  for (int64_t row = 0; row < rows; row += rows_at_once) {
    const int64_t count = std::min(rows_at_once, rows - row);
    for (int64_t begin = 0; begin < row_bytes; begin += kPieceBytes) {
      const int64_t width = std::min(row_bytes - begin, kPieceBytes);
      const int64_t at = room(width * count);
      std::memcpy(ring_ + at, from + row * row_bytes + begin, static_cast<size_t>(width * count));
      const int64_t pitch =
          count == 1 ? width : pitch_bytes;  // a pitch has at most 31 bits, a whole tensor may have more
      check(cudaMemcpy2DAsync(to + row * pitch_bytes + begin, static_cast<size_t>(pitch), ring_ + at,
                              static_cast<size_t>(width), static_cast<size_t>(width), static_cast<size_t>(count),
                              cudaMemcpyHostToDevice, stream_),
            "cudaMemcpy2DAsync");
      cudaEvent_t done = nullptr;
      if (idle_.empty()) {
        check(cudaEventCreateWithFlags(&done, cudaEventDisableTiming), "cudaEventCreateWithFlags");
      } else {
        done = idle_.back();
        idle_.pop_back();
      }
      flights_.push_back({at, at + width * count, done});
      check(cudaEventRecord(done, stream_), "cudaEventRecord");
    }
  }
}

}  // namespace drover::cuda
