// The figures of a server under the names that vLLM's have, which dashboards and the inference gateway of Kubernetes
// read. Any thread.
#pragma once
#include <map>
#include <mutex>
#include <string>

#include "launch/http/metrics.h"
#include "launch/serve/pass_loop.h"

namespace drover {

class ServerMetrics {
 public:
  explicit ServerMetrics(std::string model);  // the base's id, a label of every figure

  // One answer's life: it waits, gets tokens, ends. `adapter` is empty for the base.
  void arrived(const std::string& adapter);
  void first_token(const std::string& adapter, double seconds);  // since the request came
  void next_token(double seconds);                               // since the one before
  struct Ended {
    std::string reason;  // "stop", "length", "tool_calls", "abort", "error"
    int64_t prompt_tokens = 0, answer_tokens = 0;
    double seconds = 0;
    bool had_tokens = false;
  };
  void ended(const std::string& adapter, const Ended& ended);

  std::string text(const PassLoop::State& state);

 private:
  struct Users {  // of an adapter
    int64_t waiting = 0, running = 0;
  };
  Metrics::Labels labels(const Metrics::Labels& more = {}) const;
  void count_up(const std::string& name, const std::string& help, int64_t total, int64_t& counted);
  std::string adapters_line();

  const std::string model_;
  Metrics metrics_;
  Histogram &first_token_, &between_tokens_, &whole_, &prompt_, &answer_;
  std::mutex mutex_;  // of what follows
  std::map<std::string, Users> adapters_;
  double adapters_changed_ = 0;  // seconds since 1970
  int64_t preemptions_ = 0, queries_ = 0, hits_ = 0;
};

}  // namespace drover
