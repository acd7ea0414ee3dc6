// Whether a sum over tp overlaps another part's computing: the starts and waits of the real engine, on Count.
#include <gtest/gtest.h>

#include "kernels/comm/count.h"
#include "kernels/count/count.h"
#include "kernels/cuda/weight.h"
#include "trainer/engine/plan.h"

namespace drover {
namespace {

struct Log {
  int started = 0, waited = 0;
  int alone = 0;  // waits while no other sum was on its way: nothing was enqueued behind the start
};

class Watched : public CountCommunicator {
 public:
  explicit Watched(Log& log) : CountCommunicator("tp", 0, 2), log_(log) {}
  bool overlaps_sums() const override { return true; }
  std::unique_ptr<Transfer> start_all_reduce(Tensor) override {
    struct Sum : Transfer {
      explicit Sum(Log& in) : log(in) {}
      void wait() override {
        log.alone += log.started == log.waited + 1;
        ++log.waited;
      }
      Log& log;
    };
    ++log_.started;
    return std::make_unique<Sum>(log_);
  }

 private:
  Log& log_;
};

constexpr int64_t kLayers = 3;
constexpr int kForward = 2 * kLayers, kBackward = 2 * kLayers - 1;  // o and down; gate_up and qkv, but for the lowest
constexpr int64_t kMostTensors = 24;                                // of one part in scratch

EngineSettings settings_of(bool recompute) {
  EngineSettings s;
  s.model.layers = kLayers, s.model.hidden = 64, s.model.heads = 8, s.model.kv_heads = 4, s.model.head_dim = 8,
  s.model.ffn = 128, s.model.vocab = 160, s.model.max_positions = 64;
  s.adapter = adapter_layout(s.model, [](const std::string&) { return LowRankSpec{4, 1.0f}; });
  s.partition = {{0, kLayers}};
  s.dtype = DType::bf16;
  s.traits = cuda::kTraits;
  s.max_positions = 64;
  s.capacity.micro_batch = {64, 64};
  s.least_part_rows = 16;
  s.overlaps_sums = true;
  s.recompute = recompute;
  return s;
}

Log trained(const std::vector<int64_t>& documents, bool recompute = false) {
  const EngineSettings settings = settings_of(recompute);
  Log log;
  Mesh mesh = make_count_mesh({{Axis::tp, 2}}, {});
  mesh.axes[Axis::tp] = std::make_shared<Watched>(log);
  NoWeights nothing;
  Replica replica(settings, {std::make_shared<CountBackend>(settings.traits), mesh}, nothing, kPlenty);
  Engine engine(settings, replica, kPlenty.saved);
  Batch batch = worst_batch(64, 64, 64, 1, 1);
  batch.micro_batches[0].spans.clear();
  int64_t begin = 0;
  for (const int64_t length : documents) batch.micro_batches[0].spans.push_back({begin, length}), begin += length;
  engine.train_step(batch, 1);
  EXPECT_EQ(log.started, log.waited);
  const Log of_training = log;
  engine.evaluate(batch);  // a plan is for training and evaluation
  const int64_t planned = plan_rank(settings, {{Axis::tp, 2}}, {}).bytes.scratch, reached = engine.peak().scratch;
  EXPECT_LE(reached, planned);
  const bool in_parts = of_training.started > kBackward;
  EXPECT_GE(reached, in_parts ? planned - kMostTensors * Arena::kAlign : 0);  // planned for the worst cut
  return of_training;
}

TEST(Parts, OfWholeDocumentsTakeTurns) {
  const Log log = trained({20, 11, 33});
  EXPECT_EQ(log.started, 2 * (kForward + kBackward));
  EXPECT_EQ(log.alone, 2);  // the last of the way forward, and of the way back
}

TEST(Parts, AreTakenOnTheRecomputedWayToo) {
  const Log log = trained({20, 11, 33}, true);
  EXPECT_EQ(log.started, 2 * (kForward + kLayers + kForward + kBackward));  // kLayers: inputs are brought back
  EXPECT_EQ(log.alone, 2);
}

TEST(Parts, WithTooFewRowsAreNotMade) {
  for (const std::vector<int64_t>& documents : {std::vector<int64_t>{64}, {49, 15}, {15, 49}, {10, 44, 10}}) {
    const Log log = trained(documents);
    EXPECT_EQ(log.started, kBackward);  // overlapping dA; forward, there is nothing to overlap
    EXPECT_EQ(log.alone, log.started);
  }
}

}  // namespace
}  // namespace drover
