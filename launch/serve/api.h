// The routes of a server: from a request to who answers it. Keys and origins are looked at here, for all of them.
#pragma once
#include <optional>

#include "launch/http/api_keys.h"
#include "launch/serve/request_thread.h"
#include "launch/serve/serving.h"

namespace drover {

class Api {
 public:
  Api(Serving& serving, std::optional<ApiKeys> keys);

  void handle(const HttpRequest& request, std::shared_ptr<Exchange> exchange);  // on the I/O thread
  // Calls `then` when the requests that came before are read; false: not now, too many wait.
  bool after_requests(std::function<void()> then) { return thread_.post(std::move(then)); }

 private:
  struct Route;
  static const std::vector<Route>& routes();
  void dispatch(Call call);
  void check_key(const HttpRequest& request) const;
  void check_origin(const HttpRequest& request) const;

  Serving& serving_;
  std::optional<ApiKeys> keys_;
  RequestThread thread_;
};

}  // namespace drover
