// Pieces of something large are made in several threads, and used by the thread that asks for them in the order in
// which it asked: what comes of them does not depend on the number of threads.
#pragma once
#include <deque>
#include <functional>
#include <future>
#include <utility>

namespace drover {

template <typename Made>
class InOrder {
 public:
  using Use = std::function<void(Made)>;

  // At most `threads` pieces are being made, or wait for their turn, at a time. With one thread a piece is made, and
  // used, where it is added.
  InOrder(int threads, Use use) : most_(static_cast<size_t>(threads)), use_(std::move(use)) {}

  // What a piece throws comes out of a later call, at its turn.
  template <typename Make>
  void add(Make make) {
    if (most_ <= 1) return use_(make());
    if (begun_.size() == most_) use_first();
    begun_.push_back(std::async(std::launch::async, std::move(make)));
  }
  void finish() {
    while (!begun_.empty()) use_first();
  }

 private:
  void use_first() {
    std::future<Made> first = std::move(begun_.front());
    begun_.pop_front();
    use_(first.get());
  }

  size_t most_;
  Use use_;
  std::deque<std::future<Made>> begun_;  // whose end waits for what is not made yet
};

}  // namespace drover
