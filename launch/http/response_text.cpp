#include "launch/http/response_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/beast/http/status.hpp>
#include <iterator>

#include "kernels/base/require.h"

namespace drover::http {
namespace {

bool one_line(std::string_view text) {
  return std::none_of(text.begin(), text.end(), [](char c) { return c == '\r' || c == '\n' || c == '\0'; });
}

bool is_name(std::string_view text) {
  return !text.empty() && text.find_first_of(" \t:") == std::string_view::npos && one_line(text);
}

}  // namespace

void require_valid(const HttpResponse& response) {
  require(response.status >= 200 && response.status <= 599, "the status of a response is not 200 to 599");
  require(one_line(response.type), "the type of a response has line ends");
  for (const auto& [name, value] : response.headers) {
    require(is_name(name) && one_line(value), "a header of a response is not one line");
  }
}

bool has_body(unsigned status) { return status != 204 && status != 304; }

std::string head_text(const HttpResponse& response, size_t body_bytes, const Framing& framing) {
  namespace beast = boost::beast::http;
  const std::string_view reason = beast::obsolete_reason(beast::int_to_status(response.status));
  std::string text = fmt::format("HTTP/1.1 {} {}\r\nServer: drover\r\n", response.status, reason);
  const auto out = std::back_inserter(text);
  if (!response.type.empty() && has_body(response.status)) fmt::format_to(out, "Content-Type: {}\r\n", response.type);
  if (has_body(response.status)) {
    switch (framing.length) {
      case Framing::Length::known: fmt::format_to(out, "Content-Length: {}\r\n", body_bytes); break;
      case Framing::Length::chunked: text += "Transfer-Encoding: chunked\r\n"; break;
      case Framing::Length::until_close: break;
    }
  }
  if (!framing.keep) text += "Connection: close\r\n";
  if (framing.keep && framing.http_1_0) text += "Connection: keep-alive\r\n";
  for (const auto& [name, value] : response.headers) fmt::format_to(out, "{}: {}\r\n", name, value);
  return text += "\r\n";
}

void append_chunk(std::string& text, std::string_view bytes) {
  if (bytes.empty()) return;
  fmt::format_to(std::back_inserter(text), "{:x}\r\n", bytes.size());
  text += bytes;
  text += "\r\n";
}

}  // namespace drover::http
