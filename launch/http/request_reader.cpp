#include "launch/http/request_reader.h"

#include <fmt/format.h>

#include <boost/beast/core/string.hpp>
#include <boost/beast/http/error.hpp>
#include <cctype>
#include <limits>

namespace drover::http {

namespace beast = boost::beast::http;
using boost::beast::iequals;

RequestReader::RequestReader(const HttpLimits& limits) : limits_(limits) {
  header_limit(static_cast<uint32_t>(std::min<size_t>(limits.header_bytes, std::numeric_limits<uint32_t>::max())));
  body_limit(limits.body_bytes);
  eager(false);
}

size_t RequestReader::take(std::string_view received) {
  const bool in_header = !is_header_done();
  eager(!in_header);
  size_t taken = 0;
  while (taken < received.size() && !is_done()) {
    const std::string_view rest = received.substr(taken);
    Code code;
    const size_t now = put({rest.data(), rest.size()}, code);
    taken += now;
    if (code && code != beast::error::need_more) refuse(code, rest.substr(now));
    if (in_header) {
      // Beast's own limit begins anew behind the fields that it has read.
      header_bytes_ += now;
      const size_t unread = is_header_done() ? 0 : rest.size() - now;
      if (header_bytes_ + unread > limits_.header_bytes) refuse(beast::error::header_limit, {});
      if (is_header_done()) {
        check_header();
        break;
      }
    }
    if (code || now == 0) break;
  }
  return taken;
}

namespace {

// Whether a request line that was not read further than this has the version of another HTTP.
bool has_other_version(std::string_view rest) {
  const std::string_view line = rest.substr(0, rest.find('\r'));
  const size_t at = line.rfind(" HTTP/");
  if (at == std::string_view::npos) return false;
  const std::string_view version = line.substr(at + 6);
  const auto digit = [&](size_t i) {
    return i < version.size() && std::isdigit(static_cast<unsigned char>(version[i]));
  };
  return digit(0) && (version.size() == 1 || (version.size() == 3 && version[1] == '.' && digit(2)));
}

}  // namespace

void RequestReader::refuse(Code code, std::string_view rest) const {
  if (code == beast::error::header_limit) {
    throw Refusal{431, fmt::format("the header is longer than {} bytes", limits_.header_bytes)};
  }
  if (code == beast::error::body_limit) {
    throw Refusal{413, fmt::format("the body is longer than {} bytes", limits_.body_bytes)};
  }
  if (code == beast::error::bad_version && has_other_version(rest)) {
    throw Refusal{505, "only HTTP/1.1 and HTTP/1.0 are spoken here"};
  }
  throw Refusal{400, fmt::format("this is no valid HTTP request: {}", code.message())};
}

void RequestReader::check_header() {
  size_t hosts = 0, encodings = 0, lengths = 0;
  std::string_view encoding, expectation;
  for (const auto& [name, value] : request_.headers) {
    hosts += iequals(name, "Host");
    lengths += iequals(name, "Content-Length");
    if (iequals(name, "Transfer-Encoding")) {
      ++encodings;
      encoding = value;
    }
    if (iequals(name, "Expect")) expectation = value;
  }
  if (hosts > 1 || (hosts == 0 && !http_1_0())) throw Refusal{400, "a request has one Host field"};
  // Who reads a length where another reads an encoding sees other requests than that one.
  if (encodings > 0 && (lengths > 0 || http_1_0())) {
    throw Refusal{400, "a Transfer-Encoding together with a Content-Length, or in HTTP/1.0"};
  }
  if (encodings > 1 || (encodings == 1 && !iequals(encoding, "chunked"))) {
    throw Refusal{501, "the only Transfer-Encoding that is read here is chunked"};
  }
  if (!expectation.empty() && !http_1_0()) {
    if (!iequals(expectation, "100-continue")) throw Refusal{417, "the only expectation that is met is 100-continue"};
    expects_continue_ = true;
  }

  std::string_view target = target_;
  for (const std::string_view scheme : {"http://", "https://"}) {  // the absolute form, as proxies are sent it
    if (!iequals(target.substr(0, scheme.size()), scheme)) continue;
    target.remove_prefix(std::min(target.find_first_of("/?", scheme.size()), target.size()));
  }
  const bool absolute = target.size() < target_.size();
  const size_t question = std::min(target.find('?'), target.size());
  request_.path = target.substr(0, question);
  request_.query = target.substr(std::min(question + 1, target.size()));
  if (absolute && request_.path.empty()) request_.path = "/";
  if (!request_.path.starts_with('/') && !(request_.method == "OPTIONS" && target == "*")) {
    throw Refusal{400, "the target of a request begins with /"};
  }
  head_only_ = request_.method == "HEAD";
  if (head_only_) request_.method = "GET";
}

void RequestReader::on_request_impl(beast::verb, View method, View target, int version, Code&) {
  request_.method = method;
  target_ = target;
  version_ = version;
}

void RequestReader::on_field_impl(Field, View name, View value, Code&) {
  if (!is_header_done()) request_.headers.emplace_back(name, value);
}

size_t RequestReader::on_body_impl(View body, Code&) {
  request_.body.append(body.data(), body.size());
  return body.size();
}

size_t RequestReader::on_chunk_body_impl(uint64_t, View body, Code& code) { return on_body_impl(body, code); }

}  // namespace drover::http
