// The loop that all ranks of a server run: requests of other threads, cancellations, adapters that come and leave, on
// meshes of threads.
#include "launch/serve/pass_loop.h"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>

#include "kernels/comm/threads.h"
#include "kernels/cpu/cpu_backend.h"
#include "launch/tiny_model.h"
#include "model/files/peft.h"
#include "tests/base/scratch_directory.h"
#include "tests/support/made_up.h"
#include "trainer/setup/adapter_setup.h"

namespace drover {
namespace {

// A tiny model and adapters for it.
class Served : public testing::TestWithParam<std::pair<int, int>> {
 protected:
  void SetUp() override { make_tiny_model(model_, 3); }

  MeshShape shape() const { return {{Axis::tp, GetParam().first}, {Axis::pp, GetParam().second}}; }

  InferenceSettings settings() const {
    return {.model = model_,
            .later_rank = 8,
            .dtype = DType::f32,
            .batcher = {.sequences = 4, .pass_rows = 96},
            .capacity_tokens = 128};
  }

  // Every linear adapted, drawn by `seed`.
  fs::path adapter(uint64_t seed) const {
    const fs::path directory = home_.path() / ("adapter-" + std::to_string(seed));
    AdapterConfig config;
    config.r = 4, config.alpha = 8;
    config.target_modules = std::vector<std::string>{"q_proj", "down_proj"};
    const ModelConfig model = read_model_config(model_);
    FactorShapes shapes;
    for (const auto [layer, p] : linears_of(model)) {
      if (p != Projection::q && p != Projection::down) continue;
      const LinearShape linear = shape_of(model, p);
      shapes[module_path(layer, p) + ".lora_A"] = {4, linear.in};
      shapes[module_path(layer, p) + ".lora_B"] = {linear.out, 4};
    }
    const auto values = [&](const std::string& name) {
      const auto [rows, cols] = shapes.at(name);
      AdapterMatrix m{rows, cols, {}};
      for (int64_t i = 0; i < rows * cols; ++i) m.values.push_back(drawn(seed, name, i, 0.0f, 0.5f));
      return m;
    };
    write_adapter(directory, config, shapes, values, DType::f32);
    return directory;
  }

  ScratchDirectory home_;
  fs::path model_ = home_.path() / "model";
};

// Answers by request, and a way to wait for one.
class Answers {
 public:
  PassLoop::Sink sink(int which) {
    return [this, which](const Event& event) {
      const std::lock_guard lock(mutex_);
      if (const auto* token = std::get_if<Chosen>(&event.what)) ids_[which].push_back(token->id);
      if (std::holds_alternative<Finish>(event.what) || std::holds_alternative<Error>(event.what)) ++ended_;
      changed_.notify_all();
      return true;
    };
  }
  void wait_for(int ended) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ended_ >= ended; });
  }
  std::vector<int32_t> ids(int which) {
    const std::lock_guard lock(mutex_);
    return ids_[which];
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<int, std::vector<int32_t>> ids_;
  int ended_ = 0;
};

Request request(int which, int slot = kBaseModel, const std::string& weights = "") {
  Request r{.max_tokens = 3 + which % 5, .slot = slot, .weights = weights};
  for (int i = 0; i <= which * 7 % 40; ++i) r.ids.push_back(i * 5 % 90 + 1);
  return r;
}

// `drive` is rank 0's other thread.
void serve(const MeshShape& shape, const InferenceSettings& settings, const std::function<void(PassLoop&)>& drive,
           const PassLoop::MakeFilter& make_filter = {}) {
  run_on_threads(shape, [&](Mesh& mesh) {
    Inference inference(settings, mesh, [](const Mesh& host) { return Device{make_cpu_backend(1), host}; });
    PassLoop loop(inference, *mesh.world, make_filter);
    std::thread driver;
    if (mesh.world->rank() == 0) {
      driver = std::thread([&] {
        drive(loop);
        loop.end();
      });
    }
    loop.run();
    if (driver.joinable()) driver.join();
    EXPECT_TRUE(inference.batcher().idle());
    EXPECT_EQ(inference.batcher().prefixes().free_blocks(), inference.pool().blocks());
  });
}

std::pair<int, std::string> attach(PassLoop& loop, const fs::path& directory) {
  std::promise<std::pair<int, std::string>> done;
  loop.attach(directory, [&](const auto& outcome) {
    if (const auto* error = std::get_if<Error>(&outcome)) {
      done.set_value({-1, error->what()});
    } else {
      const auto& attached = std::get<PassLoop::AttachedAdapter>(outcome);
      done.set_value({attached.slot, attached.hash});
    }
  });
  return done.get_future().get();
}

std::vector<int32_t> alone(const InferenceSettings& settings, const Request& asked) {
  Answers answers;
  serve({}, settings, [&](PassLoop& loop) {
    loop.submit(asked, answers.sink(0));
    answers.wait_for(1);
  });
  return answers.ids(0);
}

TEST_P(Served, AnswersWhatOneRankAnswers) {
  constexpr int kRequests = 12;
  Answers answers;
  serve(shape(), settings(), [&](PassLoop& loop) {
    for (int i = 0; i < kRequests; ++i) loop.submit(request(i), answers.sink(i));
    answers.wait_for(kRequests);
  });
  for (int i = 0; i < kRequests; ++i) EXPECT_EQ(answers.ids(i), alone(settings(), request(i))) << i;
}

// Every third token is allowed; each rank makes its own filter of the request's form.
class EveryThird : public TokenFilter {
 public:
  void allow(std::span<uint32_t> bits) override {
    std::ranges::fill(bits, 0);
    for (uint32_t t = 0; t < 250; t += 3) bits[t / 32] |= 1u << (t % 32);
  }
  bool accept(int32_t token) override { return token % 3 == 0; }
};

TEST_P(Served, AFormIsKeptOnEveryRank) {
  InferenceSettings filtered = settings();
  filtered.batcher.filters = true;
  Answers answers;
  const auto make = [](const std::string& form, std::span<const int32_t>) {
    EXPECT_EQ(form, "thirds");
    return std::make_shared<EveryThird>();
  };
  const auto drive = [&](PassLoop& loop) {
    loop.submit(request(4), answers.sink(0), "thirds");
    loop.submit(request(4), answers.sink(1));
    answers.wait_for(2);
  };
  serve(shape(), filtered, drive, make);
  EXPECT_FALSE(answers.ids(0).empty());
  for (const int32_t id : answers.ids(0)) EXPECT_EQ(id % 3, 0);
  EXPECT_EQ(answers.ids(1), alone(settings(), request(4)));
}

TEST_P(Served, ACancelledRequestIsSilentAndFreesItsPlace) {
  Answers answers;
  std::atomic<int> after = 0;
  serve(shape(), settings(), [&](PassLoop& loop) {
    Request endless = request(3);
    endless.max_tokens = 100;
    std::atomic<bool> cancelled = false;
    const uint64_t ticket = loop.submit(endless, [&](const Event&) {
      if (cancelled) ++after;
      return true;
    });
    loop.submit(request(1), answers.sink(1));
    answers.wait_for(1);
    loop.cancel(ticket);
    loop.submit(request(2), answers.sink(2));  // its first event comes behind the cancellation
    answers.wait_for(2);
    cancelled = true;
    loop.submit(request(4), answers.sink(4));
    answers.wait_for(3);
  });
  EXPECT_EQ(after, 0);
}

// Clients that come and leave while a pass runs must not leave their prompts behind.
TEST_P(Served, WhatIsCancelledBeforeItIsTakenIsNeverRead) {
  Answers answers;
  int64_t looked_for = 0;
  serve(shape(), settings(), [&](PassLoop& loop) {
    std::atomic<bool> first = true;
    const auto last = answers.sink(0);
    loop.submit(request(4), [&, last](const Event& event) {  // between two passes
      if (first.exchange(false)) loop.cancel(loop.submit(request(5), [](const Event&) { return true; }));
      return last(event);
    });
    answers.wait_for(1);
    loop.submit(request(1), answers.sink(1));
    answers.wait_for(2);
    looked_for = loop.state().load.prefix_queries;
  });
  EXPECT_EQ(looked_for, static_cast<int64_t>(request(4).ids.size() + request(1).ids.size()));
}

TEST_P(Served, AdaptersComeAndLeaveBetweenPasses) {
  const fs::path first = adapter(1), second = adapter(2);
  Answers answers;
  serve(shape(), settings(), [&](PassLoop& loop) {
    const auto [slot, hash] = attach(loop, first);
    loop.submit(request(5, slot, hash), answers.sink(0));
    const auto [same, same_hash] = attach(loop, first);
    EXPECT_EQ(same, slot);
    EXPECT_EQ(same_hash, hash);
    answers.wait_for(1);
    loop.detach(slot);
    loop.detach(slot);
    const auto [other, other_hash] = attach(loop, second);
    EXPECT_EQ(other, slot) << "its slot is free again";
    loop.submit(request(5, other, other_hash), answers.sink(1));
    loop.submit(request(5), answers.sink(2));
    answers.wait_for(3);
    loop.detach(other);
  });
  EXPECT_NE(answers.ids(0), answers.ids(1));
  EXPECT_NE(answers.ids(0), answers.ids(2));
  for (const fs::path& directory : {first, second}) {
    InferenceSettings one = settings();
    one.named_adapters = {directory};
    EXPECT_EQ(answers.ids(directory == first ? 0 : 1), alone(one, request(5, 1, "it")));
  }
}

TEST_P(Served, AnAdapterThatCannotBeReadIsAnAnswer) {
  const fs::path damaged = adapter(1);
  fs::resize_file(damaged / "adapter_model.safetensors", 1000);
  Answers answers;
  serve(shape(), settings(), [&](PassLoop& loop) {
    EXPECT_EQ(attach(loop, damaged).first, -1);
    EXPECT_EQ(attach(loop, home_.path() / "nothing").first, -1);
    loop.submit(request(1), answers.sink(0));
    answers.wait_for(1);
  });
}

INSTANTIATE_TEST_SUITE_P(Meshes, Served,
                         testing::Values(std::pair{1, 1}, std::pair{2, 1}, std::pair{1, 2}, std::pair{2, 2}),
                         [](const auto& info) { return fmt::format("tp{}pp{}", info.param.first, info.param.second); });

}  // namespace
}  // namespace drover
