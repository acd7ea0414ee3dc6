// A communicator over MPI point-to-point messages, host memory only. Every wait polls under a deadline and knows its
// peers, so a rank that never answers is named. DROVER_COMM_SYNCHRONOUS=1 sends everything synchronously (a send ends
// only once its receive began): for tests.
//   all_reduce: pieces of at most 4 MB; each rank gets everyone's part of its share, sums in rank order, rounds once,
//   hands its share out.
#pragma once
#include <mpi.h>

#include <list>

#include "kernels/comm/communicator.h"

namespace drover {

class MpiCommunicator : public Communicator {
 public:
  MpiCommunicator(std::string axis, MPI_Comm members);  // takes duplicates of `members`; collective over them
  ~MpiCommunicator() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const std::string& axis() const override { return axis_; }
  void all_reduce(Tensor x) override;
  void all_gather(Tensor part, Tensor whole) override;
  void broadcast(Tensor x, int root) override;
  void barrier() override;
  std::unique_ptr<Transfer> exchange(std::span<const PeerMessage> messages) override;
  std::vector<std::string> gather_strings(const std::string& mine) override;
  std::vector<std::optional<std::string>> roll_call(const std::string& mine, double seconds) override;

  int world_rank(int member) const { return world_ranks_[static_cast<size_t>(member)]; }

 private:
  void reduce_piece(void* data, int64_t count, DType dtype);

  std::string axis_;
  MPI_Comm collectives_ = MPI_COMM_NULL, messages_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1;
  int highest_tag_ = 32767;
  std::vector<int> world_ranks_;
  std::list<std::string> roll_calls_;  // what was sent
  std::vector<char> staging_, inbox_;  // scratch, at most 4 MB each
};

void check_mpi(int result, const char* call);  // Fault::rank_lost with MPI's words

}  // namespace drover
