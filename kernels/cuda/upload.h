// Host → device through a ring of pinned buffers: the host array is read before `copy` returns, and the transfer runs behind the next one's filling.
#pragma once
#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>

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
  static constexpr int64_t kPieceBytes = int64_t{16} << 20;
  struct Piece {
    char* pinned = nullptr;
    cudaEvent_t done = nullptr;
  };
  Piece& next();

  cudaStream_t stream_;
  std::array<Piece, 3> ring_;
  size_t turn_ = 0;
};

}  // namespace drover::cuda
