#include "kernels/cuda/upload.h"

#include <algorithm>
#include <cstring>

#include "kernels/cuda/check.h"

namespace drover::cuda {

Uploader::Uploader(cudaStream_t stream) : stream_(stream) {
  for (Piece& p : ring_) {
    check(cudaMallocHost(reinterpret_cast<void**>(&p.pinned), kPieceBytes), "cudaMallocHost");
    check(cudaEventCreateWithFlags(&p.done, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  }
}

Uploader::~Uploader() {
  cudaStreamSynchronize(stream_);
  for (Piece& p : ring_) {
    cudaEventDestroy(p.done);
    cudaFreeHost(p.pinned);
  }
}

Uploader::Piece& Uploader::next() {
  Piece& p = ring_[turn_++ % ring_.size()];
  check(cudaEventSynchronize(p.done), "cudaEventSynchronize");  // the transfer that used it last, three pieces ago
  return p;
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
      Piece& p = next();
      const size_t bytes = static_cast<size_t>(width * count);
      std::memcpy(p.pinned, from + row * row_bytes + begin, bytes);
      const int64_t pitch = count == 1 ? width : pitch_bytes;  // a pitch has at most 31 bits, a whole tensor may have more
      check(cudaMemcpy2DAsync(to + row * pitch_bytes + begin, static_cast<size_t>(pitch), p.pinned, static_cast<size_t>(width),
                              static_cast<size_t>(width), static_cast<size_t>(count), cudaMemcpyHostToDevice, stream_),
            "cudaMemcpy2DAsync");
      check(cudaEventRecord(p.done, stream_), "cudaEventRecord");
    }
  }
}

}  // namespace drover::cuda
