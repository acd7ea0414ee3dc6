// A server whose handler says what it was asked, at once, unless a test has another one; with limits for tests.
#pragma once
#include <thread>

#include "launch/http/server.h"
#include "tests/http/client.h"

namespace drover {

using namespace std::chrono_literals;

inline HttpResponse text_response(std::string body, unsigned status = 200) {
  return {.status = status, .type = "text/plain", .body = std::move(body), .headers = {}};
}

inline void echo(const HttpRequest& request, const std::shared_ptr<Exchange>& exchange) {
  exchange->answer(text_response(request.method + " " + request.path + " " + request.query + " " + request.body));
}

inline std::string json_error(unsigned status, const std::string& message) {
  return "{\"status\":" + std::to_string(status) + ",\"message\":\"" + message + "\"}";
}

inline HttpLimits quick() {
  return {.header_bytes = 2000,
          .body_bytes = 10000,
          .all_bodies_bytes = 25000,
          .connections = 20,
          .unsent_bytes = 100000,
          .header_time = 2s,
          .idle_time = 300ms,
          .request_time = 600ms,
          .write_time = 200ms};
}

inline HttpServer::Settings at(const char* host, uint16_t port, HttpLimits limits = {}) {
  return {.host = host, .port = port, .limits = limits, .error_body = json_error};
}

inline bool soon(const std::function<bool()>& holds, std::chrono::milliseconds patience = 5s) {
  for (const auto start = Clock::now(); Clock::now() - start < patience; std::this_thread::sleep_for(1ms)) {
    if (holds()) return true;
  }
  return holds();
}

}  // namespace drover
