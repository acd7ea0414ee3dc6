#include "kernels/comm/threads.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <list>
#include <map>
#include <mutex>
#include <thread>

#include "kernels/base/error.h"
#include "kernels/comm/agree.h"
#include "kernels/comm/rank_sum.h"

namespace drover {

namespace {

// What the threads of a job share besides their groups: whether somebody failed.
struct Job {
  std::mutex mutex;
  std::condition_variable changed;
  bool lost = false;
};

struct Posted {
  void* data;
  int64_t bytes;
  bool sending;
  bool done = false;
};

struct Group {
  Job& job;
  std::vector<const void*> offered;                                  // what every rank shows the others
  std::vector<int64_t> arrivals;                                     // barriers that every rank has come to
  std::map<int64_t, std::vector<std::optional<std::string>>> calls;  // roll calls, by number
  std::map<std::tuple<int, int, int>, std::list<std::shared_ptr<Posted>>>
      posted;  // (from, to, tag) → unmatched, in order
  Group(Job& j, int size) : job(j), offered(static_cast<size_t>(size)), arrivals(static_cast<size_t>(size)) {}
};

// Waits under the lock until `ready`; `late` names who is missing.
template <typename Ready, typename Late>
void await(Job& job, std::unique_lock<std::mutex>& lock, Ready&& ready, Late&& late) {
  const auto limit = std::chrono::duration<double>(comm_deadline_seconds());
  const bool in_time = job.changed.wait_for(lock, limit, [&] { return job.lost || ready(); });
  if (in_time && ready()) return;
  if (job.lost) fail(Fault::rank_lost, "another rank failed");
  late();
}

[[noreturn]] void fail_late(const std::string& axis, const char* call, const std::vector<int>& missing) {
  fail(Fault::rank_hangs,
       "{}: {} waited {:g} s for rank {} of {}, which hangs, has died or does something else; DROVER_COMM_TIMEOUT_S "
       "sets the time",
       axis, call, comm_deadline_seconds(), list_ranks(missing), axis);
}

class ThreadTransfer : public Transfer {
 public:
  ThreadTransfer(std::shared_ptr<Group> group, const std::string& axis) : group_(std::move(group)), axis_(axis) {}
  void add(std::shared_ptr<Posted> message, int peer) { messages_.emplace_back(std::move(message), peer); }
  void wait() override {
    std::unique_lock lock(group_->job.mutex);
    for (const auto& [message, peer] : messages_) {
      await(
          group_->job, lock, [&] { return message->done; },
          [&] { fail_late(axis_, message->sending ? "send" : "receive", {peer}); });
    }
  }

 private:
  std::shared_ptr<Group> group_;
  std::string axis_;
  std::vector<std::pair<std::shared_ptr<Posted>, int>> messages_;
};

class ThreadCommunicator : public Communicator {
 public:
  ThreadCommunicator(std::string axis, int rank, std::shared_ptr<Group> group)
      : axis_(std::move(axis)), rank_(rank), size_(static_cast<int>(group->offered.size())), group_(std::move(group)) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const std::string& axis() const override { return axis_; }

  void all_reduce(Tensor x) override {
    require(x.where == Where::host && x.dtype != DType::i32, "an all-reduce is of bf16, f32 or f64 in host memory");
    std::vector<char> mine(static_cast<size_t>(x.bytes())), sum(mine.size());
    pack(x, 0, x.size(), mine.data());
    const auto all = offer(mine.data(), "all_reduce");
    sum_in_rank_order(all, x.size(), x.dtype, sum.data());
    meet("all_reduce");
    unpack(sum.data(), x, 0, x.size());
  }

  void all_gather(Tensor part, Tensor whole) override {
    require(part.where == Where::host && whole.where == Where::host, "threads move host memory");
    require(whole.rows == size_ * part.rows && whole.cols == part.cols && whole.dtype == part.dtype,
            "an all-gather's whole is one part per rank");
    std::vector<char> mine(static_cast<size_t>(part.bytes()));
    pack(part, 0, part.size(), mine.data());
    const auto all = offer(mine.data(), "all_gather");
    for (int r = 0; r < size_; ++r)
      unpack(all[static_cast<size_t>(r)], whole.rows_from(r * part.rows, part.rows), 0, part.size());
    meet("all_gather");
  }

  void broadcast(Tensor x, int root) override {
    require(x.where == Where::host && root >= 0 && root < size_,
            "a broadcast is from a rank of the group, in host memory");
    const auto all = offer(&x, "broadcast");
    if (rank_ != root) {
      const Tensor from = *static_cast<const Tensor*>(all[static_cast<size_t>(root)]);
      std::vector<char> bytes(static_cast<size_t>(x.bytes()));
      pack(from, 0, x.size(), bytes.data());
      unpack(bytes.data(), x, 0, x.size());
    }
    meet("broadcast");
  }

  void barrier() override { meet("barrier"); }

  std::vector<std::string> gather_strings(const std::string& mine) override {
    std::vector<std::string> strings;
    for (const void* other : offer(&mine, "gather_strings")) strings.push_back(*static_cast<const std::string*>(other));
    meet("gather_strings");
    return strings;
  }

  std::vector<std::optional<std::string>> roll_call(const std::string& mine, double seconds) override {
    std::unique_lock lock(group_->job.mutex);
    auto& answers = group_->calls[calls_++];
    answers.resize(static_cast<size_t>(size_));
    answers[static_cast<size_t>(rank_)] = mine;
    group_->job.changed.notify_all();
    group_->job.changed.wait_for(lock, std::chrono::duration<double>(seconds), [&] {
      return std::ranges::all_of(answers, [](const auto& a) { return a.has_value(); });
    });
    return answers;
  }

  std::unique_ptr<Transfer> exchange(std::span<const PeerMessage> messages) override {
    auto transfer = std::make_unique<ThreadTransfer>(group_, axis_);
    for (const PeerMessage& m : messages) transfer->add(post(m), m.peer);
    return transfer;
  }

 private:
  // All ranks' pointers; they stay valid until the next `meet`.
  std::vector<const void*> offer(const void* mine, const char* call) {
    {
      std::lock_guard lock(group_->job.mutex);
      group_->offered[static_cast<size_t>(rank_)] = mine;
    }
    meet(call);
    std::lock_guard lock(group_->job.mutex);
    return group_->offered;
  }

  void meet(const char* call) {
    std::unique_lock lock(group_->job.mutex);
    const int64_t turn = ++group_->arrivals[static_cast<size_t>(rank_)];
    group_->job.changed.notify_all();
    const auto missing = [&] {
      std::vector<int> ranks;
      for (int r = 0; r < size_; ++r) {
        if (group_->arrivals[static_cast<size_t>(r)] < turn) ranks.push_back(r);
      }
      return ranks;
    };
    await(
        group_->job, lock, [&] { return missing().empty(); }, [&] { fail_late(axis_, call, missing()); });
  }

  std::shared_ptr<Posted> post(const PeerMessage& m) {
    const bool sending = m.way == PeerMessage::Way::send;
    require(m.x.where == Where::host && m.x.contiguous(), "a message is contiguous, in host memory");
    require(m.peer >= 0 && m.peer < size_ && m.peer != rank_, "the peer is another rank of the group");
    auto mine = std::make_shared<Posted>(Posted{m.x.data, m.x.bytes(), sending});
    std::lock_guard lock(group_->job.mutex);
    auto& waiting = group_->posted[{sending ? rank_ : m.peer, sending ? m.peer : rank_, m.tag}];
    if (waiting.empty() || waiting.front()->sending == sending) {
      waiting.push_back(mine);
    } else {
      Posted& other = *waiting.front();
      require(other.bytes == mine->bytes, "both ends of a message agree on its size");
      std::memcpy(sending ? other.data : mine->data, sending ? mine->data : other.data,
                  static_cast<size_t>(mine->bytes));
      other.done = mine->done = true;
      waiting.pop_front();
      group_->job.changed.notify_all();
    }
    return mine;
  }

  std::string axis_;
  int rank_, size_;
  std::shared_ptr<Group> group_;
  int64_t calls_ = 0;
};

}  // namespace

void run_on_threads(const MeshShape& shape, const std::function<void(Mesh&)>& work) {
  Job job;
  const int ranks = shape.size();
  const auto everyone = std::make_shared<Group>(job, ranks);
  std::map<std::pair<Axis, int>, std::shared_ptr<Group>> groups;  // by axis and colour
  const auto split = [&](Axis axis, int colour, int key) {
    auto& group = groups[{axis, colour}];
    if (!group) group = std::make_shared<Group>(job, shape[axis]);
    return std::make_shared<ThreadCommunicator>(name_of(axis), key, group);
  };
  std::vector<Mesh> meshes;
  for (int rank = 0; rank < ranks; ++rank) {
    std::shared_ptr<Communicator> world = make_self_communicator("world");
    if (ranks > 1) world = std::make_shared<ThreadCommunicator>("world", rank, everyone);
    meshes.push_back(make_mesh(shape, std::move(world), split));
  }

  std::vector<std::exception_ptr> failures(static_cast<size_t>(ranks));
  std::vector<bool> follows(static_cast<size_t>(ranks), false);  // failed only because another rank did
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      const size_t i = static_cast<size_t>(rank);
      std::exception_ptr failure;
      bool follow = false;
      try {
        work(meshes[i]);
      } catch (const Error& error) {
        failure = std::current_exception();
        follow = error.fault() == Fault::rank_lost;
      } catch (...) {
        failure = std::current_exception();
      }
      if (!failure) return;
      std::lock_guard lock(job.mutex);
      failures[i] = failure;
      follows[i] = follow;
      job.lost = true;
      job.changed.notify_all();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (bool following : {false, true}) {
    for (size_t i = 0; i < failures.size(); ++i) {
      if (failures[i] && follows[i] == following) std::rethrow_exception(failures[i]);
    }
  }
}

}  // namespace drover
