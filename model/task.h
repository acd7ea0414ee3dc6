// A pass of some rows through blocks, as a coroutine. It yields where it waits for a sum over tp that is on its way, so
// that another pass can compute meanwhile; `co_await` of a task within a task runs it as a part of the outer one.
// The two never touch the same rows, and each has a scratch of its own. What a task is given by reference outlives it.
#pragma once
#include <coroutine>
#include <exception>
#include <utility>

#include "kernels/base/require.h"

namespace drover {

class [[nodiscard]] Task {
 public:
  struct promise_type;
  using Handle = std::coroutine_handle<promise_type>;

  struct Return {  // at a task's end, to the one that awaits it
    bool await_ready() noexcept { return false; }
    void await_suspend(Handle ended) noexcept;
    void await_resume() noexcept {}
  };
  struct promise_type {
    promise_type* root = this;  // the outermost task, which is the one that is resumed
    Handle innermost;           // of the root: where it resumes
    Handle outer;               // null: this is the root
    std::exception_ptr failure;
    Task get_return_object() {
      innermost = Handle::from_promise(*this);
      return Task(Handle::from_promise(*this));
    }
    std::suspend_always initial_suspend() noexcept { return {}; }
    Return final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { failure = std::current_exception(); }
  };

  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Task& operator=(Task&&) = delete;
  ~Task() {
    if (handle_) handle_.destroy();
  }

  // Runs to the next yield; false: it has ended. Throws what failed in it.
  bool resume() {
    require(!handle_.done(), "a task is resumed until it has ended");
    promise_type& task = handle_.promise();
    for (bool yielded = false; !yielded && !handle_.done();) {
      const Handle running = task.innermost;
      running.resume();
      yielded = task.innermost == running;  // else it called another one, or ended
    }
    if (task.failure) std::rethrow_exception(task.failure);
    return !handle_.done();
  }

  struct Call {  // of a task by another
    Handle inner;
    bool await_ready() noexcept { return false; }
    void await_suspend(Handle outer) noexcept {
      promise_type& called = inner.promise();
      called.outer = outer;
      called.root = outer.promise().root;
      called.root->innermost = inner;
    }
    void await_resume() {
      if (inner.promise().failure) std::rethrow_exception(inner.promise().failure);
    }
  };
  Call operator co_await() && noexcept { return {handle_}; }

 private:
  explicit Task(Handle handle) : handle_(handle) {}
  Handle handle_;
};

inline void Task::Return::await_suspend(Handle ended) noexcept {
  const promise_type& task = ended.promise();
  task.root->innermost = task.outer;
}

// Within a task, `co_await yield()` lets the other one go on.
inline std::suspend_always yield() { return {}; }

inline void run_alone(Task task) {
  while (task.resume()) {
  }
}
inline void interleave(Task first, Task second) {
  for (bool one = true, other = true; one || other;) {
    one = one && first.resume();
    other = other && second.resume();
  }
}

}  // namespace drover
