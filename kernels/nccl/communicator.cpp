// Tensors on one axis over NCCL. Pitched rows are packed into scratch and back; messages are contiguous.
#include <algorithm>

#include "kernels/cuda/check.h"
#include "kernels/nccl/link.h"
#include "kernels/nccl/rank_sum.h"

namespace drover::nccl {

namespace {

constexpr int64_t kPieceBytes = 64 << 20;  // of a sum in rank order: what the inbox holds at most

ncclDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::bf16: return ncclBfloat16;
    case DType::f32: return ncclFloat32;
    case DType::f64: return ncclFloat64;
    case DType::i32: return ncclInt32;
    case DType::u8: return ncclUint8;
  }
  fail(Fault::internal, "internal error: NCCL moves bf16, f32, f64, i32 and u8");
}

char* at(Tensor x, int64_t element) { return static_cast<char*>(x.data) + element * size_of(x.dtype); }

// Rows to contiguous rows, or back.
void move_rows(Tensor from, Tensor to, cudaStream_t stream) {
  const auto pitch = [](Tensor x) {
    return static_cast<size_t>((x.contiguous() ? x.cols : x.pitch) * size_of(x.dtype));
  };
  cuda::check(cudaMemcpy2DAsync(to.data, pitch(to), from.data, pitch(from),
                                static_cast<size_t>(from.cols * size_of(from.dtype)), static_cast<size_t>(from.rows),
                                cudaMemcpyDeviceToDevice, stream),
              "cudaMemcpy2DAsync");
}

class Event {
 public:
  Event() { cuda::check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreateWithFlags"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(cudaStream_t stream) { cuda::check(cudaEventRecord(event_, stream), "cudaEventRecord"); }
  void hold(cudaStream_t stream) const { cuda::check(cudaStreamWaitEvent(stream, event_, 0), "cudaStreamWaitEvent"); }

 private:
  cudaEvent_t event_ = nullptr;
};

class NcclTransfer : public Transfer {
 public:
  NcclTransfer(std::shared_ptr<Link> link, cudaStream_t stream) : link_(std::move(link)) { done_.record(stream); }
  void wait() override {
    if (!waited_) done_.hold(link_->compute());
    waited_ = true;
  }

 private:
  std::shared_ptr<Link> link_;
  Event done_;
  bool waited_ = false;
};

class NcclCommunicator : public Communicator {
 public:
  NcclCommunicator(std::shared_ptr<Link> link, std::shared_ptr<Communicator> host, ncclComm_t comm, bool deterministic)
      : link_(std::move(link)), host_(std::move(host)), comm_(comm), deterministic_(deterministic) {}
  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  const std::string& axis() const override { return host_->axis(); }

  void all_reduce(Tensor x) override {
    require(x.where == Where::device && x.dtype != DType::i32, "an all-reduce is of bf16, f32 or f64 on the device");
    if (x.size() == 0) return;
    const int64_t inbox = deterministic_ ? inbox_bytes(x) : 0;
    Tensor packed = x;
    if (!x.contiguous()) {
      packed = matrix(link_->scratch(inbox + x.bytes()) + inbox, x.rows, x.cols, x.dtype, Where::device);
      move_rows(x, packed, link_->compute());
    }
    if (deterministic_) {
      for (int64_t begin = 0; begin < x.size(); begin += piece(x))
        sum_piece(at(packed, begin), std::min(piece(x), x.size() - begin), x.dtype, inbox);
    } else {
      sum(packed, link_->compute());
    }
    if (!x.contiguous()) move_rows(packed, x, link_->compute());
  }

  std::unique_ptr<Transfer> start_all_reduce(Tensor x) override {
    require(x.where == Where::device && x.dtype != DType::i32, "an all-reduce is of bf16, f32 or f64 on the device");
    // Sums in rank order compute and use scratch, as packed rows do: these stay in the compute queue.
    if (deterministic_ || !x.contiguous() || x.size() == 0) return Communicator::start_all_reduce(x);
    start_behind_compute(link_->sums());
    sum(x, link_->sums());
    return std::make_unique<NcclTransfer>(link_, link_->sums());
  }

  bool overlaps_sums() const override { return !deterministic_; }

  void all_gather(Tensor part, Tensor whole) override {
    require(part.where == Where::device && whole.where == Where::device, "NCCL moves device memory");
    require(whole.rows == size() * part.rows && whole.cols == part.cols && whole.dtype == part.dtype,
            "an all-gather's whole is one part per rank");
    if (part.size() == 0) return;
    Tensor mine = part, all = whole;
    if (!whole.contiguous())
      all = matrix(link_->scratch(whole.bytes()), whole.rows, whole.cols, whole.dtype, Where::device);
    if (!part.contiguous()) {
      mine = all.rows_from(rank() * part.rows, part.rows);
      move_rows(part, mine, link_->compute());
    }
    enqueue("all_gather", whole.bytes(), [&](cudaStream_t stream) {
      return link_->api().all_gather(mine.data, all.data, static_cast<size_t>(part.size()), type_of(part.dtype), comm_,
                                     stream);
    });
    if (!whole.contiguous()) move_rows(all, whole, link_->compute());
  }

  void broadcast(Tensor x, int root) override {
    require(x.where == Where::device && root >= 0 && root < size(),
            "a broadcast is from a rank of the group, on the device");
    if (x.size() == 0) return;
    Tensor packed = x;
    if (!x.contiguous()) {
      packed = matrix(link_->scratch(x.bytes()), x.rows, x.cols, x.dtype, Where::device);
      move_rows(x, packed, link_->compute());
    }
    enqueue("broadcast", x.bytes(), [&](cudaStream_t stream) {
      return link_->api().broadcast(packed.data, packed.data, static_cast<size_t>(x.size()), type_of(x.dtype), root,
                                    comm_, stream);
    });
    if (!x.contiguous()) move_rows(packed, x, link_->compute());
  }

  std::unique_ptr<Transfer> exchange(std::span<const PeerMessage> messages) override {
    start_behind_compute(link_->messages());
    std::string text = axis() + ":";
    for (const PeerMessage& m : messages) {
      require(m.x.where == Where::device && m.x.contiguous(), "a message is contiguous, on the device");
      require(m.peer >= 0 && m.peer < size() && m.peer != rank(), "the peer is another rank of the group");
      text += fmt::format(" {} rank {} of {} ({} bytes)", m.way == PeerMessage::Way::send ? "send to" : "receive from",
                          m.peer, axis(), m.x.bytes());
    }
    link_->call(comm_, text, link_->messages(), [&] { return grouped(messages, link_->messages()); });
    return std::make_unique<NcclTransfer>(link_, link_->messages());
  }

  void barrier() override { host_->barrier(); }
  std::vector<std::string> gather_strings(const std::string& mine) override { return host_->gather_strings(mine); }
  std::vector<std::optional<std::string>> roll_call(const std::string& mine, double seconds) override {
    return host_->roll_call(mine, seconds);
  }

 private:
  void start_behind_compute(cudaStream_t stream) {
    Event ready;
    ready.record(link_->compute());
    ready.hold(stream);
  }
  template <typename Issue>
  void enqueue(const char* name, int64_t bytes, Issue&& issue, cudaStream_t stream) {
    link_->call(comm_, fmt::format("{}: {} of {} bytes", axis(), name, bytes), stream, [&] { return issue(stream); });
  }
  template <typename Issue>
  void enqueue(const char* name, int64_t bytes, Issue&& issue) {
    enqueue(name, bytes, std::forward<Issue>(issue), link_->compute());
  }
  void sum(Tensor x, cudaStream_t on) {  // contiguous
    enqueue(
        "all_reduce", x.bytes(),
        [&](cudaStream_t stream) {
          return link_->api().all_reduce(x.data, x.data, static_cast<size_t>(x.size()), type_of(x.dtype), ncclSum,
                                         comm_, stream);
        },
        on);
  }

  ncclResult_t grouped(std::span<const PeerMessage> messages, cudaStream_t stream) {
    const Api& api = link_->api();
    ncclResult_t result = api.group_start();
    for (const PeerMessage& m : messages) {
      if (result != ncclSuccess && result != ncclInProgress) break;
      const size_t count = static_cast<size_t>(m.x.size());
      result = m.way == PeerMessage::Way::send
                   ? api.send(m.x.data, count, type_of(m.x.dtype), m.peer, comm_, stream)
                   : api.receive(m.x.data, count, type_of(m.x.dtype), m.peer, comm_, stream);
    }
    const ncclResult_t ended = api.group_end();
    return result != ncclSuccess && result != ncclInProgress ? result : ended;
  }

  int64_t piece(Tensor x) const { return kPieceBytes / size_of(x.dtype); }
  int64_t share_of(int64_t count) const { return (count + size() - 1) / size(); }
  int64_t inbox_bytes(Tensor x) const {
    const int64_t bytes = (size() - 1) * share_of(std::min(x.size(), piece(x))) * size_of(x.dtype);
    return (bytes + Arena::kAlign - 1) / Arena::kAlign * Arena::kAlign;
  }

  // Every rank gets everyone's part of its share, sums in rank order, and hands its share out.
  void sum_piece(char* data, int64_t count, DType dtype, int64_t inbox_bytes) {
    const int64_t element = size_of(dtype), share = share_of(count);
    char* inbox = link_->scratch(inbox_bytes);
    const auto part = [&](int r) {  // of `data`
      const int64_t begin = std::min(r * share, count);
      return matrix(data + begin * element, std::min(share, count - begin), 1, dtype, Where::device);
    };
    std::vector<PeerMessage> parts, shares;
    const int64_t mine = part(rank()).rows;
    for (int r = 0, slot = 0; r < size(); ++r) {
      if (r == rank()) continue;
      const Tensor landing = matrix(inbox + slot++ * share * element, mine, 1, dtype, Where::device);
      if (part(r).rows > 0)
        parts.push_back({PeerMessage::Way::send, part(r), r, 0}),
            shares.push_back({PeerMessage::Way::receive, part(r), r, 0});
      if (mine > 0)
        parts.push_back({PeerMessage::Way::receive, landing, r, 0}),
            shares.push_back({PeerMessage::Way::send, part(rank()), r, 0});
    }
    enqueue("all_reduce (parts)", count * element, [&](cudaStream_t stream) { return grouped(parts, stream); });
    rank_sum({part(rank()).data, inbox, share, rank(), size(), mine, dtype}, part(rank()).data, link_->compute());
    enqueue("all_reduce (shares)", count * element, [&](cudaStream_t stream) { return grouped(shares, stream); });
  }

  std::shared_ptr<Link> link_;
  std::shared_ptr<Communicator> host_;
  ncclComm_t comm_;
  bool deterministic_;
};

}  // namespace

std::unique_ptr<Communicator> make_communicator(std::shared_ptr<Link> link, std::shared_ptr<Communicator> host,
                                                ncclComm_t comm, bool deterministic) {
  return std::make_unique<NcclCommunicator>(std::move(link), std::move(host), comm, deterministic);
}

}  // namespace drover::nccl
