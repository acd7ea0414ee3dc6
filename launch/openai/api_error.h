// Errors as OpenAI's API gives them: a status, and {"error": {"message", "type", "param", "code"}}.
#pragma once
#include <stdexcept>
#include <string>

#include "kernels/base/json.h"

namespace drover::openai {

struct ApiError : std::runtime_error {
  ApiError(unsigned status, std::string type, std::string code, std::string param, const std::string& message)
      : std::runtime_error(message),
        status(status),
        type(std::move(type)),
        code(std::move(code)),
        param(std::move(param)) {}

  unsigned status;    // of HTTP
  std::string type;   // OpenAI's kinds: invalid_request_error, rate_limit_error, server_error
  std::string code;   // model_not_found, …; empty: null
  std::string param;  // the field, as in "messages[2].content"; empty: null
  OrderedJson json() const;
  std::string body() const { return to_body(json()); }
  static std::string to_body(const OrderedJson& json);  // what is not UTF-8 becomes U+FFFD
};

ApiError invalid_request(const std::string& param, const std::string& message, const std::string& code = "");  // 400
ApiError unauthorized();                                                                                       // 401
ApiError not_found(const std::string& what);              // 404, of a path or a thing that is no model
ApiError model_not_found(const std::string& model);       // 404
ApiError method_not_allowed(const std::string& allowed);  // 405
ApiError overloaded(const std::string& message);          // 429
ApiError internal_error(const std::string& message);      // 500
ApiError unavailable(const std::string& message);         // 503

// What a client is given for an error of ours: 400 for what it can change (usage, bad_data, bad_recipe), 404 where a
// file is missing, 503 where ranks are lost or hang, 500 for the rest.
ApiError api_error_of(const Error& error, const std::string& param = "");

}  // namespace drover::openai
