#include "kernels/comm/staged.h"

#include <list>

#include "kernels/base/error.h"

namespace drover {

namespace {

// A tensor's elements in host memory, rows one after another.
struct HostCopy {
  explicit HostCopy(Tensor x)
      : bytes(static_cast<size_t>(x.bytes())), tensor(matrix(bytes.data(), x.rows, x.cols, x.dtype, Where::host)) {}
  std::vector<char> bytes;
  Tensor tensor;
};

class StagedTransfer : public Transfer {
 public:
  explicit StagedTransfer(Backend& backend) : backend_(backend) {}

  Tensor stage(const PeerMessage& m) {
    Part& part = parts_.emplace_back(Part{m, HostCopy(m.x)});
    if (m.way == PeerMessage::Way::send) backend_.download(m.x, part.copy.bytes.data());
    return part.copy.tensor;
  }
  void start(std::unique_ptr<Transfer> transfer) { transfer_ = std::move(transfer); }
  void wait() override {
    transfer_->wait();
    for (const Part& part : parts_) {
      if (part.message.way == PeerMessage::Way::receive) backend_.upload(part.copy.bytes.data(), part.message.x);
    }
    parts_.clear();
  }

 private:
  struct Part {
    PeerMessage message;
    HostCopy copy;
  };
  Backend& backend_;
  std::list<Part> parts_;               // which stay where they are
  std::unique_ptr<Transfer> transfer_;  // ends before the memory it uses
};

class StagedCommunicator : public Communicator {
 public:
  StagedCommunicator(std::shared_ptr<Communicator> host, Backend& backend)
      : host_(std::move(host)), backend_(backend) {}
  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  const std::string& axis() const override { return host_->axis(); }

  void all_reduce(Tensor x) override {
    HostCopy copy(x);
    backend_.download(x, copy.bytes.data());
    host_->all_reduce(copy.tensor);
    backend_.upload(copy.bytes.data(), x);
  }
  void all_gather(Tensor part, Tensor whole) override {
    HostCopy mine(part), all(whole);
    backend_.download(part, mine.bytes.data());
    host_->all_gather(mine.tensor, all.tensor);
    backend_.upload(all.bytes.data(), whole);
  }
  void broadcast(Tensor x, int root) override {
    HostCopy copy(x);
    if (rank() == root) backend_.download(x, copy.bytes.data());
    host_->broadcast(copy.tensor, root);
    if (rank() != root) backend_.upload(copy.bytes.data(), x);
  }
  void barrier() override { host_->barrier(); }
  std::unique_ptr<Transfer> exchange(std::span<const PeerMessage> messages) override {
    auto transfer = std::make_unique<StagedTransfer>(backend_);
    std::vector<PeerMessage> staged(messages.begin(), messages.end());
    for (PeerMessage& m : staged) m.x = transfer->stage(m);
    transfer->start(host_->exchange(staged));
    return transfer;
  }
  std::vector<std::string> gather_strings(const std::string& mine) override { return host_->gather_strings(mine); }
  std::vector<std::optional<std::string>> roll_call(const std::string& mine, double seconds) override {
    return host_->roll_call(mine, seconds);
  }

 private:
  std::shared_ptr<Communicator> host_;
  Backend& backend_;
};

}  // namespace

Mesh make_staged_mesh(const Mesh& host, Backend& backend) {
  return make_mesh(host.shape, host.world,
                   [&](Axis axis, int, int) { return std::make_shared<StagedCommunicator>(host.axes[axis], backend); });
}

}  // namespace drover
