// A run whose device is a step behind its host: the same numbers and files as one that waits, and what has to come
// first still comes first.
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "kernels/base/error.h"
#include "kernels/cpu/cpu_backend.h"
#include "launch/tiny_model.h"
#include "trainer/run/run.h"
#include "trainer/run/stop_signal.h"

namespace drover {
namespace {

namespace fs = std::filesystem;

// What a run did, in order: "update 3" when it was enqueued, "read 3" when the host asked for its norm.
struct Diary {
  std::vector<std::string> lines;
  int64_t updates = 0;
  int64_t spoilt = 0;                                // the update whose norm shall be infinite
  int64_t stop = 0;                                  // the update behind which a signal comes
  std::map<int64_t, std::vector<float>> parameters;  // after each update
};

// The CPU, saying of itself that it enqueues.
class Behind : public cpu::CpuBackend {
 public:
  explicit Behind(Diary& diary) : CpuBackend(1), diary_(diary) {}
  bool enqueues() const override { return true; }

 private:
  void do_clip_factor(Tensor sum, float max_norm, Tensor factor) override {
    if (diary_.updates + 1 == diary_.spoilt) sum.as<double>()[0] = INFINITY;
    CpuBackend::do_clip_factor(sum, max_norm, factor);
  }
  void do_adamw(const AdamW& settings, Tensor factor, Tensor g, Tensor p, Tensor m, Tensor v) override {
    CpuBackend::do_adamw(settings, factor, g, p, m, v);
    diary_.lines.push_back(fmt::format("update {}", ++diary_.updates));
    diary_.parameters[diary_.updates] = {p.as<float>(), p.as<float>() + p.size()};
    if (diary_.updates != diary_.stop) return;
    kill(getpid(), SIGTERM);
    while (stop_requested() == StopReason::none) std::this_thread::yield();
  }
  std::unique_ptr<Reading> do_read_later(Tensor from) override {
    if (diary_.updates == noted_) return CpuBackend::do_read_later(from);  // losses
    noted_ = diary_.updates;
    return std::make_unique<Noted>(CpuBackend::do_read_later(from), diary_, diary_.updates);
  }

  struct Noted : Reading {
    Noted(std::unique_ptr<Reading> inner, Diary& diary, int64_t update)
        : inner_(std::move(inner)), diary_(diary), update_(update) {}
    void wait() override { inner_->wait(); }
    std::span<const double> values() override {
      diary_.lines.push_back(fmt::format("read {}", update_));
      return inner_->values();
    }
    std::unique_ptr<Reading> inner_;
    Diary& diary_;
    int64_t update_;
  };
  Diary& diary_;
  int64_t noted_ = 0;  // the update whose norm was the last to be read
};

struct RunAhead : testing::Test {
  RunAhead() {
    home_ = fs::temp_directory_path() / fmt::format("drover-run-ahead-{}", getpid());
    fs::create_directories(home_);
    make_tiny_model(home_ / "model", 1);
    std::ofstream rows(home_ / "train.jsonl");
    for (int i = 0; i < 20; ++i)
      rows << nlohmann::json{{"messages",
                              {{{"role", "user"}, {"content", fmt::format("parcel {}?", i)}},
                               {{"role", "assistant"}, {"content", fmt::format("depot {}", i * 7)}}}}}
           << '\n';
    std::ofstream(home_ / "recipe.yaml") << fmt::format(
        "model:\n  path: {0}/model\nlora:\n  r: 4\ndata:\n  train: {0}/train.jsonl\n  validation: {0}/train.jsonl\n  "
        "max_length: 128\n  packing: false\ntrain:\n  dtype: fp32\n"
        "  global_batch_size: 4\n  max_steps: 7\noptim:\n  learning_rate: 5.0e-3\n  warmup_steps: 0\noutput:\n  dir: "
        "{0}/none\n",
        home_.string());
  }
  ~RunAhead() override { fs::remove_all(home_); }

  StopReason run(const std::string& name, const OpenDevice& open_device, std::vector<std::string> overrides = {}) {
    overrides.push_back(fmt::format("output.dir={}", (home_ / name).string()));
    Mesh mesh = make_self_mesh();
    const auto machine_of = [](const Device&) {
      return PlannedMachine{.rates =
                                Rates({.product = 1, .attention = 1, .attention_backward = 1, .memory = 1, .link = 1})};
    };
    return train(read_recipe(home_ / "recipe.yaml", overrides), mesh, open_device, machine_of);
  }
  StopReason run_behind(const std::string& name, Diary& diary, const std::vector<std::string>& overrides = {}) {
    return run(
        name,
        [&](const Mesh& host) {
          return Device{std::make_unique<Behind>(diary), host};
        },
        overrides);
  }
  // Every line, without what a clock or the process's memory says.
  std::vector<std::string> metrics(const std::string& name) const {
    std::vector<std::string> lines;
    std::ifstream in(home_ / name / "metrics.jsonl");
    for (std::string text; std::getline(in, text);) {
      auto line = nlohmann::json::parse(text);
      EXPECT_GT(line.value("step_seconds", 1.0), 0);  // a validation has none
      for (const char* key : {"tokens_per_second", "step_seconds", "peak_bytes"}) line.erase(key);
      lines.push_back(line.dump());
    }
    return lines;
  }
  std::string adapter(const std::string& name) const {
    std::ifstream in(home_ / name / "adapter" / "adapter_model.safetensors", std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  fs::path home_;
};

TEST_F(RunAhead, GivesTheSameRun) {
  const std::vector<std::string> pauses = {"eval.every_steps=3", "checkpoint.every_steps=5"};
  EXPECT_EQ(run(
                "plain",
                [](const Mesh& host) {
                  return Device{make_cpu_backend(1), host};
                },
                pauses),
            StopReason::none);
  Diary diary;
  EXPECT_EQ(run_behind("behind", diary, pauses), StopReason::none);
  EXPECT_EQ(metrics("behind"), metrics("plain"));
  EXPECT_EQ(metrics("plain").size(), 7u + 4u);
  EXPECT_FALSE(adapter("plain").empty());
  EXPECT_EQ(adapter("behind"), adapter("plain"));
  // A step ahead, but not past a validation, a checkpoint and the end.
  EXPECT_EQ(diary.lines,
            (std::vector<std::string>{"update 1", "update 2", "read 1", "update 3", "read 2", "read 3", "update 4",
                                      "update 5", "read 4", "read 5", "update 6", "read 6", "update 7", "read 7"}));
}

TEST_F(RunAhead, ABadStepIsNamedAndLeavesTheParametersAlone) {
  Diary diary{.spoilt = 4};
  try {
    run_behind("bad", diary);
    FAIL() << "the norm was infinite";
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::non_finite);
    EXPECT_NE(std::string(error.what()).find("step 4: the loss is "), std::string::npos) << error.what();
  }
  const auto lines = metrics("bad");
  ASSERT_EQ(lines.size(), 1u + 4u);  // a validation before the first step
  EXPECT_NE(lines.back().find("\"grad_norm\":null"), std::string::npos) << lines.back();
  ASSERT_EQ(diary.updates, 5);  // the fifth was on its way
  EXPECT_NE(diary.parameters.at(3), diary.parameters.at(2));
  EXPECT_EQ(diary.parameters.at(4), diary.parameters.at(3));
  EXPECT_EQ(diary.parameters.at(5), diary.parameters.at(3));
}

TEST_F(RunAhead, ASignalIsFollowedByTheStepsInFlight) {
  take_stop_signals(0, {.exit_code = [](StopReason) { return 1; }, .at_once = "", .noted = ""});
  Diary diary{.stop = 3};
  EXPECT_EQ(run_behind("stopped", diary), StopReason::preempted);
  EXPECT_EQ(diary.updates, 3);
  EXPECT_EQ(metrics("stopped").size(), 1u + 3u);
  EXPECT_TRUE(fs::exists(home_ / "stopped" / "step-3" / "manifest.json"));
}

}  // namespace
}  // namespace drover
