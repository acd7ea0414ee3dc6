// What the routes of a server share, and one request on its way through them.
#pragma once
#include <chrono>
#include <memory>

#include "launch/grammar/grammars.h"
#include "launch/http/server.h"
#include "launch/openai/requests.h"
#include "launch/serve/pass_loop.h"
#include "launch/serve/served_models.h"
#include "launch/serve/settings.h"
#include "trainer/run/stop_signal.h"

namespace drover {

class ServerMetrics;

struct Serving {
  const ServeSettings& settings;
  const ModelConfig& config;
  const Tokenizer& tokenizer;
  ServedModels& models;
  PassLoop& loop;
  ServerMetrics& metrics;
  Grammars& grammars;
  openai::RequestDefaults defaults;
  int64_t context = 0;  // tokens that prompt and answer may have together
  // A stop was asked for: what was taken is answered, and nothing else is taken.
  static bool draining() { return stop_requested() != StopReason::none; }
};

struct Call {
  HttpRequest request;
  std::shared_ptr<Exchange> exchange;
  std::vector<std::pair<std::string, std::string>> headers = {};  // of its answer, besides the answer's own
  std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();
};

// One line for a call that has its answer: "127.0.0.1:5012 POST /v1/models 200 in 0.001 s" and what `more` says.
void log_call(const Call& call, const std::string& outcome, const std::string& more = "");
// Answers with a whole body, and logs the call.
void reply(const Call& call, HttpResponse response);

}  // namespace drover
