// The communicator of plans: one rank of a group of any size, in one process. It tallies calls and bytes of this rank
// by kind and answers as a group of identical ranks would: a sum is left alone, a gather repeats the part (where memory
// is real), a receive brings nothing. An observer sees its calls in order, and when a sum that was started is waited
// for.
#pragma once
#include <map>

#include "kernels/comm/communicator.h"

namespace drover {

struct CommCount {
  int64_t calls = 0, bytes = 0;
};

// What a rank asks of its group; bytes as CommCount has them.
struct CommCall {
  std::string_view kind;  // the name of Communicator's method
  std::string_view axis;
  int size = 1;  // ranks of the group
  int64_t bytes = 0;
};

class CommObserver {
 public:
  virtual ~CommObserver() = default;
  virtual void called(const CommCall& call) = 0;
  virtual int64_t started(const CommCall& call) = 0;  // → what names it in `waited`
  virtual void waited(int64_t started) = 0;
};

class CountCommunicator : public Communicator {
 public:
  // overlaps_sums: as the communicator that is counted for.
  CountCommunicator(std::string axis, int rank, int size, bool overlaps_sums = false, CommObserver* observer = nullptr);
  // By method name. Bytes: of x (all_reduce, broadcast, send, receive), of the whole (all_gather), of the string
  // (gather_strings).
  const std::map<std::string, CommCount>& counts() const { return counts_; }
  CommCount count(const std::string& kind) const;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const std::string& axis() const override { return axis_; }
  void all_reduce(Tensor x) override;
  std::unique_ptr<Transfer> start_all_reduce(Tensor x) override;
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
  CommCall tally(const char* kind, int64_t bytes);
  void called(const char* kind, int64_t bytes);
  std::string axis_;
  int rank_, size_;
  bool overlaps_sums_;
  CommObserver* observer_;
  std::map<std::string, CommCount> counts_;
};

}  // namespace drover
