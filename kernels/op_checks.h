// What the files that implement backend.h share: what must hold of operands, what a call costs, and how it reaches an
// observer.
#pragma once
#include <string_view>

#include "kernels/backend.h"

namespace drover {

inline bool is_float(Tensor t) { return t.dtype == DType::f32 || t.dtype == DType::bf16; }
inline bool same_shape(Tensor a, Tensor b) { return a.rows == b.rows && a.cols == b.cols; }
inline bool alike(Tensor a, Tensor b) { return same_shape(a, b) && a.dtype == b.dtype; }
inline bool is_vector(Tensor t, int64_t size, DType dtype) { return t.size() == size && t.dtype == dtype; }

template <typename... Tensors>
int64_t bytes_of(Tensors... operands) {  // an operand that is read and written is named twice
  return (operands.bytes() + ... + 0);
}

inline OpCall call_on(std::string_view op, Tensor x, int64_t flops, int64_t bytes) {
  return {.op = op, .a = {x.rows, x.cols}, .dtype = x.dtype, .flops = flops, .bytes = bytes};
}
inline OpCall product(std::string_view op, Tensor a, Tensor b, int64_t flops, int64_t bytes) {
  return {.op = op, .a = {a.rows, a.cols}, .b = {b.rows, b.cols}, .dtype = a.dtype, .flops = flops, .bytes = bytes};
}
inline OpCall product(std::string_view op, Tensor a, const Weight& w, int64_t flops, int64_t bytes) {
  OpCall call{.op = op, .a = {a.rows, a.cols}, .b = {w.out(), w.in()}, .dtype = a.dtype, .format = w.format()};
  call.products = w.products(), call.flops = flops, call.bytes = bytes;
  return call;
}

// One call as an observer sees it: those that it makes on its way are its parts.
class Backend::Observed {
 public:
  Observed(Backend& backend, const OpCall& call) : backend_(backend), call_(call), outer_(backend.running_) {
    call_.is_part = outer_ != nullptr;
    if (outer_ != nullptr) ++outer_->parts;
    backend_.observer_->begin(call_);
    backend_.running_ = &call_;
  }
  Observed(const Observed&) = delete;
  ~Observed() { backend_.running_ = outer_; }
  void end() { backend_.observer_->end(call_); }

 private:
  Backend& backend_;
  OpCall call_;
  OpCall* outer_;
};

// What a call costs is worked out for an observer only.
template <typename Describe, typename Run>
void Backend::issue(Describe describe, Run run) {
  if (observer_ == nullptr) return run();
  Observed call(*this, describe());
  run();
  call.end();
}

}  // namespace drover
