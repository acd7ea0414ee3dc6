#include "launch/serve/follower.h"

#include <chrono>

#include "kernels/base/log.h"
#include "launch/serve/load_adapter.h"
#include "trainer/run/checkpoint.h"

namespace drover {

namespace {

using namespace std::chrono_literals;

constexpr auto kBetweenLooks = 1s;

}  // namespace

Follower::Follower(Serving& serving, std::string name, fs::path run)
    : serving_(serving), name_(std::move(name)), run_(std::move(run)), thread_([this] { watch(); }) {}

Follower::~Follower() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    ending_changed_.notify_one();
  }
  thread_.join();
}

void Follower::watch() {
  std::unique_lock lock(mutex_);
  while (!ending_) {
    lock.unlock();
    try {
      look();
    } catch (const std::exception& error) {
      log::warn("--follow {}: {}", run_.string(), error.what());
    }
    lock.lock();
    ending_changed_.wait_for(lock, kBetweenLooks, [&] { return ending_; });
  }
}

std::string Follower::name_of(int64_t step) const { return fmt::format("{}@{}", name_, step); }

void Follower::look() {
  if (*loading_ > 0) return;
  const auto checkpoints = checkpoint_directories(run_);
  std::erase_if(steps_, [&](int64_t step) {
    const bool there = std::ranges::any_of(checkpoints, [&](const auto& entry) { return entry.first == step; });
    if (!there) serving_.models.remove(name_of(step));
    return !there;
  });
  if (checkpoints.empty() || checkpoints.back().first == newest_) return;
  const auto& [step, directory] = checkpoints.back();
  newest_ = step;
  serve_step(step, directory);
}

void Follower::serve_step(int64_t step, const fs::path& checkpoint) {
  const fs::path adapter = verified_adapter(checkpoint);
  steps_.insert(step);
  ++*loading_;
  load_adapter(serving_, {name_of(step), name_}, adapter, [loading = loading_](const auto&) { --*loading; });
}

}  // namespace drover
