// One request, read from a connection's bytes as they come. Beast's parser says where things begin and end; what it
// lets pass and RFC 9112 does not is refused here. For launch/http only: it includes Boost.
#pragma once
#include <boost/beast/http/basic_parser.hpp>

#include "launch/http/server.h"

namespace drover::http {

// Why a request is not answered by the handler.
struct Refusal {
  unsigned status;
  std::string message;
};

class RequestReader final : public boost::beast::http::basic_parser<true> {
 public:
  explicit RequestReader(const HttpLimits& limits);

  // Reads on from `received` and says how many bytes it has taken: it stops behind the header, behind the request, and
  // where more has to come first. Throws Refusal.
  size_t take(std::string_view received);

  using basic_parser::is_done;
  using basic_parser::is_header_done;
  using basic_parser::keep_alive;
  bool http_1_0() const { return version_ == 10; }
  bool head_only() const { return head_only_; }  // HEAD
  bool expects_continue() const { return expects_continue_; }
  HttpRequest& request() { return request_; }  // without client

 private:
  using Code = boost::beast::error_code;
  using View = boost::beast::string_view;
  using Field = boost::beast::http::field;
  void check_header();
  [[noreturn]] void refuse(Code code, std::string_view rest) const;

  void on_request_impl(boost::beast::http::verb, View method, View target, int version, Code&) override;
  void on_response_impl(int, View, int, Code&) override {}
  void on_field_impl(Field, View name, View value, Code&) override;
  void on_header_impl(Code&) override {}
  void on_body_init_impl(const boost::optional<uint64_t>&, Code&) override {}
  size_t on_body_impl(View body, Code&) override;
  void on_chunk_header_impl(uint64_t, View, Code&) override {}
  size_t on_chunk_body_impl(uint64_t, View body, Code&) override;
  void on_finish_impl(Code&) override {}

  const HttpLimits& limits_;
  HttpRequest request_;
  std::string target_;
  size_t header_bytes_ = 0;
  int version_ = 11;
  bool head_only_ = false, expects_continue_ = false;
};

}  // namespace drover::http
