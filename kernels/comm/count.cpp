#include "kernels/comm/count.h"

#include "kernels/comm/rank_sum.h"

namespace drover {

namespace {

class StartedSum : public Transfer {
 public:
  StartedSum(CommObserver& observer, int64_t name) : observer_(observer), name_(name) {}
  void wait() override {
    if (!waited_) observer_.waited(name_);
    waited_ = true;
  }

 private:
  CommObserver& observer_;
  int64_t name_;
  bool waited_ = false;
};

}  // namespace

CountCommunicator::CountCommunicator(std::string axis, int rank, int size, bool overlaps_sums, CommObserver* observer)
    : axis_(std::move(axis)), rank_(rank), size_(size), overlaps_sums_(overlaps_sums), observer_(observer) {
  require(size >= 1 && rank >= 0 && rank < size, "a rank of the group");
}

CommCount CountCommunicator::count(const std::string& kind) const {
  const auto found = counts_.find(kind);
  return found == counts_.end() ? CommCount{} : found->second;
}

CommCall CountCommunicator::tally(const char* kind, int64_t bytes) {
  CommCount& count = counts_[kind];
  ++count.calls;
  count.bytes += bytes;
  return {.kind = kind, .axis = axis_, .size = size_, .bytes = bytes};
}

void CountCommunicator::called(const char* kind, int64_t bytes) {
  const CommCall call = tally(kind, bytes);
  if (observer_ != nullptr) observer_->called(call);
}

void CountCommunicator::all_reduce(Tensor x) {
  require(x.dtype != DType::i32, "an all-reduce is of bf16, f32 or f64");
  called("all_reduce", x.bytes());
}

std::unique_ptr<Transfer> CountCommunicator::start_all_reduce(Tensor x) {
  if (observer_ == nullptr || !overlaps_sums_) return Communicator::start_all_reduce(x);
  return std::make_unique<StartedSum>(*observer_, observer_->started(tally("all_reduce", x.bytes())));
}

void CountCommunicator::all_gather(Tensor part, Tensor whole) {
  require(whole.rows == size_ * part.rows && whole.cols == part.cols && whole.dtype == part.dtype,
          "an all-gather's whole is one part per rank");
  called("all_gather", whole.bytes());
  if (part.where != Where::host || whole.where != Where::host) return;
  for (int64_t row = 0; row < whole.rows; ++row) {
    void* to = whole.rows_from(row, 1).data;
    if (to != part.rows_from(row % part.rows, 1).data) pack(part, row % part.rows * part.cols, part.cols, to);
  }
}

void CountCommunicator::broadcast(Tensor x, int root) {
  require(root >= 0 && root < size_, "the root is a rank of the group");
  called("broadcast", x.bytes());
}

void CountCommunicator::barrier() { called("barrier", 0); }

std::unique_ptr<Transfer> CountCommunicator::exchange(std::span<const PeerMessage> messages) {
  for (const PeerMessage& m : messages) {
    require(m.peer >= 0 && m.peer < size_ && m.peer != rank_, "the peer is another rank of the group");
    require(m.x.contiguous(), "a message is contiguous");
    called(m.way == PeerMessage::Way::send ? "send" : "receive", m.x.bytes());
  }
  return done_transfer();
}

std::vector<std::string> CountCommunicator::gather_strings(const std::string& mine) {
  called("gather_strings", static_cast<int64_t>(mine.size()));
  return std::vector<std::string>(static_cast<size_t>(size_), mine);
}

}  // namespace drover
