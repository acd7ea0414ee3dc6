// What is between those who make an answer, on any thread, and the connection that writes it, on the I/O thread.
#pragma once
#include <mutex>
#include <optional>

#include "launch/http/server.h"

namespace drover::http {

// The I/O thread, for those who may outlive it.
class IoThread {
 public:
  using Work = std::function<void()>;
  explicit IoThread(std::function<void(Work)> post) : post_(std::move(post)) {}
  bool post(Work work);  // false: it has ended
  void end();            // nothing is posted afterwards

 private:
  std::mutex mutex_;
  std::function<void(Work)> post_;
};

class Answer {
 public:
  // `wake` is posted to the I/O thread when there is something to take.
  Answer(std::shared_ptr<IoThread> io, size_t unsent_limit, IoThread::Work wake)
      : io_(std::move(io)), unsent_limit_(unsent_limit), wake_(std::move(wake)) {}

  // As Exchange has it. Any thread.
  void give(HttpResponse response);
  void begin(HttpResponse head);
  void send(std::string part);
  void end();
  void when_gone(std::function<void()> then);
  void abandon();  // nothing more comes: a failure unless the answer is complete

  // The I/O thread only.
  struct Taken {
    std::optional<HttpResponse> head;  // once, before any bytes; its body is in `bytes`
    std::string bytes;
    bool streamed = false, last = false;
    bool failed = false;  // abandoned before it began
    bool cut = false;     // abandoned later, or the reader lagged too far behind
  };
  Taken take();
  bool cut() const;
  void wrote(size_t bytes);
  // Nothing more is written, and `then` of when_gone is called unless the answer is complete. False: it is complete.
  bool close();

 private:
  enum class State : uint8_t { nothing, streaming, complete, failed, cut, closed };
  bool over() const { return state_ == State::failed || state_ == State::cut || state_ == State::closed; }
  void start(HttpResponse&& response, State next);
  void wake();

  const std::shared_ptr<IoThread> io_;
  const size_t unsent_limit_;
  const IoThread::Work wake_;

  mutable std::mutex mutex_;
  State state_ = State::nothing;
  std::optional<HttpResponse> head_;
  std::string bytes_;
  size_t unsent_bytes_ = 0;  // taken or not
  bool streamed_ = false, woken_ = false;
  std::function<void()> then_;
};

std::shared_ptr<Exchange> exchange_of(std::shared_ptr<Answer> answer);

}  // namespace drover::http
