#include "launch/http/answer.h"

#include <algorithm>

#include "kernels/base/require.h"
#include "launch/http/response_text.h"

namespace drover::http {

bool IoThread::post(Work work) {
  const std::lock_guard lock(mutex_);
  if (post_) post_(std::move(work));
  return static_cast<bool>(post_);
}

void IoThread::end() {
  const std::lock_guard lock(mutex_);
  post_ = nullptr;
}

// With the lock held.
void Answer::wake() {
  if (woken_) return;
  woken_ = true;
  io_->post(wake_);
}

// With the lock held.
void Answer::start(HttpResponse&& response, State next) {
  require(state_ == State::nothing, "an exchange is answered twice");
  require_valid(response);
  bytes_ = std::move(response.body);
  unsent_bytes_ = bytes_.size();
  head_ = std::move(response);
  state_ = next;
  streamed_ = next == State::streaming;
  wake();
}

void Answer::give(HttpResponse response) {
  std::function<void()> then;  // what it holds ends after the lock does
  const std::lock_guard lock(mutex_);
  if (over()) return;
  start(std::move(response), State::complete);
  then.swap(then_);
}

void Answer::begin(HttpResponse head) {
  const std::lock_guard lock(mutex_);
  if (!over()) start(std::move(head), State::streaming);
}

void Answer::send(std::string part) {
  const std::lock_guard lock(mutex_);
  if (over()) return;
  require(state_ == State::streaming, "a part is sent of an answer that has not begun or has ended");
  if (unsent_bytes_ > 0 && unsent_bytes_ + part.size() > unsent_limit_) {
    state_ = State::cut;
    bytes_.clear();
  } else {
    unsent_bytes_ += part.size();
    bytes_ += part;
  }
  wake();
}

void Answer::end() {
  std::function<void()> then;
  const std::lock_guard lock(mutex_);
  if (over()) return;
  require(state_ == State::streaming, "an answer ends that has not begun or has ended");
  state_ = State::complete;
  then.swap(then_);
  wake();
}

void Answer::when_gone(std::function<void()> then) {
  {
    const std::lock_guard lock(mutex_);
    require(!then_, "when_gone is called twice");
    if (state_ == State::complete) return;
    if (state_ != State::closed) {
      then_ = std::move(then);
      return;
    }
  }
  if (!io_->post(then)) then();
}

void Answer::abandon() {
  const std::lock_guard lock(mutex_);
  if (over() || state_ == State::complete) return;
  state_ = state_ == State::nothing ? State::failed : State::cut;
  wake();
}

Answer::Taken Answer::take() {
  const std::lock_guard lock(mutex_);
  woken_ = false;
  Taken taken;
  taken.head.swap(head_);
  taken.bytes.swap(bytes_);
  taken.streamed = streamed_;
  taken.last = state_ == State::complete;
  taken.failed = state_ == State::failed;
  taken.cut = state_ == State::cut;
  return taken;
}

bool Answer::cut() const {
  const std::lock_guard lock(mutex_);
  return state_ == State::cut;
}

void Answer::wrote(size_t bytes) {
  const std::lock_guard lock(mutex_);
  unsent_bytes_ -= std::min(bytes, unsent_bytes_);  // framing was written too
}

bool Answer::close() {
  std::function<void()> then;
  {
    const std::lock_guard lock(mutex_);
    if (state_ == State::complete) return false;
    state_ = State::closed;
    then.swap(then_);
  }
  if (then) then();
  return true;
}

namespace {

class Given final : public Exchange {
 public:
  explicit Given(std::shared_ptr<Answer> answer) : answer_(std::move(answer)) {}
  ~Given() override { answer_->abandon(); }
  Given(const Given&) = delete;
  Given& operator=(const Given&) = delete;
  void answer(HttpResponse response) override { answer_->give(std::move(response)); }
  void begin(HttpResponse head) override { answer_->begin(std::move(head)); }
  void send(std::string part) override { answer_->send(std::move(part)); }
  void end() override { answer_->end(); }
  void when_gone(std::function<void()> then) override { answer_->when_gone(std::move(then)); }

 private:
  const std::shared_ptr<Answer> answer_;
};

}  // namespace

std::shared_ptr<Exchange> exchange_of(std::shared_ptr<Answer> answer) {
  return std::make_shared<Given>(std::move(answer));
}

}  // namespace drover::http
