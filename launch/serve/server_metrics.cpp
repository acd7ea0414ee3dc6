#include "launch/serve/server_metrics.h"

#include <fmt/format.h>

#include <chrono>
#include <vector>

namespace drover {

namespace {

const std::vector<double> kSeconds{0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5,
                                   0.75,  1,     2.5,  5,    7.5,  10,   20,   40,  80,   160};
const std::vector<double> kBetween{0.001, 0.0025, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15,
                                   0.2,   0.3,    0.4,   0.5,    0.75, 1,     2.5,  5,     10};
const std::vector<double> kWhole{0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960};
const std::vector<double> kTokens{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

}  // namespace

ServerMetrics::ServerMetrics(std::string model)
    : model_(std::move(model)),
      first_token_(metrics_.histogram("vllm:time_to_first_token_seconds", "From a request to its first token.",
                                      kSeconds, labels())),
      between_tokens_(metrics_.histogram("vllm:inter_token_latency_seconds", "Between two tokens of an answer.",
                                         kBetween, labels())),
      whole_(metrics_.histogram("vllm:e2e_request_latency_seconds", "From a request to its answer's end.", kWhole,
                                labels())),
      prompt_(metrics_.histogram("vllm:request_prompt_tokens", "Tokens of a prompt.", kTokens, labels())),
      answer_(metrics_.histogram("vllm:request_generation_tokens", "Tokens of an answer.", kTokens, labels())) {}

Metrics::Labels ServerMetrics::labels(const Metrics::Labels& more) const {
  Metrics::Labels all{{"model_name", model_}};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

void ServerMetrics::arrived(const std::string& adapter) {
  if (adapter.empty()) return;
  const std::lock_guard lock(mutex_);
  ++adapters_[adapter].waiting;
  adapters_changed_ = now();
}

void ServerMetrics::first_token(const std::string& adapter, double seconds) {
  first_token_.observe(seconds);
  if (adapter.empty()) return;
  const std::lock_guard lock(mutex_);
  Users& users = adapters_[adapter];
  --users.waiting, ++users.running;
  adapters_changed_ = now();
}

void ServerMetrics::next_token(double seconds) { between_tokens_.observe(seconds); }

void ServerMetrics::ended(const std::string& adapter, const Ended& e) {
  metrics_.counter("vllm:request_success_total", "Answers by why they ended.", labels({{"finished_reason", e.reason}}))
      .add();
  metrics_.counter("vllm:prompt_tokens_total", "Tokens of prompts.", labels())
      .add(static_cast<double>(e.prompt_tokens));
  metrics_.counter("vllm:generation_tokens_total", "Tokens of answers.", labels())
      .add(static_cast<double>(e.answer_tokens));
  whole_.observe(e.seconds);
  prompt_.observe(static_cast<double>(e.prompt_tokens));
  answer_.observe(static_cast<double>(e.answer_tokens));
  if (adapter.empty()) return;
  const std::lock_guard lock(mutex_);
  const auto users = adapters_.find(adapter);
  if (users == adapters_.end()) return;
  --(e.had_tokens ? users->second.running : users->second.waiting);
  if (users->second.running + users->second.waiting == 0) adapters_.erase(users);
  adapters_changed_ = now();
}

void ServerMetrics::count_up(const std::string& name, const std::string& help, int64_t total, int64_t& counted) {
  metrics_.counter(name, help, labels()).add(static_cast<double>(total - counted));
  counted = total;
}

// Its labels change, so that it is no series of the registry's.
std::string ServerMetrics::adapters_line() {
  std::vector<std::string> running, waiting;
  for (const auto& [name, users] : adapters_) {  // names are words: nothing to escape
    if (users.running > 0) running.push_back(name);
    if (users.waiting > 0) waiting.push_back(name);
  }
  return fmt::format(
      "# HELP vllm:lora_requests_info Adapters that answer now, and that are waited for.\n"
      "# TYPE vllm:lora_requests_info gauge\n"
      "vllm:lora_requests_info{{max_lora=\"0\",running_lora_adapters=\"{}\",waiting_lora_adapters=\"{}\"}} {:.3f}\n",
      fmt::join(running, ","), fmt::join(waiting, ","), adapters_changed_);
}

std::string ServerMetrics::text(const PassLoop::State& s) {
  const auto set = [&](const char* name, const char* help, double value) {
    metrics_.gauge(name, help, labels()).set(value);
  };
  set("vllm:num_requests_running", "Answers that grow now.", static_cast<double>(s.load.running));
  set("vllm:num_requests_waiting", "Answers that wait for a place.", static_cast<double>(s.load.waiting + s.submitted));
  set("vllm:kv_cache_usage_perc", "Share of the room for keys and values that answers hold; 1 is all.",
      1 - static_cast<double>(s.free_blocks) / static_cast<double>(s.blocks));
  const std::lock_guard lock(mutex_);
  count_up("vllm:num_preemptions_total", "Answers that were put off and computed again.", s.preemptions, preemptions_);
  count_up("vllm:prefix_cache_queries_total", "Tokens of prompts that were looked for in the prefix cache.",
           s.load.prefix_queries, queries_);
  count_up("vllm:prefix_cache_hits_total", "Tokens of prompts that were found there.", s.load.prefix_hits, hits_);
  return metrics_.text() + adapters_line();
}

}  // namespace drover
