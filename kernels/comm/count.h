// The communicator of plans: one rank of a group of any size, in one process. It tallies calls and bytes of this rank
// by kind and answers as a group of identical ranks would: a sum is left alone, a gather repeats the part (where memory
// is real), a receive brings nothing.
#pragma once
#include <map>

#include "kernels/comm/communicator.h"

namespace drover {

struct CommCount {
  int64_t calls = 0, bytes = 0;
};

class CountCommunicator : public Communicator {
 public:
  // overlaps_sums: as the communicator that is counted for.
  CountCommunicator(std::string axis, int rank, int size, bool overlaps_sums = false);
  // By method name. Bytes: of x (all_reduce, broadcast, send, receive), of the whole (all_gather), of the string
  // (gather_strings).
  const std::map<std::string, CommCount>& counts() const { return counts_; }
  CommCount count(const std::string& kind) const;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const std::string& axis() const override { return axis_; }
  void all_reduce(Tensor x) override;
  bool overlaps_sums() const override { return overlaps_sums_; }
  void all_gather(Tensor part, Tensor whole) override;
  void broadcast(Tensor x, int root) override;
  void barrier() override;
  std::unique_ptr<Transfer> exchange(std::span<const PeerMessage> messages) override;
  std::vector<std::string> gather_strings(const std::string& mine) override;
  std::vector<std::optional<std::string>> roll_call(const std::string& mine, double) override {
    return {static_cast<size_t>(size_), mine};
  }

 private:
  void tally(const char* kind, int64_t bytes);
  std::string axis_;
  int rank_, size_;
  bool overlaps_sums_;
  std::map<std::string, CommCount> counts_;
};

}  // namespace drover
