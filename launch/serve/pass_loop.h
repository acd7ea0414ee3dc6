// The passes of a server. Every rank runs this loop on the thread that speaks MPI. Before each pass rank 0 says what
// came in since the last one (requests, cancellations, adapters), the other ranks what they have finished reading, and
// all of them act alike: so the copies of the batcher and of the adapters stay equal.
//
// Requests come from any thread of rank 0; what happens to them is said on the loop's thread.
#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "kernels/base/json.h"
#include "trainer/generation/inference.h"

namespace drover {

class PassLoop {
 public:
  // Gets a request's events until its end. False: the rest is not wanted, and none follows.
  using Sink = std::function<bool(const Event&)>;
  struct AttachedAdapter {
    int slot;
    std::string hash;  // of what was read
  };
  using Attached = std::function<void(std::variant<AttachedAdapter, Error>)>;
  // Between two passes of rank 0, once a second where there are none.
  using Look = std::function<void()>;

  // A filter of the form that a request's answer is to have.
  using MakeFilter =
      std::function<std::shared_ptr<TokenFilter>(const std::string& form, std::span<const int32_t> stop_ids)>;

  // Both outlive the loop. All ranks; `look` is rank 0's, who calls `make_filter` before a request with such a form is
  // submitted: it does not fail then.
  PassLoop(Inference& inference, Communicator& world, MakeFilter make_filter = {}, Look look = {});
  ~PassLoop();  // what was submitted too late gets no event
  PassLoop(const PassLoop&) = delete;
  PassLoop& operator=(const PassLoop&) = delete;

  // Any thread of rank 0.
  // Names it for `cancel`. `form`: empty, or what its filter is made of on every rank.
  uint64_t submit(Request request, Sink sink, std::string form = {});
  void cancel(uint64_t ticket);  // no event follows those that are on their way; an ended one is passed over
  // Every rank reads the adapter on a thread of its own while passes go on, and attaches it when all have it.
  void attach(const fs::path& directory, Attached attached);
  void detach(int slot);  // after the requests that used it
  void end();             // as soon as nothing is left to answer
  struct State {
    Batcher::Load load;
    int64_t submitted = 0;  // that the batcher has not seen yet
    int64_t preemptions = 0;
    int64_t blocks = 0, free_blocks = 0;  // of the cache
  };
  State state() const;

  void run();  // returns after `end`

 private:
  struct Submit {
    uint64_t ticket;
    Request request;
    Sink sink;
    std::string form;
  };
  struct Cancel {
    uint64_t ticket;
  };
  struct Attach {
    std::string directory;
    Attached attached;
  };
  struct Detach {
    int slot;
  };
  using Order = std::variant<Submit, Cancel, Attach, Detach>;

  using Read = std::variant<LoadedAdapter, Error>;
  struct Reading {  // of an adapter, on every rank
    std::future<Read> file;
    std::optional<Read> read;    // by this rank, which has said so
    int done = 0;                // ranks that have read it
    std::string hash = {};       // of what the lowest of them has read
    std::optional<Error> error;  // of the lowest rank that has one
    Attached attached = {};      // rank 0's
  };
  struct Answering {
    uint64_t ticket;
    Sink sink;
  };

  std::vector<Order> wait_for_orders();
  Json orders_to_say(std::vector<Order> orders);  // keeps what is rank 0's own
  Json finished_readings();
  void obey(const Json& order);
  void take_note(const Json& finished);
  void finish_readings();
  Reading start_reading(const fs::path& directory);
  void hand_out(std::span<const Event> events);
  void publish_state();
  bool busy() const { return !batcher_.idle() || !readings_.empty() || !unwanted_.empty(); }

  Inference& inference_;
  Batcher& batcher_;
  Communicator& world_;
  MakeFilter make_filter_;
  Look look_;

  mutable std::mutex mutex_;  // of what follows
  std::condition_variable arrived_;
  std::vector<Order> orders_;
  uint64_t tickets_ = 0;
  bool ending_ = false;
  State state_;

  // Of the loop's thread. Rank 0's:
  std::map<uint64_t, Answering> answering_;  // by the batcher's number
  std::map<uint64_t, uint64_t> numbers_;     // by ticket
  std::deque<Answering> submitted_;          // in this turn, in order
  std::deque<Attached> attaching_;           // the same
  std::vector<uint64_t> unwanted_;           // to be cancelled in the next turn
  // All ranks':
  std::map<uint64_t, Reading> readings_;
  uint64_t readings_begun_ = 0;
  bool over_ = false;
};

}  // namespace drover
