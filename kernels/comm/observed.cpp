#include "kernels/comm/observed.h"

#include <utility>

namespace drover {

namespace {

template <typename Work>
void seen(const MessageView& view, const CommCall& call, Work&& work) {
  MessageObserver* const observer = view.observer;
  if (observer != nullptr) observer->begin(call);
  work();
  if (observer != nullptr) observer->end(call);
}

class SeenTransfer : public Transfer {
 public:
  SeenTransfer(std::unique_ptr<Transfer> inner, const MessageView& view, const CommCall& call)
      : inner_(std::move(inner)), view_(view), call_(call) {}
  void wait() override {
    if (std::exchange(waited_, true)) return inner_->wait();
    seen(view_, call_, [&] { inner_->wait(); });
  }

 private:
  std::unique_ptr<Transfer> inner_;
  const MessageView& view_;
  CommCall call_;
  bool waited_ = false;
};

class ObservedCommunicator : public Communicator {
 public:
  ObservedCommunicator(std::shared_ptr<Communicator> inner, const MessageView& view)
      : inner_(std::move(inner)), view_(view) {}
  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  const std::string& axis() const override { return inner_->axis(); }
  bool overlaps_sums() const override { return inner_->overlaps_sums(); }

  void all_reduce(Tensor x) override {
    seen(view_, call("all_reduce", x.bytes()), [&] { inner_->all_reduce(x); });
  }
  std::unique_ptr<Transfer> start_all_reduce(Tensor x) override {
    if (inner_->overlaps_sums())
      return std::make_unique<SeenTransfer>(inner_->start_all_reduce(x), view_, call("all_reduce", x.bytes()));
    std::unique_ptr<Transfer> done;  // it is done at once
    seen(view_, call("all_reduce", x.bytes()), [&] { done = inner_->start_all_reduce(x); });
    return done;
  }
  void all_gather(Tensor part, Tensor whole) override {
    seen(view_, call("all_gather", whole.bytes()), [&] { inner_->all_gather(part, whole); });
  }
  void broadcast(Tensor x, int root) override {
    seen(view_, call("broadcast", x.bytes()), [&] { inner_->broadcast(x, root); });
  }
  std::unique_ptr<Transfer> exchange(std::span<const PeerMessage> messages) override {
    int64_t bytes = 0, sends = 0;
    for (const PeerMessage& m : messages) bytes += m.x.bytes(), sends += m.way == PeerMessage::Way::send ? 1 : 0;
    const char* kind = sends == 0 ? "receive" : sends == std::ssize(messages) ? "send" : "exchange";
    return std::make_unique<SeenTransfer>(inner_->exchange(messages), view_, call(kind, bytes));
  }
  void barrier() override { inner_->barrier(); }
  std::vector<std::string> gather_strings(const std::string& mine) override { return inner_->gather_strings(mine); }
  std::vector<std::optional<std::string>> roll_call(const std::string& mine, double seconds) override {
    return inner_->roll_call(mine, seconds);
  }

 private:
  CommCall call(const char* kind, int64_t bytes) const {
    return {.kind = kind, .axis = inner_->axis(), .size = inner_->size(), .bytes = bytes};
  }
  std::shared_ptr<Communicator> inner_;
  const MessageView& view_;
};

}  // namespace

Mesh observed_mesh(const Mesh& mesh, MessageView& view) {
  Mesh seen_through = mesh;
  for (const Axis axis : kAxes) {
    if (mesh.shape[axis] > 1) seen_through.axes[axis] = std::make_shared<ObservedCommunicator>(mesh.axes[axis], view);
  }
  return seen_through;
}

}  // namespace drover
