// What `drover serve` is asked for on its command line.
#pragma once
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "configs/recipe.h"
#include "launch/http/server.h"

namespace drover {

struct ServeSettings {
  Recipe recipe;     // model.path, model.tokenizer, device, train.dtype, parallel, data.template
  std::string name;  // the base's id
  std::vector<std::pair<std::string, fs::path>> adapters;
  std::string host = "127.0.0.1";
  uint16_t port = 8000;
  HttpLimits limits;
  std::optional<fs::path> api_keys;
  std::string cors;         // an origin, or empty: no other page may ask
  int64_t kv_bytes = 0;     // 0: kAutomaticKvShare of what is free
  int64_t sequences = 64;   // answered at once
  int64_t queue = 256;      // requests that wait, at most
  int64_t max_context = 0;  // tokens of prompt and answer; 0: the model's positions
  int64_t pass_tokens = 512;
  bool adapter_changes = false;
  std::optional<fs::path> adapter_root;
  std::optional<std::pair<std::string, fs::path>> follow;  // a run whose checkpoints' adapters are served as they come
  int64_t max_adapter_rank = 64;                           // of adapters that are loaded later
  bool log_prompts = false;
  int64_t most_answers = 16, most_stops = 16;  // of one request: n, stop

  static constexpr double kAutomaticKvShare = 0.8;
  // Adapters may come while it serves.
  bool loads_adapters() const { return adapter_changes || follow; }
};

}  // namespace drover
