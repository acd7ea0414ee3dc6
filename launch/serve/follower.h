// --follow RUN: the adapter of each new checkpoint of a run that trains, served as NAME and as NAME@STEP while the
// checkpoint is there. Requests that run keep the one that they began with.
#pragma once
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "launch/serve/serving.h"

namespace drover {

class Follower {
 public:
  Follower(Serving& serving, std::string name, fs::path run);
  ~Follower();
  Follower(const Follower&) = delete;
  Follower& operator=(const Follower&) = delete;

 private:
  void watch();
  void look();
  void serve_step(int64_t step, const fs::path& checkpoint);
  std::string name_of(int64_t step) const;

  Serving& serving_;
  const std::string name_;
  const fs::path run_;
  int64_t newest_ = -1;      // step that was tried
  std::set<int64_t> steps_;  // that are served
  // Loads that have begun and not ended; whoever ends one may outlive this.
  std::shared_ptr<std::atomic<int>> loading_ = std::make_shared<std::atomic<int>>(0);

  std::mutex mutex_;
  std::condition_variable ending_changed_;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace drover
