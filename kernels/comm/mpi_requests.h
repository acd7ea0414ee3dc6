// MPI requests under way, each with its peer, and the one loop in which this program waits for another rank.
#pragma once
#include "kernels/comm/mpi_communicator.h"

namespace drover {

class MpiRequests {
 public:
  MpiRequests(const MpiCommunicator& owner, MPI_Comm members, int tag, const char* call)
      : owner_(owner), members_(members), tag_(tag), call_(call) {}
  ~MpiRequests();  // gives up what was not waited for
  MpiRequests(const MpiRequests&) = delete;
  MpiRequests& operator=(const MpiRequests&) = delete;

  void send(const void* data, int64_t bytes, int to);  // long messages travel as several
  void receive(void* data, int64_t bytes, int from);
  void wait();

 private:
  struct Message {
    int peer;
    int bytes;
    bool receiving;
  };
  [[noreturn]] void fail_late();
  void check_arrived(const std::vector<MPI_Status>& statuses);

  const MpiCommunicator& owner_;
  MPI_Comm members_;
  int tag_;
  const char* call_;
  std::vector<MPI_Request> requests_;
  std::vector<Message> messages_;
};

}  // namespace drover
