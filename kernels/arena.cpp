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

Arena& Arena::second_stack() {
  require(near_ == nullptr, "a block has two ends");
  if (!far_) far_.reset(new Arena(FarEnd{*this}));
  return *far_;
}

Tensor Arena::tensor(int64_t rows, int64_t cols, DType dtype, int64_t pitch) {
  require(rows >= 0 && cols >= 0, "a tensor needs sizes that are not negative");
  require(pitch == 0 || pitch >= cols, "a tensor's rows do not overlap");
  const int64_t bytes = bytes_of(rows, cols, dtype, pitch) + extra_;
  Arena& whole = near_ == nullptr ? *this : *near_;
  const int64_t taken = whole.used_ + (whole.far_ ? whole.far_->used_ : 0), room = whole.capacity_ / kAlign * kAlign;
  if (taken + bytes > room) {
    fail(Fault::internal,
         "internal error: arena '{}' is full: {} of {} bytes are used and {} more are asked for; the dry run planned "
         "too little",
         name_, taken, whole.capacity_, bytes);
  }
  Tensor t =
      matrix(whole.block_ + (near_ == nullptr ? used_ : room - used_ - bytes), rows, cols, dtype, memory_.where());
  if (pitch != 0) t.pitch = pitch;
  used_ += bytes;
  whole.peak_ = std::max(whole.peak_, taken + bytes);
  return t;
}

}  // namespace drover
