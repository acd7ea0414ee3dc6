// Collectives and point-to-point sends among the ranks of one axis of the mesh. A communicator of one rank is a null
// object (Self). Reductions are summed in fp32 (f64 for f64) in rank order and rounded once, so every rank gets the
// same bits whatever the message size; over NCCL only with train.deterministic, else as NCCL adds. Deadlines: a call
// that waits longer than the deadline for a peer fails with Fault::rank_hangs naming the axis, the call and the peer.
// Where: `Count` counts bytes and answers zeros, `Self` copies, `Threads` joins ranks that are threads of one process
// (tests), `Mpi` is Open MPI or any MPI-3, `Staged` moves a device's tensors through host memory and another
// communicator, and kernels/nccl through NCCL.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/event.h"
#include "kernels/tensor.h"

namespace drover {

// What a rank sends to or receives from another one of its group: contiguous. Messages of a pair of ranks are matched
// by tag, and among equal tags in order; both ends call in one order in any case, since a device's library knows no
// tags. They may be larger than 2 GiB.
struct PeerMessage {
  enum class Way : uint8_t { send, receive };
  Way way;
  Tensor x;
  int peer;
  int tag;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual const std::string& axis() const = 0;  // "tp", "pp", "dp", "world": for messages

  virtual void all_reduce(Tensor x) = 0;  // x := Σ over ranks.  bf16 | f32 | f64; pitched rows allowed
  // The same sum, started behind all that is enqueued; what is enqueued next may run meanwhile. x belongs to the
  // transfer until `wait`. Several may be on their way: they run in the order of their starts. Until all were waited
  // for, the caller starts nothing else on this communicator. Unless it is overridden, it is done at once.
  virtual std::unique_ptr<Transfer> start_all_reduce(Tensor x);
  virtual bool overlaps_sums() const { return false; }  // whether a started sum runs while the device computes
  virtual void all_gather(
      Tensor part,
      Tensor whole) = 0;  // whole (size·part.rows, cols): the ranks' parts, in rank order; part may lie in its place
  virtual void broadcast(Tensor x, int root) = 0;
  virtual void barrier() = 0;
  // Non-blocking. The messages start together: none of them waits for another, and the transfer ends with the last.
  virtual std::unique_ptr<Transfer> exchange(std::span<const PeerMessage> messages) = 0;
  std::unique_ptr<Transfer> send(Tensor x, int to, int tag) {
    return exchange({{PeerMessage{PeerMessage::Way::send, x, to, tag}}});
  }
  std::unique_ptr<Transfer> receive(Tensor x, int from, int tag) {
    return exchange({{PeerMessage{PeerMessage::Way::receive, x, from, tag}}});
  }

  // Host control plane: small byte strings (manifests, errors, hashes), any sizes, in rank order.
  virtual std::vector<std::string> gather_strings(const std::string& mine) = 0;  // to all ranks
  // Who is there? Every rank that calls hears from those that call within `seconds` of it; no deadline fails it. Texts
  // of at most 1000 bytes (more is cut).
  virtual std::vector<std::optional<std::string>> roll_call(const std::string& mine, double seconds) = 0;
};

std::unique_ptr<Communicator> make_self_communicator(std::string axis);

}  // namespace drover
