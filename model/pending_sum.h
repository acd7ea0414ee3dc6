// A sum over tp that a linear has started. `co_await` waits for it, and adds it to the residual where there is one;
// where the sum is overlapped, the other part's pass continues meanwhile. What it is made of is freed with it.
#pragma once
#include <coroutine>
#include <memory>
#include <utility>

#include "kernels/comm/communicator.h"
#include "model/context.h"

namespace drover {

class [[nodiscard]] PendingSum {
 public:
  explicit PendingSum(Context& ctx) : ctx_(&ctx), frame_(ctx.scratch) {}

  Frame& frame() { return frame_; }
  void start(Communicator& tp, Tensor x) { transfer_ = tp.start_all_reduce(x); }
  void start_adding(Communicator& tp, Tensor partial, Tensor residual) {
    start(tp, partial);
    partial_ = partial, residual_ = residual;
  }

  bool await_ready() const { return !transfer_ || !ctx_->overlapped; }
  void await_suspend(std::coroutine_handle<>) const {}  // a yield
  void await_resume() {
    if (!transfer_) return;
    transfer_->wait();
    if (!partial_.empty()) ctx_->backend.add(partial_, residual_);
  }

 private:
  Context* ctx_;
  Frame frame_;
  std::unique_ptr<Transfer> transfer_;  // null: there is nothing to wait for
  Tensor partial_, residual_;
};

}  // namespace drover
