// A provider that is not resident: what Stage asks of it, in which order, and that no product runs without its weights.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include "kernels/comm/count.h"
#include "kernels/count/count.h"
#include "model/stage.h"
#include "trainer/engine/plan.h"

namespace drover {
namespace {

// Writes down the calls, and at each release the linears and their backwards since the get before it.
class Recording : public WeightProvider {
 public:
  explicit Recording(const CountBackend& backend) : backend_(backend) {}
  void acquire(size_t block) override { log += fmt::format("acquire {}, ", block); }
  void get(size_t block) override {
    log += fmt::format("get {}, ", block);
    if (held_++ == 0) without += products() - seen_;
    linear_ = backend_.calls("linear"), linear_dx_ = backend_.calls("linear_dx");
  }
  void release(size_t block) override {
    log += fmt::format("release {} after {}+{}, ", block, backend_.calls("linear") - linear_,
                       backend_.calls("linear_dx") - linear_dx_);
    ASSERT_GT(held_--, 0);
    seen_ = products();
  }
  int held() const { return held_; }

  std::string log;
  int64_t without = 0;  // products while nothing was held

 private:
  int64_t products() const { return backend_.calls("linear") + backend_.calls("linear_dx"); }
  const CountBackend& backend_;
  int held_ = 0;
  int64_t linear_ = 0, linear_dx_ = 0, seen_ = 0;
};

constexpr int64_t kTokens = 8;

struct Walked {
  static constexpr int64_t kPlenty = int64_t{1} << 40;
  CountBackend backend;
  Recording provider{backend};
  Arena arena{"stage", backend.memory(), kPlenty}, scratch{"scratch", backend.memory(), kPlenty};
  NoWeights nothing;
  CountCommunicator tp;
  ModelConfig config;
  std::optional<AdapterSet> adapter;
  std::optional<Stage> stage;
  std::vector<Segment> segments{{.nq = kTokens, .nk = kTokens}};
  Tensor stream;

  explicit Walked(int64_t lowest_adapted, int ranks = 1) : tp("tp", 0, ranks) {
    config.hidden = 32, config.layers = 3, config.heads = 4, config.kv_heads = 2, config.head_dim = 8;
    config.ffn = 48, config.vocab = 64, config.max_positions = kTokens;
    AdapterLayout layout = adapter_layout(config, [](const std::string&) { return LowRankSpec{2, 1.0f}; });
    for (int64_t layer = 0; layer < lowest_adapted; ++layer) layout[static_cast<size_t>(layer)] = {};
    const Placement placement{.tp_size = ranks, .layer_end = config.layers};
    const std::vector<FactorSlice> factors = factor_slices(config, layout, placement);
    const Tensor parameters = arena.tensor(1 << 20, 1, DType::f32), gradients = arena.tensor(1 << 20, 1, DType::f32);
    adapter.emplace(layout, factors, parameters, gradients, DType::f32, backend, arena);
    stage.emplace(StageShape{config, placement, DType::f32, kTokens},
                  Loading{tp, backend, arena, nothing, &*adapter, provider});
    stream = arena.tensor(kTokens, config.hidden, DType::f32);
  }
  Context context(Arena& in, int64_t rows = kTokens) {
    const Tensor numbers = arena.tensor(rows, 1, DType::i32);
    return {.backend = backend,
            .scratch = in,
            .rope = stage->rope(),
            .ids = numbers,
            .positions = numbers,
            .documents = numbers,
            .segments = segments,
            .dropout = {},
            .cache_rows = {}};
  }
  std::string take_log() { return std::exchange(provider.log, {}); }
};

constexpr const char* kForward =
    "acquire 0, acquire 1, get 0, release 0 after 4+0, acquire 2, get 1, release 1 after 4+0, get 2, "
    "release 2 after 4+0, ";

TEST(WeightProvider, IsAskedOneBlockAhead) {
  Walked w(0);
  Context ctx = w.context(w.scratch);
  const Stage::Saved saved = w.stage->saved(w.arena, kTokens, KeepPolicy::all);
  w.provider.log.clear();
  run_alone(w.stage->forward(ctx, w.stream, saved));
  EXPECT_EQ(w.take_log(), kForward);
  run_alone(w.stage->backward(ctx, w.stream, saved));
  EXPECT_EQ(w.take_log(),
            "acquire 2, acquire 1, get 2, release 2 after 0+4, acquire 0, get 1, release 1 after 0+4, get 0, "
            "release 0 after 0+3, ");
  EXPECT_EQ(w.provider.without, 0);
  EXPECT_EQ(w.provider.held(), 0);
}

TEST(WeightProvider, ABlockThatIsRecomputedIsHeldOnce) {
  Walked w(0);
  Context ctx = w.context(w.scratch);
  const Stage::Saved saved = w.stage->saved(w.arena, kTokens, KeepPolicy::inputs);
  run_alone(w.stage->forward(ctx, w.stream, saved));
  EXPECT_EQ(w.take_log(), kForward);
  run_alone(w.stage->backward(ctx, w.stream, saved));
  EXPECT_EQ(w.take_log(),
            "acquire 2, acquire 1, get 2, release 2 after 4+4, acquire 0, get 1, release 1 after 4+4, get 0, "
            "release 0 after 4+3, ");
  EXPECT_EQ(w.provider.without, 0);
}

TEST(WeightProvider, IsNotAskedForBlocksThatBackwardDoesNotReach) {
  Walked w(1);
  Context ctx = w.context(w.scratch);
  run_alone(w.stage->backward(ctx, w.stream, w.stage->saved(w.arena, kTokens, KeepPolicy::all)));
  EXPECT_EQ(w.take_log(), "acquire 2, acquire 1, get 2, release 2 after 0+4, get 1, release 1 after 0+3, ");
}

// Two parts of a micro-batch that take turns at the sums over tp.
TEST(WeightProvider, IsHeldByBothOfTwoPasses) {
  Walked w(0, 2);
  const int64_t half = kTokens / 2;
  w.segments = {{.nq = half, .nk = half}};
  Context first = w.context(w.scratch, half), second = w.context(w.scratch.second_stack(), half);
  first.overlapped = second.overlapped = true;
  second.begin = half;
  const Stage::Saved saved = w.stage->saved(w.arena, kTokens, KeepPolicy::all);
  for (const auto walk : {&Stage::forward, &Stage::backward}) {
    interleave((*w.stage.*walk)(first, w.stream.rows_from(0, half), saved),
               (*w.stage.*walk)(second, w.stream.rows_from(half, half), saved));
    EXPECT_EQ(w.provider.without, 0);
    EXPECT_EQ(w.provider.held(), 0);
    EXPECT_NE(w.take_log().find("get 0, "), std::string::npos);
  }
}

}  // namespace
}  // namespace drover
