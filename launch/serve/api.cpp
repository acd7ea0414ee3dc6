#include "launch/serve/api.h"

#include <arpa/inet.h>

#include <algorithm>
#include <variant>

#include "kernels/base/log.h"
#include "launch/openai/api_error.h"
#include "launch/serve/adapter_routes.h"
#include "launch/serve/answer_routes.h"
#include "launch/serve/page.h"
#include "launch/serve/plain_routes.h"

namespace drover {

using openai::ApiError;

// Who answers: at once, or whenever it is ready.
struct Api::Route {
  using Plain = HttpResponse (*)(Serving&, const HttpRequest&);
  using Later = void (*)(Serving&, Call);
  std::string method, path;  // a path that ends in /, but for the page's, has one more word behind it
  std::variant<Plain, Later> answer;
  bool reads_body = false;  // on the request thread
  bool open = false;        // without a key
};

const std::vector<Api::Route>& Api::routes() {
  static const std::vector<Route> all{
      {.method = "GET",
       .path = "/",
       .answer = +[](Serving&, const HttpRequest&) { return page_response(); },
       .open = true},
      {.method = "GET", .path = "/health", .answer = health, .open = true},
      {.method = "GET", .path = "/metrics", .answer = metrics},
      {.method = "GET", .path = "/version", .answer = version},
      {.method = "GET", .path = "/tokenizer_info", .answer = tokenizer_info},
      {.method = "GET", .path = "/openapi.json", .answer = openapi},
      {.method = "GET", .path = "/v1/models", .answer = list_models},
      {.method = "GET", .path = "/v1/models/", .answer = one_model},
      {.method = "POST", .path = "/v1/chat/completions", .answer = answer_chat, .reads_body = true},
      {.method = "POST", .path = "/v1/completions", .answer = answer_completion, .reads_body = true},
      {.method = "POST", .path = "/tokenize", .answer = tokenize, .reads_body = true},
      {.method = "POST", .path = "/detokenize", .answer = detokenize, .reads_body = true},
      {.method = "POST", .path = "/v1/load_lora_adapter", .answer = load_adapter_route, .reads_body = true},
      {.method = "POST", .path = "/v1/unload_lora_adapter", .answer = unload_adapter, .reads_body = true},
  };
  return all;
}

namespace {

HttpResponse response_of(const ApiError& error) {
  HttpResponse response{.status = error.status, .body = error.body()};
  if (error.status == 429 || error.status == 503) response.headers.emplace_back("Retry-After", "1");
  if (error.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

// What `work` throws becomes the call's answer.
template <typename Work>
void answer_errors(const Call& call, Work&& work) {
  try {
    work();
  } catch (const ApiError& error) {
    reply(call, response_of(error));
  } catch (const Error& error) {
    reply(call, response_of(openai::api_error_of(error)));
  } catch (const std::exception& error) {
    log::warn("{} {}: {}", call.request.method, call.request.path, error.what());
    reply(call, response_of(openai::internal_error("an internal error; the server's log has more")));
  }
}

bool leads(const std::string& route, const std::string& path) {
  if (route == "/" || !route.ends_with('/')) return route == path;
  return path.starts_with(route) && path.size() > route.size() && path.find('/', route.size()) == path.npos;
}

}  // namespace

void log_call(const Call& call, const std::string& outcome, const std::string& more) {
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - call.begin).count();
  if (call.request.path == "/health" || call.request.path == "/metrics") return;  // asked for every few seconds
  log::info("{} {} {} {} in {:.3f} s{}", call.request.client, call.request.method, clipped(call.request.path), outcome,
            seconds, more);
}

void reply(const Call& call, HttpResponse response) {
  log_call(call, std::to_string(response.status));
  response.headers.insert(response.headers.end(), call.headers.begin(), call.headers.end());
  call.exchange->answer(std::move(response));
}

Api::Api(Serving& serving, std::optional<ApiKeys> keys)
    : serving_(serving),
      keys_(std::move(keys)),
      thread_(static_cast<size_t>(serving.settings.queue), serving.settings.limits.all_bodies_bytes) {}

void Api::check_key(const HttpRequest& request) const {
  if (!keys_ || keys_->allows(request.header("Authorization")) || keys_->allows_key(request.header("x-api-key")))
    return;
  throw openai::unauthorized();
}

namespace {

// Whether a Host header has an address, or localhost: names that nobody else can have pointed here.
bool is_address(std::string_view host) {
  const size_t colon = host.rfind(':');
  std::string name(host.substr(0, host.ends_with(']') ? host.npos : colon));
  if (name.starts_with('[') && name.ends_with(']')) name = name.substr(1, name.size() - 2);
  in6_addr bytes;
  return name == "localhost" || inet_pton(AF_INET, name.c_str(), &bytes) == 1 ||
         inet_pton(AF_INET6, name.c_str(), &bytes) == 1;
}

}  // namespace

// A page of another origin that a browser shows must not ask in its user's name; programs send no Origin. Without keys
// a page of the same origin may not either, where the host is a name: its owner could have it point here.
void Api::check_origin(const HttpRequest& request) const {
  const std::string_view origin = request.header("Origin"), host = request.header("Host");
  const std::string& allowed = serving_.settings.cors;
  if (origin.empty() || allowed == "*" || origin == allowed) return;
  const bool same = origin == fmt::format("http://{}", host) || origin == fmt::format("https://{}", host);
  if (same && (keys_ || is_address(host))) return;
  throw openai::ApiError(403, "invalid_request_error", "", "",
                         fmt::format("pages of {} may not ask this server; it would have to be started with --cors {}",
                                     clipped(origin), clipped(origin)));
}

void Api::handle(const HttpRequest& request, std::shared_ptr<Exchange> exchange) {
  Call call{request, std::move(exchange)};
  const std::string& origin = serving_.settings.cors;
  if (!origin.empty()) call.headers = {{"Access-Control-Allow-Origin", origin}, {"Vary", "Origin"}};
  answer_errors(call, [&] { dispatch(call); });
}

void Api::dispatch(Call call) {
  const HttpRequest& request = call.request;
  std::string allowed;
  const Route* route = nullptr;
  for (const Route& r : routes()) {
    if (!leads(r.path, request.path)) continue;
    allowed += (allowed.empty() ? "" : ", ") + r.method;
    if (r.method == request.method) route = &r;
  }
  if (!allowed.empty() && request.method == "OPTIONS") {
    HttpResponse options{.status = 204, .type = "", .headers = {{"Allow", allowed + ", OPTIONS"}}};
    if (!call.headers.empty()) {
      options.headers.emplace_back("Access-Control-Allow-Methods", allowed + ", OPTIONS");
      options.headers.emplace_back("Access-Control-Allow-Headers", "Authorization, Content-Type, x-api-key");
      options.headers.emplace_back("Access-Control-Max-Age", "600");
    }
    return reply(call, std::move(options));
  }
  check_origin(request);
  if (route == nullptr || !route->open) check_key(request);
  if (allowed.empty()) throw openai::not_found(clipped(request.path));
  if (route == nullptr) {
    HttpResponse response = response_of(openai::method_not_allowed(allowed));
    response.headers.emplace_back("Allow", allowed + ", OPTIONS");
    return reply(call, std::move(response));
  }
  const auto answer = [this, route](const Call& c) {
    if (const auto* plain = std::get_if<Route::Plain>(&route->answer)) {
      reply(c, (*plain)(serving_, c.request));
    } else {
      std::get<Route::Later>(route->answer)(serving_, c);
    }
  };
  if (!route->reads_body) return answer(call);
  if (Serving::draining()) throw openai::unavailable("the server is being shut down; ask another one");
  if (!thread_.post([call, answer] { answer_errors(call, [&] { answer(call); }); }, request.body.size())) {
    throw openai::overloaded("too many requests wait; try again in a moment");
  }
}

}  // namespace drover
