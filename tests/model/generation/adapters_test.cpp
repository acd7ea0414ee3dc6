// Adapters by slot: each request has its own, and what it gets does not depend on whose others are there.
#include <set>

#include "tests/model/generation/made_up_room.h"

namespace drover {
namespace {

// Three adapters that have nothing in common: all linears, two of them with unlike ranks, the last layer's alone.
AdapterLayout layout_of(int which) {
  return adapter_layout(small_model(), [which](const std::string& path) -> std::optional<LowRankSpec> {
    const auto in = [&](const char* part) { return path.find(part) != std::string::npos; };
    if (which == 0) return LowRankSpec{4, 0.5f};
    if (which == 1 && in("v_proj")) return LowRankSpec{7, 1.0f};
    if (which == 1 && in("down_proj")) return LowRankSpec{3, 2.0f};
    if (which == 2 && in("layers.3.")) return LowRankSpec{16, 0.25f};
    return {};
  });
}

AdapterPool::Load drawn_by(uint64_t seed) {
  return [seed](AdapterSet& adapter) {
    adapter.load([&](const FactorSlice& f, float* values) {
      for (int64_t i = 0; i < f.size(); ++i) *values++ = drawn(seed, f.name, i, 0, 0.4f);
    });
  };
}

int acquire(Room& room, int which) {
  return room.adapters().acquire("adapter " + std::to_string(which), layout_of(which),
                                 drawn_by(static_cast<uint64_t>(which)));
}

struct Numbers {
  DType dtype;
  WeightsAs weights;
};

class Adapters : public testing::TestWithParam<Numbers> {};

TEST_P(Adapters, LeaveEachOthersAnswersAsTheyAreAlone) {
  std::vector<Request> requests = made_up_requests(24);
  for (Request& r : requests) r.sampling.logprobs = 3;
  RoomSettings settings{.dtype = GetParam().dtype,
                        .batcher = {.sequences = 6, .pass_rows = 160, .dearest = dearest()},
                        .held_as = GetParam().weights};
  if (GetParam().weights == WeightsAs::nf4) settings.model.ffn = 128;  // whole blocks of 64
  std::vector<Answer> alone;
  for (size_t i = 0; i < requests.size(); ++i) {
    Room room(settings);  // with this one adapter, or none
    requests[i].slot = i % 4 == 3 ? kBaseModel : acquire(room, static_cast<int>(i % 4));
    alone.push_back(room.alone(requests[i]));
  }
  Room room(settings);
  int slots[3];
  for (int which : {2, 0, 1}) slots[which] = acquire(room, which);
  for (size_t i = 0; i < requests.size(); ++i) requests[i].slot = i % 4 == 3 ? kBaseModel : slots[i % 4];
  const std::vector<Answer> together = answer_all(room.batcher(), requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(together[i].ids, alone[i].ids) << i;
    ASSERT_EQ(together[i].tokens.size(), alone[i].tokens.size());
    for (size_t t = 0; t < alone[i].tokens.size(); ++t) {
      EXPECT_EQ(together[i].tokens[t].logprob, alone[i].tokens[t].logprob) << i;
      EXPECT_EQ(together[i].tokens[t].top, alone[i].tokens[t].top) << i;
    }
  }
  Request same = requests[5];
  same.ids = made_up_ids(100, 5);  // whole blocks, which must not be shared
  std::set<std::vector<int32_t>> answers;
  for (const int slot : {kBaseModel, slots[0], slots[1], slots[2]}) {
    same.slot = slot;
    answers.insert(room.alone(same).ids);
  }
  EXPECT_EQ(answers.size(), 4u) << "each adapter changes the answer";
}

INSTANTIATE_TEST_SUITE_P(All, Adapters,
                         testing::Values(Numbers{DType::f32, WeightsAs::as_is}, Numbers{DType::bf16, WeightsAs::as_is},
                                         Numbers{DType::f32, WeightsAs::fp8}, Numbers{DType::bf16, WeightsAs::fp8},
                                         Numbers{DType::f32, WeightsAs::nf4}, Numbers{DType::bf16, WeightsAs::nf4}),
                         [](const auto& info) {
                           const WeightsAs as = info.param.weights;
                           const std::string dtype = info.param.dtype == DType::bf16 ? "bf16_" : "fp32_";
                           return dtype + (as == WeightsAs::fp8 ? "fp8" : as == WeightsAs::nf4 ? "nf4" : "as_is");
                         });

TEST(AdapterPool, OneAdapterIsOneSlotAsLongAsSomebodyHoldsIt) {
  Room room;
  AdapterPool& pool = room.adapters();
  const int first = acquire(room, 0), second = acquire(room, 1);
  EXPECT_NE(first, second);
  const int64_t both = pool.bytes();
  EXPECT_EQ(pool.acquire("adapter 0", layout_of(0), [](AdapterSet&) { FAIL() << "it is there already"; }), first);
  EXPECT_EQ(pool.bytes(), both);
  Request request{.ids = made_up_ids(20, 1), .max_tokens = 12, .slot = first, .weights = "adapter 0"};
  const std::vector<int32_t> with = room.alone(request).ids;
  request.slot = kBaseModel;
  const std::vector<int32_t> without = room.alone(request).ids;
  EXPECT_NE(with, without);
  request.slot = first;
  pool.release(first);
  EXPECT_EQ(room.alone(request).ids, with);
  pool.release(first);
  EXPECT_LT(pool.bytes(), both);
  request.weights = "";
  EXPECT_EQ(room.alone(request).ids, without) << "its slot is empty";
  EXPECT_THROW(pool.release(first), Error);
  EXPECT_EQ(acquire(room, 2), first) << "the free slot is taken again";
}

TEST(AdapterPool, WhatCannotBeLoadedLeavesNothing) {
  Room room;
  const auto fails = [](AdapterSet&) { fail(Fault::bad_data, "a factor is missing"); };
  EXPECT_THROW(room.adapters().acquire("broken", layout_of(0), fails), Error);
  EXPECT_EQ(room.adapters().bytes(), 0);
  EXPECT_EQ(acquire(room, 0), 1);
}

}  // namespace
}  // namespace drover
