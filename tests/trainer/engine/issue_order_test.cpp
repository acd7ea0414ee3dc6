// Every rank's communication of a step, recorded from the real engine (on Count), run against all the others' as one
// queue a rank would run it: a collective ends when all its members have come to it, a group of messages when each has
// met its other end, and nothing overtakes. So no order of issue can deadlock NCCL, however its calls are serialised.
#include <gtest/gtest.h>

#include <deque>

#include "kernels/base/error.h"
#include "kernels/comm/count.h"
#include "kernels/count/count.h"
#include "kernels/cuda/weight.h"
#include "trainer/engine/plan.h"

namespace drover {
namespace {

struct Part {  // of a group of messages
  bool sends;
  int from, to;  // ranks of the world
  int64_t bytes;
};
struct Call {
  std::string what;        // of a collective, with its size: all members make the same one
  std::vector<int> group;  // its members; empty: messages
  std::vector<Part> parts;
};
using Calls = std::vector<Call>;

class Recorder : public CountCommunicator {
 public:
  Recorder(std::string axis, int rank, std::vector<int> members, Calls& calls)
      : CountCommunicator(std::move(axis), rank, static_cast<int>(members.size())),
        members_(std::move(members)),
        calls_(calls) {}
  void all_reduce(Tensor x) override { note("all_reduce", x.bytes()); }
  bool overlaps_sums() const override { return true; }  // as over NCCL: a micro-batch's two parts take turns
  void all_gather(Tensor part, Tensor) override { note("all_gather", part.bytes()); }
  void broadcast(Tensor x, int) override { note("broadcast", x.bytes()); }
  void barrier() override { note("barrier", 0); }
  std::vector<std::string> gather_strings(const std::string& mine) override {
    note("gather_strings", 0);
    return CountCommunicator::gather_strings(mine);
  }
  std::unique_ptr<Transfer> exchange(std::span<const PeerMessage> messages) override {
    Call call;
    for (const PeerMessage& m : messages) {
      const bool sends = m.way == PeerMessage::Way::send;
      const int self = members_[static_cast<size_t>(rank())], other = members_[static_cast<size_t>(m.peer)];
      call.parts.push_back({sends, sends ? self : other, sends ? other : self, m.x.bytes()});
    }
    calls_.push_back(call);
    return CountCommunicator::exchange(messages);
  }

 private:
  void note(const char* what, int64_t bytes) {
    if (size() > 1) calls_.push_back({fmt::format("{}: {} of {} bytes", axis(), what, bytes), members_, {}});
  }
  std::vector<int> members_;
  Calls& calls_;
};

std::vector<int> members_of(const MeshShape& shape, MeshPosition p, Axis axis) {
  std::vector<int> members;
  for (p[axis] = 0; p[axis] < shape[axis]; ++p[axis]) members.push_back(rank_of(p, shape));
  return members;
}

// A training step and an evaluation of `total` micro-batches, dealt to dp as the loader does it: some replicas get one
// more.
Calls calls_of(const EngineSettings& settings, const MeshShape& shape, const MeshPosition& p, int64_t total) {
  Calls calls;
  std::vector<int> all;
  for (int r = 0; r < shape.size(); ++r) all.push_back(r);
  Mesh mesh = make_mesh(shape, std::make_shared<Recorder>("world", rank_of(p, shape), all, calls),
                        [&](Axis axis, int, int key) {
                          return std::make_shared<Recorder>(name_of(axis), key, members_of(shape, p, axis), calls);
                        });
  NoWeights nothing;
  Replica replica(settings, {std::make_shared<CountBackend>(settings.traits), mesh}, nothing, kPlenty);
  Engine engine(settings, replica, kPlenty.saved);
  Batch batch = worst_batch(settings.capacity.micro_batch.tokens, settings.capacity.micro_batch.tokens,
                            settings.max_positions, total, 1);
  const auto begin = batch.micro_batches.begin();
  batch.micro_batches = {begin + total * p.dp() / shape.dp(), begin + total * (p.dp() + 1) / shape.dp()};
  engine.train_step(batch, 1);
  engine.evaluate(batch);
  return calls;
}

struct Stuck {
  int rank;
  size_t call;
};

// Where ranks wait for ever; empty: every list ends.
std::vector<Stuck> run(const std::vector<Calls>& ranks) {
  std::vector<size_t> next(ranks.size());
  std::vector<bool> posted(ranks.size());
  std::map<std::vector<int>, std::pair<std::string, int>> meetings;  // group → what it does now, how many have come
  std::map<std::pair<int, int>, std::pair<int64_t, int64_t>> met;    // (from, to) → messages sent, received
  std::vector<std::vector<int64_t>> numbers(ranks.size());           // of the parts of a rank's group, in its pair
  std::deque<int> ready;
  for (size_t r = 0; r < ranks.size(); ++r) ready.push_back(static_cast<int>(r));
  const auto finish = [&](int r) {
    ++next[static_cast<size_t>(r)];
    posted[static_cast<size_t>(r)] = false;
    ready.push_back(r);
  };
  while (!ready.empty()) {
    const int rank = ready.front();
    ready.pop_front();
    const size_t r = static_cast<size_t>(rank);
    if (next[r] == ranks[r].size()) continue;
    const Call& call = ranks[r][next[r]];
    if (!call.group.empty()) {
      if (posted[r]) continue;
      posted[r] = true;
      auto& [what, came] = meetings[call.group];
      if (came == 0) what = call.what;
      EXPECT_EQ(what, call.what) << "rank " << rank;
      if (++came < static_cast<int>(call.group.size())) continue;
      came = 0;
      for (int member : call.group) finish(member);
      continue;
    }
    if (!posted[r]) {
      posted[r] = true;
      numbers[r].clear();
      for (const Part& p : call.parts) {
        auto& [sent, received] = met[{p.from, p.to}];
        numbers[r].push_back(p.sends ? ++sent : ++received);
        ready.push_back(p.sends ? p.to : p.from);  // whoever may have waited for it
      }
    }
    bool all = true;
    for (size_t i = 0; i < call.parts.size(); ++i) {
      const auto& [sent, received] = met[{call.parts[i].from, call.parts[i].to}];
      all &= std::min(sent, received) >= numbers[r][i];
    }
    if (all) finish(rank);
  }
  std::vector<Stuck> stuck;
  for (size_t r = 0; r < ranks.size(); ++r) {
    if (next[r] < ranks[r].size()) stuck.push_back({static_cast<int>(r), next[r]});
  }
  return stuck;
}

EngineSettings settings_of(const MeshShape& shape, int64_t micro_batches, bool deterministic) {
  EngineSettings s;
  s.model.layers = shape.pp() > 4 ? 126 : 8;
  s.model.hidden = 64, s.model.heads = 16, s.model.kv_heads = 8, s.model.head_dim = 4, s.model.ffn = 128,
  s.model.vocab = 160, s.model.max_positions = 32;
  s.adapter = adapter_layout(s.model, [](const std::string&) { return LowRankSpec{4, 1.0f}; });
  s.partition = partition_layers(s.model.layers, shape.pp(), 0.7);
  s.dtype = DType::bf16;
  s.traits = cuda::kTraits;
  s.max_positions = 8;  // two documents a micro-batch, so that it passes in two parts
  s.capacity.micro_batch = {16, 16};
  s.least_part_rows = 8;
  s.capacity.local_micro_batches = (micro_batches + shape.dp() - 1) / shape.dp();
  s.deterministic = deterministic;
  return s;
}

std::vector<Calls> record(const MeshShape& shape, int64_t micro_batches, bool deterministic = false) {
  const EngineSettings settings = settings_of(shape, micro_batches, deterministic);
  std::vector<Calls> ranks;
  for (int rank = 0; rank < shape.size(); ++rank)
    ranks.push_back(calls_of(settings, shape, position_of(rank, shape), micro_batches));
  return ranks;
}

class IssueOrder : public testing::TestWithParam<MeshShape> {};

TEST_P(IssueOrder, CannotDeadlock) {
  const MeshShape shape = GetParam();
  for (const int64_t micro_batches : {shape.dp() * (2 * shape.pp() + 1) + 1, shape.dp() + 1}) {
    const std::vector<Calls> ranks = record(shape, micro_batches, shape.size() <= 8);
    for (const Calls& calls : ranks) EXPECT_FALSE(calls.empty());
    for (const Stuck& s : run(ranks))
      ADD_FAILURE() << "rank " << s.rank << " waits for ever in call " << s.call << ": "
                    << ranks[static_cast<size_t>(s.rank)][s.call].what;
  }
}

INSTANTIATE_TEST_SUITE_P(Meshes, IssueOrder,
                         testing::Values(MeshShape{{Axis::tp, 2}}, MeshShape{{Axis::pp, 2}}, MeshShape{{Axis::dp, 2}},
                                         MeshShape{{Axis::tp, 2}, {Axis::pp, 2}},
                                         MeshShape{{Axis::tp, 2}, {Axis::pp, 2}, {Axis::dp, 2}},
                                         MeshShape{{Axis::pp, 4}, {Axis::dp, 2}},
                                         MeshShape{{Axis::tp, 8}, {Axis::pp, 4}},
                                         MeshShape{{Axis::tp, 8}, {Axis::pp, 16}, {Axis::dp, 4}}),
                         [](const auto& info) {
                           return "tp" + std::to_string(info.param.tp()) + "pp" + std::to_string(info.param.pp()) +
                                  "dp" + std::to_string(info.param.dp());
                         });

// The same messages one after another, each for itself: the stages' sends cross, and both wait.
TEST(IssueOrder, WithoutGroupsDeadlocks) {
  std::vector<Calls> ranks = record({{Axis::pp, 2}}, 5);
  for (Calls& calls : ranks) {
    Calls apart;
    for (const Call& call : calls) {
      if (call.parts.empty()) apart.push_back(call);
      for (const Part& p : call.parts) apart.push_back({"", {}, {p}});
    }
    calls = apart;
  }
  EXPECT_EQ(run(ranks).size(), 2u);
}

TEST(IssueOrder, ACallThatOneRankLeavesOutIsFound) {
  std::vector<Calls> ranks = record({{Axis::tp, 2}}, 2);
  ranks[1].pop_back();
  EXPECT_FALSE(run(ranks).empty());
}

}  // namespace
}  // namespace drover
