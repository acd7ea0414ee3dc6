#include "launch/openai/api_error.h"

namespace drover::openai {

namespace {

constexpr const char *kInvalid = "invalid_request_error", *kServer = "server_error";

OrderedJson text_or_null(const std::string& text) { return text.empty() ? OrderedJson() : OrderedJson(text); }

}  // namespace

OrderedJson ApiError::json() const {
  return {
      {"error", {{"message", what()}, {"type", type}, {"param", text_or_null(param)}, {"code", text_or_null(code)}}}};
}

std::string ApiError::to_body(const OrderedJson& json) {
  return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

ApiError invalid_request(const std::string& param, const std::string& message, const std::string& code) {
  return {400, kInvalid, code, param, message};
}

ApiError unauthorized() {
  return {401, kInvalid, "invalid_api_key", "",
          "the API key is missing or wrong; send it as the header \"Authorization: Bearer KEY\""};
}

ApiError not_found(const std::string& what) {
  return {404, kInvalid, "not_found", "", fmt::format("there is no {}", clipped(what))};
}

ApiError model_not_found(const std::string& model) {
  return {404, kInvalid, "model_not_found", "model",
          fmt::format("there is no model \"{}\"; GET /v1/models lists those that are served", clipped(model))};
}

ApiError method_not_allowed(const std::string& allowed) {
  return {405, kInvalid, "method_not_allowed", "", fmt::format("this path takes {} only", allowed)};
}

ApiError overloaded(const std::string& message) {
  return {429, "rate_limit_error", "rate_limit_exceeded", "", message};
}

ApiError internal_error(const std::string& message) { return {500, kServer, "", "", message}; }

ApiError unavailable(const std::string& message) { return {503, kServer, "unavailable", "", message}; }

ApiError api_error_of(const Error& error, const std::string& param) {
  switch (error.fault()) {
    case Fault::usage:
    case Fault::bad_data:
    case Fault::bad_recipe: return invalid_request(param, error.what());
    case Fault::missing_input: return {404, kInvalid, "not_found", param, error.what()};
    case Fault::rank_hangs:
    case Fault::rank_lost: return unavailable(error.what());
    default: return internal_error(error.what());
  }
}

}  // namespace drover::openai
