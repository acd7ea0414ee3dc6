// A client that sends any bytes: plain sockets, so that requests can be broken.
#pragma once
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/error.h"

namespace drover {

using Clock = std::chrono::steady_clock;

inline double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

struct Reply {
  int status = 0;  // 0: the connection ended before a whole response
  std::string head, body;
  std::vector<std::string> chunks;
  std::string header(const std::string& name) const {
    for (size_t at = head.find("\r\n"); at != std::string::npos; at = head.find("\r\n", at + 2)) {
      const size_t colon = head.find(": ", at);
      if (colon == std::string::npos) break;
      if (strncasecmp(head.c_str() + at + 2, (name + ":").c_str(), name.size() + 1) != 0) continue;
      return head.substr(colon + 2, head.find("\r\n", colon) - colon - 2);
    }
    return "";
  }
};

class Client {
 public:
  enum class Connect : uint8_t { now, later };
  explicit Client(uint16_t port, const char* host = "127.0.0.1", Connect when = Connect::now, int receive_bytes = 0)
      : port_(port), host_(host), v6_(host_.find(':') != std::string::npos) {
    descriptor_ = ::socket(v6_ ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
    if (descriptor_ < 0) fail(Fault::io, "no socket");
    const int on = 1;
    ::setsockopt(descriptor_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (receive_bytes > 0) ::setsockopt(descriptor_, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
    if (when == Connect::now) connect();
  }
  ~Client() { close(); }
  Client(Client&& other) noexcept : descriptor_(other.descriptor_), text_(std::move(other.text_)) {
    other.descriptor_ = -1;
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void connect() {
    sockaddr_in v4{};
    sockaddr_in6 v6{};
    v4.sin_family = AF_INET;
    v6.sin6_family = AF_INET6;
    v4.sin_port = v6.sin6_port = htons(port_);
    ::inet_pton(v6_ ? AF_INET6 : AF_INET, host_.c_str(), v6_ ? static_cast<void*>(&v6.sin6_addr) : &v4.sin_addr);
    const auto* address = v6_ ? reinterpret_cast<sockaddr*>(&v6) : reinterpret_cast<sockaddr*>(&v4);
    if (::connect(descriptor_, address, v6_ ? sizeof v6 : sizeof v4) != 0) fail(Fault::io, "no connection");
  }

  void close() {
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = -1;
  }
  void reset() {  // closes with RST
    const linger at_once{1, 0};
    ::setsockopt(descriptor_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close();
  }
  void half_close() { ::shutdown(descriptor_, SHUT_WR); }

  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }

  // More bytes within `patience`; false: none, or the end.
  bool receive(std::chrono::milliseconds patience = std::chrono::seconds(10)) {
    pollfd readable{descriptor_, POLLIN, 0};
    if (::poll(&readable, 1, static_cast<int>(patience.count())) <= 0) return false;
    char part[65536];
    const ssize_t got = ::recv(descriptor_, part, sizeof part, 0);
    if (got <= 0) ended_ = true;
    if (got > 0) text_.append(part, static_cast<size_t>(got));
    return got > 0;
  }
  bool closed(std::chrono::milliseconds patience = std::chrono::seconds(10)) {  // by the server, without further bytes
    return text_.empty() && !receive(patience) && ended_;
  }
  const std::string& received() const { return text_; }  // and not taken
  std::string rest() {                                   // until the server closes
    while (receive()) continue;
    return std::move(text_);
  }

  // The next response; `head_only` as to a HEAD.
  Reply reply(bool head_only = false) {
    Reply reply;
    if (!fill("\r\n\r\n")) return reply;
    reply.head = cut(text_.find("\r\n\r\n") + 4);
    const int status = std::stoi(reply.head.substr(9, 3));
    if (head_only || status == 100 || status == 204 || status == 304) {
      reply.status = status;
    } else if (const std::string length = reply.header("Content-Length"); !length.empty()) {
      while (text_.size() < std::stoul(length)) {
        if (!receive()) return reply;
      }
      reply.body = cut(std::stoul(length));
      reply.status = status;
    } else if (reply.header("Transfer-Encoding") == "chunked") {
      if (chunks(reply)) reply.status = status;
    } else {
      reply.body = rest();
      reply.status = status;
    }
    return reply;
  }
  Reply ask(std::string_view request) {
    send(request);
    return reply();
  }

 private:
  bool fill(const char* until) {
    while (text_.find(until) == std::string::npos) {
      if (!receive()) return false;
    }
    return true;
  }
  std::string cut(size_t bytes) {
    std::string front = text_.substr(0, bytes);
    text_.erase(0, bytes);
    return front;
  }
  bool chunks(Reply& reply) {
    for (;;) {
      if (!fill("\r\n")) return false;
      const size_t bytes = std::stoul(cut(text_.find("\r\n") + 2), nullptr, 16);
      while (text_.size() < bytes + 2) {
        if (!receive()) return false;
      }
      const std::string chunk = cut(bytes);
      if (cut(2) != "\r\n") return false;
      if (bytes == 0) return true;
      reply.chunks.push_back(chunk);
      reply.body += chunk;
    }
  }

  uint16_t port_ = 0;
  std::string host_;
  bool v6_ = false;
  int descriptor_;
  bool ended_ = false;
  std::string text_;
};

inline std::string get(const std::string& target, const std::string& fields = "") {
  return "GET " + target + " HTTP/1.1\r\nHost: x\r\n" + fields + "\r\n";
}
inline std::string post(const std::string& target, const std::string& body, const std::string& fields = "") {
  return "POST " + target + " HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" + fields +
         "\r\n" + body;
}

}  // namespace drover
