// A pass of some rows through blocks, as a coroutine: it stops where it waits for a sum over tp that is on its way, so that another pass can go on meanwhile.
// The two never touch the same rows, and each has a scratch of its own. What a pass is given by reference outlives it.
#pragma once
#include <coroutine>
#include <exception>
#include <utility>

#include "kernels/base/require.h"

namespace drover {

class [[nodiscard]] Pass {
 public:
  struct promise_type {
    std::exception_ptr failure;
    Pass get_return_object() { return Pass(std::coroutine_handle<promise_type>::from_promise(*this)); }
    std::suspend_always initial_suspend() noexcept { return {}; }
    std::suspend_always final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { failure = std::current_exception(); }
  };

  Pass(Pass&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Pass& operator=(Pass&&) = delete;
  ~Pass() {
    if (handle_) handle_.destroy();
  }

  // Goes on to the next stop; false: it has ended. Throws what failed in it.
  bool go_on() {
    require(!handle_.done(), "a pass goes on until it has ended");
    handle_.resume();
    if (handle_.promise().failure) std::rethrow_exception(handle_.promise().failure);
    return !handle_.done();
  }

 private:
  explicit Pass(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
  std::coroutine_handle<promise_type> handle_;
};

// Inside a pass, `co_await others_go_on()` is a stop.
inline std::suspend_always others_go_on() { return {}; }

inline void run_alone(Pass pass) {
  while (pass.go_on()) {
  }
}
inline void run_in_turn(Pass first, Pass second) {
  for (bool one = true, other = true; one || other;) {
    one = one && first.go_on();
    other = other && second.go_on();
  }
}

}  // namespace drover
