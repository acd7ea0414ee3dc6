#include "kernels/comm/checked.h"

#include "kernels/base/error.h"
#include "kernels/base/hash.h"
#include "kernels/comm/agree.h"

namespace drover {

namespace {

class CheckedCommunicator : public Communicator {
 public:
  explicit CheckedCommunicator(std::shared_ptr<Communicator> inner) : inner_(std::move(inner)) {}
  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  const std::string& axis() const override { return inner_->axis(); }

  void all_reduce(Tensor x) override {
    compare(fmt::format("all_reduce {} × {}", x.size(), name_of(x.dtype)));
    inner_->all_reduce(x);
  }
  std::unique_ptr<Transfer> start_all_reduce(Tensor x) override {
    compare(fmt::format("start_all_reduce {} × {}", x.size(), name_of(x.dtype)));
    return inner_->start_all_reduce(x);
  }
  bool overlaps_sums() const override { return inner_->overlaps_sums(); }
  void all_gather(Tensor part, Tensor whole) override {
    compare(fmt::format("all_gather {} × {}", part.size(), name_of(part.dtype)));
    inner_->all_gather(part, whole);
  }
  void broadcast(Tensor x, int root) override {
    compare(fmt::format("broadcast {} × {} from rank {}", x.size(), name_of(x.dtype), root));
    inner_->broadcast(x, root);
  }
  void barrier() override {
    compare("barrier");
    inner_->barrier();
  }
  std::vector<std::string> gather_strings(const std::string& mine) override {
    compare("gather_strings");
    return inner_->gather_strings(mine);
  }
  std::vector<std::optional<std::string>> roll_call(const std::string& mine, double seconds) override {
    return inner_->roll_call(mine, seconds);
  }
  std::unique_ptr<Transfer> exchange(std::span<const PeerMessage> messages) override {
    return inner_->exchange(messages);
  }

 private:
  // Eight bytes travel when all is well; the words only when it is not.
  void compare(const std::string& call) {
    const std::string words = fmt::format("{} (call {})", call, sequence_++);
    const uint64_t hash = xxh3(words.data(), words.size());
    const std::string mine(reinterpret_cast<const char*>(&hash), sizeof hash);
    const std::vector<std::string> hashes = inner_->gather_strings(mine);
    bool same = true;
    for (const std::string& other : hashes) same &= other == hashes[0];
    if (same) return;
    const std::vector<std::string> calls = inner_->gather_strings(words);
    std::string message;
    for (int r = 0; r < size(); ++r) {
      if (r > 0 && hashes[static_cast<size_t>(r)] == hashes[0]) continue;
      message += fmt::format("{}rank {}: {}", message.empty() ? "" : "; ", r, calls[static_cast<size_t>(r)]);
    }
    fail(Fault::internal, "internal error: the ranks of {} make different calls: {}", axis(), message);
  }

  std::shared_ptr<Communicator> inner_;
  int64_t sequence_ = 0;
};

}  // namespace

std::unique_ptr<Communicator> make_checked_communicator(std::shared_ptr<Communicator> inner) {
  return std::make_unique<CheckedCommunicator>(std::move(inner));
}

}  // namespace drover
