// A server of HTTP/1.1 (RFC 9110, RFC 9112) over plain TCP, on Boost.Asio and the parser of Boost.Beast. It knows
// nothing of models or JSON: a handler gets whole requests and answers them through an Exchange, at once or piece by
// piece.
//
// One thread does all input and output, one coroutine serves one connection. Connections are kept alive; requests that
// were sent ahead are answered one after another, in order. A client of HTTP/1.0 gets what is streamed until the
// connection closes, others get it in chunks. While an answer is being made the connection is read on, so that a client
// that has gone is noticed at once; a client that only closes its sending side counts as gone too.
//
// What the server refuses itself, with a body from `error_body`, and then closes the connection:
//   400  a malformed request; no Host or several; a length together with a transfer encoding
//   408  the header or the body did not come in time      413  a body that is too long
//   417  an expectation other than 100-continue           431  a header that is too long
//   500  the handler threw, or let go of its exchange without an answer
//   501  a transfer encoding other than chunked           503  too many connections, or too many bytes of bodies
//   504  no answer within request_time                    505  another version of HTTP
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace drover {

// Of one connection, unless said otherwise.
struct HttpLimits {
  size_t header_bytes = 16 << 10;       // of the request line and the fields together
  size_t body_bytes = 8 << 20;          // without the framing of chunks
  size_t all_bodies_bytes = 256 << 20;  // of bodies that are being read, over all connections
  size_t connections = 1024;            // open at once, over all clients
  size_t unsent_bytes = 4 << 20;        // of one streamed answer; a reader that lags further behind is cut off
  std::chrono::milliseconds header_time = std::chrono::seconds(10);   // from a header's first byte to its last
  std::chrono::milliseconds idle_time = std::chrono::seconds(60);     // between requests, and between a body's parts
  std::chrono::milliseconds request_time = std::chrono::minutes(10);  // for a body, and then again for the answer
  std::chrono::milliseconds write_time =
      std::chrono::seconds(30);  // a reader that takes nothing for so long is cut off
};

struct HttpRequest {
  std::string method;       // as it was sent, but GET for HEAD, whose answer is sent without its body
  std::string path, query;  // of the target, before and after its first '?'; not decoded. "*" for OPTIONS *
  std::string body;
  std::string client;                                        // "address:port", "[address]:port" for IPv6
  std::vector<std::pair<std::string, std::string>> headers;  // in order, without a body's trailers

  std::string_view header(std::string_view name) const;  // the first of that name in any case; "" where there is none
};

// Content-Length or Transfer-Encoding, Connection and Server are the server's own.
struct HttpResponse {
  unsigned status = 200;
  std::string type = "application/json";  // "": no Content-Type
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
};

// The answer to one request: either answer(), or begin(), send()…, end(). Any thread may call. It may outlive its
// connection and its server: then calls do nothing. Calls in another order, and headers with line ends in them, break
// an invariant (Fault::internal).
class Exchange {
 public:
  virtual ~Exchange() = default;  // without a complete answer: 500 where nothing was begun, else the connection closes
  virtual void answer(HttpResponse response) = 0;
  virtual void begin(HttpResponse head) = 0;  // head.body is the first part
  virtual void send(std::string part) = 0;
  virtual void end() = 0;
  // `then` is called once, on the I/O thread, when nobody will read the rest: the client has gone or lagged too far
  // behind, the request took longer than request_time, or the server ends. After a complete answer it is not called.
  // Where that has happened already it is posted; where the server has ended it is called here. At most one per
  // exchange.
  virtual void when_gone(std::function<void()> then) = 0;
};

// On the I/O thread, which serves nobody else meanwhile. What it throws is logged and is a 500.
using HttpHandler = std::function<void(const HttpRequest&, std::shared_ptr<Exchange>)>;

class HttpServer {
 public:
  struct Settings {
    std::string host = "127.0.0.1";  // an address of this machine, or localhost, which is 127.0.0.1
    uint16_t port = 8000;            // 0: any that is free
    HttpLimits limits;
    // Bodies (application/json) of what the server refuses itself; none: the message as plain text. On the I/O thread.
    std::function<std::string(unsigned status, const std::string& message)> error_body;
  };

  // Binds, listens and starts the I/O thread. io where the port cannot be had, usage where host is no address of this
  // machine.
  HttpServer(Settings settings, HttpHandler handler);
  ~HttpServer();  // ends all connections and joins the thread; not from the I/O thread
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  uint16_t port() const;

  // From now on no connection is accepted, and connections close: idle ones at once, others after the answer to the
  // request that runs. Any thread.
  void drain();
  bool idle() const;  // no request runs: none whose header has come is without its whole answer. Any thread

  struct Counts {
    uint64_t connections = 0;  // accepted, with those that were turned away
    uint64_t requests = 0;     // that reached the handler
    uint64_t refused = 0;      // connections and requests that never did
    uint64_t open = 0;         // connections, now
  };
  Counts counts() const;  // since the start. Any thread

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace drover
