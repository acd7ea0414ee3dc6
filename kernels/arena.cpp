#include "kernels/arena.h"

#include <algorithm>

#include "kernels/base/error.h"

namespace drover {

Arena::Arena(std::string name, Memory& memory, int64_t capacity_bytes)
    : name_(std::move(name)), memory_(memory), capacity_(capacity_bytes) {
  if (capacity_ > 0) block_ = static_cast<char*>(memory_.allocate(capacity_));
}

Arena::~Arena() {
  if (block_ != nullptr) memory_.release(block_, capacity_);
}

Tensor Arena::tensor(int64_t rows, int64_t cols, DType dtype, int64_t margin) {
  require(rows >= 0 && cols >= 0 && margin >= 0, "a tensor needs sizes that are not negative");
  const int64_t bytes = bytes_of(rows, cols, dtype, margin);
  if (used_ + bytes > capacity_) {
    fail(Exit::internal, "internal error: arena '{}' is full: {} of {} bytes are used and {} more are asked for; the dry run planned too little",
         name_, used_, capacity_, bytes);
  }
  Tensor t = matrix(block_ + used_, rows, cols, dtype, memory_.where());
  t.pitch += margin;
  used_ += bytes;
  peak_ = std::max(peak_, used_);
  return t;
}

}  // namespace drover
