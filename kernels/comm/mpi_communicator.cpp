#include "kernels/comm/mpi_communicator.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <list>
#include <numeric>

#include "kernels/base/error.h"
#include "kernels/comm/deadline.h"
#include "kernels/comm/mpi_requests.h"
#include "kernels/comm/rank_sum.h"

namespace drover {

namespace {

constexpr int kRollCallBytes = 1009;
constexpr int64_t kPieceBytes = 4 << 20;
constexpr int64_t kOneRoundBytes =
    64 << 10;  // up to here all parts go to all ranks: one round of messages instead of two

enum CollectiveTag : int { kReduce = 1, kShare, kGather, kBroadcast, kBarrier, kSizes, kStrings, kRollCall };

class MpiTransfer : public Transfer {
 public:
  void wait() override {
    for (MpiRequests& requests : started) requests.wait();
  }
  std::list<MpiRequests> started;  // which stay where they are
};

// A vector that only grows; its bytes are not kept.
char* scratch(std::vector<char>& memory, int64_t bytes) {
  if (static_cast<int64_t>(memory.size()) < bytes) memory.resize(static_cast<size_t>(bytes));
  return memory.data();
}

char* at(Tensor x, int64_t element) { return static_cast<char*>(x.data) + element * size_of(x.dtype); }

void require_host(Tensor x) { require(x.where == Where::host, "MPI moves host memory"); }

}  // namespace

MpiCommunicator::MpiCommunicator(std::string axis, MPI_Comm members) : axis_(std::move(axis)) {
  check_mpi(MPI_Comm_dup(members, &collectives_), "MPI_Comm_dup");
  check_mpi(MPI_Comm_dup(members, &messages_), "MPI_Comm_dup");
  MPI_Comm_set_errhandler(collectives_, MPI_ERRORS_RETURN);
  MPI_Comm_set_errhandler(messages_, MPI_ERRORS_RETURN);
  check_mpi(MPI_Comm_rank(members, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(members, &size_), "MPI_Comm_size");

  int* highest_tag = nullptr;
  int known = 0;
  MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &highest_tag, &known);
  if (known != 0) highest_tag_ = *highest_tag;

  MPI_Group group, world;
  MPI_Comm_group(members, &group);
  MPI_Comm_group(MPI_COMM_WORLD, &world);
  std::vector<int> here(static_cast<size_t>(size_));
  std::iota(here.begin(), here.end(), 0);
  world_ranks_.resize(here.size());
  MPI_Group_translate_ranks(group, size_, here.data(), world, world_ranks_.data());
  MPI_Group_free(&group);
  MPI_Group_free(&world);
}

MpiCommunicator::~MpiCommunicator() {
  int finished = 0;
  MPI_Finalized(&finished);
  // Freeing is collective: not on the way out of an error that the other ranks may not share.
  if (finished != 0 || std::uncaught_exceptions() > 0) return;
  MPI_Comm_free(&collectives_);
  MPI_Comm_free(&messages_);
}

void MpiCommunicator::all_reduce(Tensor x) {
  require_host(x);
  require(x.dtype != DType::i32, "an all-reduce is of bf16, f32 or f64");
  const int64_t element = size_of(x.dtype), most = kPieceBytes / element;
  for (int64_t begin = 0; begin < x.size(); begin += most) {
    const int64_t count = std::min(most, x.size() - begin);
    if (x.contiguous()) {
      reduce_piece(at(x, begin), count, x.dtype);
    } else {
      char* packed = scratch(staging_, count * element);
      pack(x, begin, count, packed);
      reduce_piece(packed, count, x.dtype);
      unpack(packed, x, begin, count);
    }
  }
}

void MpiCommunicator::reduce_piece(void* data, int64_t count, DType dtype) {
  const int64_t element = size_of(dtype);
  // Two ranks send as much either way, so one round is always better.
  const bool one_round = size_ == 2 || count * element * (size_ - 1) <= kOneRoundBytes;
  const int64_t share = one_round ? count : (count + size_ - 1) / size_;
  const auto begin_of = [&](int r) { return one_round ? 0 : std::min(r * share, count); };
  const auto bytes_of = [&](int r) { return (one_round ? count : std::min(share, count - begin_of(r))) * element; };
  const auto place_of = [&](int r) { return static_cast<char*>(data) + begin_of(r) * element; };

  std::vector<const void*> parts(static_cast<size_t>(size_), place_of(rank_));
  char* inbox = scratch(inbox_, (size_ - 1) * share * element);
  MpiRequests exchange(*this, collectives_, kReduce, "all_reduce");
  for (int r = 0, slot = 0; r < size_; ++r) {
    if (r == rank_ || bytes_of(rank_) == 0) continue;
    char* from = inbox + slot++ * share * element;
    exchange.receive(from, bytes_of(rank_), r);
    parts[static_cast<size_t>(r)] = from;
  }
  for (int step = 1; step < size_; ++step) {
    const int to = (rank_ + step) % size_;
    if (bytes_of(to) > 0) exchange.send(place_of(to), bytes_of(to), to);
  }
  exchange.wait();
  sum_in_rank_order(parts, bytes_of(rank_) / element, dtype, place_of(rank_));
  if (one_round) return;

  MpiRequests shares(*this, collectives_, kShare, "all_reduce");
  for (int r = 0; r < size_; ++r) {
    if (r != rank_ && bytes_of(r) > 0) shares.receive(place_of(r), bytes_of(r), r);
  }
  for (int step = 1; step < size_; ++step) {
    if (bytes_of(rank_) > 0) shares.send(place_of(rank_), bytes_of(rank_), (rank_ + step) % size_);
  }
  shares.wait();
}

void MpiCommunicator::all_gather(Tensor part, Tensor whole) {
  require_host(part);
  require_host(whole);
  require(whole.rows == size_ * part.rows && whole.cols == part.cols && whole.dtype == part.dtype,
          "an all-gather's whole is one part per rank");
  // The pieces are the same on all ranks, whatever the pitches there.
  const int64_t element = size_of(part.dtype), most = std::max<int64_t>(1, kPieceBytes / element / size_);
  for (int64_t begin = 0; begin < part.size(); begin += most) {
    const int64_t count = std::min(most, part.size() - begin);
    const char* mine = at(part, begin);
    if (!part.contiguous()) {
      char* packed = scratch(staging_, count * element);
      pack(part, begin, count, packed);
      mine = packed;
    }
    char* inbox = whole.contiguous() ? nullptr : scratch(inbox_, size_ * count * element);
    const auto landing = [&](int r) {
      return inbox != nullptr ? inbox + r * count * element : at(whole, r * part.size() + begin);
    };
    MpiRequests exchange(*this, collectives_, kGather, "all_gather");
    for (int r = 0; r < size_; ++r) {
      if (r != rank_) exchange.receive(landing(r), count * element, r);
    }
    for (int step = 1; step < size_; ++step) exchange.send(mine, count * element, (rank_ + step) % size_);
    exchange.wait();
    for (int r = 0; r < size_; ++r) {
      if (r == rank_) {
        const Tensor own = whole.rows_from(r * part.rows, part.rows);
        if (own.data != part.data) unpack(mine, own, begin, count);
      } else if (inbox != nullptr) {
        unpack(landing(r), whole.rows_from(r * part.rows, part.rows), begin, count);
      }
    }
  }
}

void MpiCommunicator::broadcast(Tensor x, int root) {
  require_host(x);
  require(root >= 0 && root < size_, "the root is a rank of the group");
  // A binomial tree over ranks counted from the root: the lowest set bit of a rank leads to its parent.
  const int self = (rank_ - root + size_) % size_;
  int branch = 1;
  while (branch < size_ && (self & branch) == 0) branch <<= 1;
  const int64_t element = size_of(x.dtype), most = kPieceBytes / element;
  for (int64_t begin = 0; begin < x.size(); begin += most) {
    const int64_t count = std::min(most, x.size() - begin);
    char* data = x.contiguous() ? at(x, begin) : scratch(staging_, count * element);
    MpiRequests exchange(*this, collectives_, kBroadcast, "broadcast");
    if (self == 0) {
      if (!x.contiguous()) pack(x, begin, count, data);
    } else {
      exchange.receive(data, count * element, (self - branch + root) % size_);
      exchange.wait();
      if (!x.contiguous()) unpack(data, x, begin, count);
    }
    for (int child = branch >> 1; child > 0; child >>= 1) {
      if (self + child < size_) exchange.send(data, count * element, (self + child + root) % size_);
    }
    exchange.wait();
  }
}

void MpiCommunicator::barrier() {
  // Everyone hears from everyone, so that a silent rank is known by its number.
  MpiRequests exchange(*this, collectives_, kBarrier, "barrier");
  for (int r = 0; r < size_; ++r) {
    if (r != rank_) exchange.receive(nullptr, 0, r);
  }
  for (int step = 1; step < size_; ++step) exchange.send(nullptr, 0, (rank_ + step) % size_);
  exchange.wait();
}

std::vector<std::string> MpiCommunicator::gather_strings(const std::string& mine) {
  std::vector<int64_t> sizes(static_cast<size_t>(size_), static_cast<int64_t>(mine.size()));
  MpiRequests lengths(*this, collectives_, kSizes, "gather_strings");
  for (int r = 0; r < size_; ++r) {
    if (r != rank_) lengths.receive(&sizes[static_cast<size_t>(r)], sizeof(int64_t), r);
  }
  for (int step = 1; step < size_; ++step) {
    lengths.send(&sizes[static_cast<size_t>(rank_)], sizeof(int64_t), (rank_ + step) % size_);
  }
  lengths.wait();

  std::vector<std::string> all(static_cast<size_t>(size_));
  MpiRequests texts(*this, collectives_, kStrings, "gather_strings");
  for (int r = 0; r < size_; ++r) {
    std::string& text = all[static_cast<size_t>(r)];
    if (r == rank_) {
      text = mine;
    } else {
      text.resize(static_cast<size_t>(sizes[static_cast<size_t>(r)]));
      if (!text.empty()) texts.receive(text.data(), static_cast<int64_t>(text.size()), r);
    }
  }
  for (int step = 1; step < size_; ++step) {
    if (!mine.empty()) texts.send(mine.data(), static_cast<int64_t>(mine.size()), (rank_ + step) % size_);
  }
  texts.wait();
  return all;
}

std::vector<std::optional<std::string>> MpiCommunicator::roll_call(const std::string& mine, double seconds) {
  // Short enough for MPI to send it without its receiver. The number tells an answer from one that came too late for an
  // earlier call; zero bytes end a text.
  using Text = std::array<char, kRollCallBytes>;
  const size_t size = static_cast<size_t>(size_);
  const int64_t number = static_cast<int64_t>(roll_calls_.size());
  std::string& text = roll_calls_.emplace_back(kRollCallBytes, '\0');  // stays: what is late may still be read from it
  std::memcpy(text.data(), &number, sizeof number);
  mine.copy(text.data() + sizeof number, kRollCallBytes - sizeof number - 1);
  std::vector<Text> texts(size);
  std::vector<MPI_Request> sends(size, MPI_REQUEST_NULL), receives(size, MPI_REQUEST_NULL);
  const auto receive = [&](size_t r) {
    check_mpi(MPI_Irecv(texts[r].data(), kRollCallBytes, MPI_BYTE, static_cast<int>(r), kRollCall, collectives_,
                        &receives[r]),
              "MPI_Irecv");
  };
  std::vector<std::optional<std::string>> answers(size);
  answers[static_cast<size_t>(rank_)] = mine;
  for (size_t r = 0; r < size; ++r) {
    if (answers[r]) continue;
    receive(r);
    check_mpi(MPI_Isend(text.data(), kRollCallBytes, MPI_BYTE, static_cast<int>(r), kRollCall, collectives_, &sends[r]),
              "MPI_Isend");
  }
  Deadline deadline(seconds);
  while (true) {
    bool all = true;
    for (size_t r = 0; r < size; ++r) {
      int done = 0;
      if (answers[r]) continue;
      if (MPI_Test(&receives[r], &done, MPI_STATUS_IGNORE) != MPI_SUCCESS) done = 0;
      int64_t of = 0;
      std::memcpy(&of, texts[r].data(), sizeof of);
      if (done != 0 && of < number) {
        receive(r);
      } else if (done != 0) {
        answers[r] = texts[r].data() + sizeof of;
      }
      all &= answers[r].has_value();
    }
    if (all || deadline.passed()) break;
    deadline.pause();
  }
  for (MPI_Request& request : receives) {
    if (request == MPI_REQUEST_NULL) continue;
    MPI_Cancel(&request);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
  }
  for (MPI_Request& request : sends) {
    if (request != MPI_REQUEST_NULL) MPI_Request_free(&request);
  }
  return answers;
}

std::unique_ptr<Transfer> MpiCommunicator::exchange(std::span<const PeerMessage> messages) {
  auto transfer = std::make_unique<MpiTransfer>();
  for (const PeerMessage& m : messages) {
    require_host(m.x);
    require(m.x.contiguous(), "a message is contiguous");
    require(m.peer >= 0 && m.peer < size_ && m.peer != rank_, "the peer is another rank of the group");
    require(m.tag >= 0 && m.tag <= highest_tag_, "a tag is not negative and within MPI's bound");
    const bool sends = m.way == PeerMessage::Way::send;
    MpiRequests& requests = transfer->started.emplace_back(*this, messages_, m.tag, sends ? "send" : "receive");
    sends ? requests.send(m.x.data, m.x.bytes(), m.peer) : requests.receive(m.x.data, m.x.bytes(), m.peer);
  }
  return transfer;
}

}  // namespace drover
