// What the communicators of one process share: NCCL's functions, the queues, the watch; and the life of their handles.
#pragma once
#include <deque>
#include <functional>
#include <memory>

#include "kernels/comm/communicator.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/nccl/watch.h"

namespace drover::nccl {

class Link {
 public:
  Link(const Api& api, std::shared_ptr<Communicator> world, cuda::CudaBackend& backend, int device);
  ~Link();  // ends all communicators: together where all is well, by abort where it is not

  ncclComm_t init(int size, int rank, const ncclUniqueId& id);
  ncclComm_t split(ncclComm_t parent, int color, int key, const std::string& axis);

  // One call of NCCL for the device, recorded by the watch: `issue` enqueues it on `stream` and gives NCCL's answer.
  void call(ncclComm_t comm, const std::string& text, cudaStream_t stream, const std::function<ncclResult_t()>& issue);
  void check();  // throws where a peer was lost or hangs, naming who does not answer

  const Api& api() const { return api_; }
  cudaStream_t compute() const { return backend_.stream(); }
  // Queues of their own, so that a sum does not wait for a message of another stage, nor either for the computing
  // behind it.
  cudaStream_t messages() const { return messages_; }
  cudaStream_t sums() const { return sums_; }
  char* scratch(int64_t bytes);  // device memory that grows, for one call at a time

 private:
  void finish(ncclComm_t comm, const std::string& text, ncclResult_t result);
  [[noreturn]] void fail_with(Fault fault, const std::string& words);
  [[noreturn]] void report(const Error& error);

  const Api& api_;
  std::shared_ptr<Communicator> world_;
  cuda::CudaBackend& backend_;
  cudaStream_t messages_ = nullptr, sums_ = nullptr;
  std::deque<ncclComm_t> comms_;  // the world's first; they stay where they are
  char* scratch_ = nullptr;
  int64_t scratch_bytes_ = 0;
  std::unique_ptr<Watch> watch_;
};

std::unique_ptr<Communicator> make_communicator(std::shared_ptr<Link> link, std::shared_ptr<Communicator> host,
                                                ncclComm_t comm, bool deterministic);

}  // namespace drover::nccl
