// The bytes of a response as RFC 9112 has them.
#pragma once
#include <string>
#include <string_view>

#include "launch/http/server.h"

namespace drover::http {

// An invariant: a status that ends a request, names and values that are one line each.
void require_valid(const HttpResponse& response);

struct Framing {
  enum class Length : uint8_t { known, chunked, until_close } length = Length::known;
  bool keep = true;       // the connection, after this response
  bool http_1_0 = false;  // the client's version
};

bool has_body(unsigned status);  // 204 and 304 have none

// The status line and the fields; `body_bytes` is sent where the length is known.
std::string head_text(const HttpResponse& response, size_t body_bytes, const Framing& framing);
void append_chunk(std::string& text, std::string_view bytes);  // nothing where `bytes` are none
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

}  // namespace drover::http
