// Decoding passes that are captured and launched again: the same tokens, keys and values, bit for bit, as passes that
// are enqueued op by op, on streams that do everything at once and on those that lag behind.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

#include "model/adapter_pool.h"
#include "model/generation/answers.h"
#include "tests/cuda/emulation/streams.h"
#include "tests/cuda/training.h"

namespace drover {
namespace {

enum class Way : uint8_t { plain, padded, replayed };

ModelConfig model() {
  ModelConfig c;
  c.hidden = 48, c.layers = 2, c.heads = 4, c.kv_heads = 2, c.head_dim = 16, c.ffn = 64, c.vocab = 101;
  c.max_positions = 512;
  return c;
}

class Room {
 public:
  explicit Room(Way way) : backend_(made(way)) {
    if (way != Way::plain) decoder.replay_up_to(6);
  }
  int acquire(uint64_t seed) {
    const AdapterLayout layout = adapter_layout(model(), [](const std::string&) { return LowRankSpec{4, 1.0f}; });
    return adapters.acquire(std::to_string(seed), layout, [seed](AdapterSet& adapter) {
      adapter.load([&](const FactorSlice& f, float* values) {
        for (int64_t i = 0; i < f.size(); ++i) *values++ = drawn(seed, f.name, i, 0, 0.4f);
      });
    });
  }
  const cuda::PassGraphs& graphs() const { return backend_->pass_graphs(); }
  // All keys and values, bit for bit.
  std::vector<char> cached() {
    std::vector<char> all;
    for (const KvCache::Layer& layer : pool.cache().layers) {
      for (const Tensor t : {layer.k, layer.v}) {
        const size_t begin = all.size();
        all.resize(begin + static_cast<size_t>(t.rows * t.cols * size_of(t.dtype)));
        backend_->download(t, all.data() + begin);
      }
    }
    return all;
  }

 private:
  static std::shared_ptr<cuda::CudaBackend> made(Way way) {
    setenv("DROVER_PASS_GRAPHS", way == Way::replayed ? "on" : "off", 1);
    auto backend = cuda_under_test();
    unsetenv("DROVER_PASS_GRAPHS");
    return backend;
  }
  std::shared_ptr<cuda::CudaBackend> backend_;
  Mesh mesh_ = make_self_mesh();
  Arena weights_{"weights", backend_->memory(), 16 << 20}, cache_{"cache", backend_->memory(), 16 << 20},
      scratch_{"scratch", backend_->memory(), 16 << 20};
  DrawnWeights drawn_{11, 0.15f, 0.5f};
  Stage stage_{StageShape{model(), {.layer_end = model().layers, .first = true, .last = true}, DType::bf16, 512, {}},
               Loading{mesh_.tp(), *backend_, weights_, drawn_}};

 public:
  AdapterPool adapters{stage_, *backend_};
  KvPool pool{stage_, cache_, 64};
  Decoder decoder{stage_, mesh_, *backend_, pool, scratch_};
};

struct Decoded {
  std::vector<int32_t> tokens;
  std::vector<char> cached;
  int64_t captured = 0, launched = 0;
  auto operator<=>(const Decoded&) const = default;
};

// Three sequences, one of which crosses 256 keys, then two, then five: some draw their tokens, others take the
// likeliest.
Decoded decode(Way way) {
  Room room(way);
  std::vector<CachedSequence> sequences(5);
  std::vector<std::vector<int32_t>> ids(5);
  const Sampling greedy, draws{.greedy = false, .temperature = 0.8f, .top_p = 0.9f, .seed = 3};
  Decoded all;
  const auto pass = [&](const std::vector<size_t>& chosen) {
    std::vector<Decoder::Input> inputs;
    for (const size_t i : chosen) {
      EXPECT_TRUE(room.pool.reserve(sequences[i], sequences[i].tokens + static_cast<int64_t>(ids[i].size())));
      inputs.push_back({.sequence = &sequences[i],
                        .ids = ids[i],
                        .sampling = i % 2 == 0 ? &greedy : &draws,
                        .draw = {i, static_cast<uint64_t>(sequences[i].tokens)},
                        .slot = kBaseModel});
    }
    const std::vector<Chosen> next = room.decoder.append(inputs);
    for (size_t n = 0; n < chosen.size(); ++n) {
      ids[chosen[n]] = {next[n].id};
      all.tokens.push_back(next[n].id);
    }
  };
  for (size_t i = 0; i < 5; ++i) {
    for (int64_t t = 0; t < (i == 1 ? 247 : 9 + static_cast<int64_t>(i)); ++t)
      ids[i].push_back(static_cast<int32_t>((t * 7 + static_cast<int64_t>(i) * 13) % 101));
  }
  for (size_t i = 0; i < 5; ++i) pass({i});
  for (int step = 0; step < 24; ++step) pass({0, 1, 2});
  for (int step = 0; step < 12; ++step) pass({1, 3});
  for (int step = 0; step < 12; ++step) pass({0, 1, 2, 3, 4});
  all.cached = room.cached();
  all.captured = room.graphs().captured();
  all.launched = room.graphs().launched();
  return all;
}

TEST(PassGraphs, HaveTheBitsOfPlainPasses) {
  const Decoded plain = decode(Way::plain), padded = decode(Way::padded), replayed = decode(Way::replayed);
  EXPECT_EQ(plain.tokens, padded.tokens);
  EXPECT_EQ(plain.tokens, replayed.tokens);
  EXPECT_TRUE(plain.cached == padded.cached);
  EXPECT_TRUE(plain.cached == replayed.cached);
  EXPECT_EQ(plain.launched + padded.launched, 0);
  EXPECT_GE(replayed.captured, 4);  // three sequences, of either length, two and five
  EXPECT_GE(replayed.launched, 12);
}

TEST(PassGraphs, HaveTheSameBitsOnStreamsThatLag) {
  const Decoded plain = decode(Way::plain);
  cuda::emulation::asynchronous = true;
  const Decoded replayed = decode(Way::replayed);
  cuda::emulation::asynchronous = false;
  EXPECT_EQ(plain.tokens, replayed.tokens);
  EXPECT_TRUE(plain.cached == replayed.cached);
  EXPECT_GE(replayed.launched, 12);
}

// An adapter that takes another's slot lies elsewhere: what was captured of the first one is not launched for it.
TEST(PassGraphs, KnowTheAdapterThatASlotHasNow) {
  std::vector<std::vector<int32_t>> tokens;
  for (const Way way : {Way::plain, Way::replayed}) {
    Room room(way);
    std::vector<int32_t>& all = tokens.emplace_back();
    for (const uint64_t adapter : {1, 2}) {
      const int slot = room.acquire(adapter);
      EXPECT_EQ(slot, 1);
      CachedSequence sequence;
      ASSERT_TRUE(room.pool.reserve(sequence, 40));
      const Sampling greedy;
      std::vector<int32_t> ids = {5, 9, 2};
      for (int step = 0; step < 16; ++step) {
        const Decoder::Input input{.sequence = &sequence, .ids = ids, .sampling = &greedy, .slot = slot};
        ids = {room.decoder.append({&input, 1}).front().id};
        all.push_back(ids.front());
      }
      room.pool.release(sequence);
      room.adapters.release(slot);
    }
    EXPECT_EQ(room.graphs().captured(), way == Way::replayed ? 2 : 0);
  }
  EXPECT_EQ(tokens[0], tokens[1]);
  EXPECT_NE(std::vector(tokens[0].begin(), tokens[0].begin() + 16),
            std::vector(tokens[0].begin() + 16, tokens[0].end()));
}

// What the batcher does by itself, over more requests than it answers at once.
TEST(PassGraphs, ServeABatchersAnswers) {
  std::vector<std::vector<int32_t>> answers[2];
  for (const Way way : {Way::padded, Way::replayed}) {
    Room room(way);
    Batcher batcher(room.decoder, {.sequences = 3, .pass_rows = 80});
    std::vector<Request> requests;
    for (uint64_t i = 0; i < 5; ++i) {
      requests.push_back({.ids = {1, static_cast<int32_t>(20 + i), 7},
                          .max_tokens = 14 + static_cast<int64_t>(i),
                          .number = i,
                          .slot = kBaseModel});
    }
    for (const Answer& answer : answer_all(batcher, requests)) answers[way == Way::replayed].push_back(answer.ids);
    EXPECT_EQ(room.graphs().launched() > 0, way == Way::replayed);
  }
  EXPECT_EQ(answers[0], answers[1]);
}

TEST(PassGraphs, AnUnknownWordOfTheSettingIsRefused) {
  setenv("DROVER_PASS_GRAPHS", "maybe", 1);
  EXPECT_THROW(cuda_under_test(), Error);
  unsetenv("DROVER_PASS_GRAPHS");
}

}  // namespace
}  // namespace drover
