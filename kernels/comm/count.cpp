#include "kernels/comm/count.h"

#include "kernels/comm/rank_sum.h"

namespace drover {

CountCommunicator::CountCommunicator(std::string axis, int rank, int size, bool overlaps_sums)
    : axis_(std::move(axis)), rank_(rank), size_(size), overlaps_sums_(overlaps_sums) {
  require(size >= 1 && rank >= 0 && rank < size, "a rank of the group");
}

CommCount CountCommunicator::count(const std::string& kind) const {
  const auto found = counts_.find(kind);
  return found == counts_.end() ? CommCount{} : found->second;
}

void CountCommunicator::tally(const char* kind, int64_t bytes) {
  CommCount& count = counts_[kind];
  ++count.calls;
  count.bytes += bytes;
}

void CountCommunicator::all_reduce(Tensor x) {
  require(x.dtype != DType::i32, "an all-reduce is of bf16, f32 or f64");
  tally("all_reduce", x.bytes());
}

void CountCommunicator::all_gather(Tensor part, Tensor whole) {
  require(whole.rows == size_ * part.rows && whole.cols == part.cols && whole.dtype == part.dtype,
          "an all-gather's whole is one part per rank");
  tally("all_gather", whole.bytes());
  if (part.where != Where::host || whole.where != Where::host) return;
  for (int64_t row = 0; row < whole.rows; ++row) {
    void* to = whole.rows_from(row, 1).data;
    if (to != part.rows_from(row % part.rows, 1).data) pack(part, row % part.rows * part.cols, part.cols, to);
  }
}

void CountCommunicator::broadcast(Tensor x, int root) {
  require(root >= 0 && root < size_, "the root is a rank of the group");
  tally("broadcast", x.bytes());
}

void CountCommunicator::barrier() { tally("barrier", 0); }

std::unique_ptr<Transfer> CountCommunicator::exchange(std::span<const PeerMessage> messages) {
  for (const PeerMessage& m : messages) {
    require(m.peer >= 0 && m.peer < size_ && m.peer != rank_, "the peer is another rank of the group");
    require(m.x.contiguous(), "a message is contiguous");
    tally(m.way == PeerMessage::Way::send ? "send" : "receive", m.x.bytes());
  }
  return done_transfer();
}

std::vector<std::string> CountCommunicator::gather_strings(const std::string& mine) {
  tally("gather_strings", static_cast<int64_t>(mine.size()));
  return std::vector<std::string>(static_cast<size_t>(size_), mine);
}

}  // namespace drover
