// Lines that say how far the writing of a model's files is, every few seconds: of all processes together, by what the
// files have grown to.
#pragma once
#include <chrono>

#include "kernels/base/file.h"

namespace drover {

class WritingProgress {
 public:
  // `done`: what was done with the bytes ("merged").
  WritingProgress(const char* done, fs::path files, int64_t total_bytes);
  void tick();    // after each piece; rank 0 alone looks and says something
  void finish();  // how long it took

 private:
  using Clock = std::chrono::steady_clock;
  int64_t written() const;

  const char* done_;
  fs::path files_;
  int64_t total_ = 0, before_ = 0;  // bytes
  Clock::time_point start_ = Clock::now(), said_ = start_;
};

}  // namespace drover
