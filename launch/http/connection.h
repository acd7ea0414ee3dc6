// One client's connection: a coroutine on the I/O thread that reads a request, has it answered, and so on until one
// side is done. For launch/http only: it includes Boost.
#pragma once
#include <array>
#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <unordered_set>

#include "launch/http/answer.h"
#include "launch/http/request_reader.h"
#include "launch/http/response_text.h"

namespace drover::http {

class Connection;

// What the connections of one server share. The I/O thread only, but for the counters.
struct Connections {
  HttpServer::Settings settings;
  HttpHandler handler;
  std::shared_ptr<IoThread> io;
  std::unordered_set<Connection*> open;
  size_t turned_away = 0;  // of the open ones
  bool draining = false;
  size_t bodies_bytes = 0;  // of bodies that are being read
  std::array<char, 64 << 10> scratch;
  std::atomic<uint64_t> running{0}, accepted{0}, requests{0}, refused{0}, now_open{0};
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Clock = std::chrono::steady_clock;

  enum class Welcome : uint8_t { served, turned_away };  // too many are open: 503, and that is all
  Connection(Connections& all, boost::asio::ip::tcp::socket socket, Welcome welcome);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void start();
  void wake();  // it looks again at what it waits for
  void stop();  // ends as soon as it waits

 private:
  template <typename T = void>
  using Task = boost::asio::awaitable<T>;
  struct Ended {};  // thrown: nothing more can or shall be said to the client
  struct Running;

  Task<> run();
  Task<bool> serve_one();  // false: it was the last request
  Task<> read_header(RequestReader& reader);
  Task<> read_body(RequestReader& reader);
  Task<bool> answer(RequestReader& reader);
  Task<bool> write_answer(Answer& answer, Framing framing);
  void hand_over(RequestReader& reader, const std::shared_ptr<Answer>& answer);
  Task<> refuse(Refusal refusal);
  Task<> write(std::string_view text, Answer* of = nullptr);
  Task<> linger();

  Task<bool> wait(Clock::time_point deadline);  // until wake() or then; false: the deadline has passed
  void watch();                                 // has what comes received, with a wake()
  void receive();

  Connections& all_;
  const HttpLimits& limits_;
  boost::asio::ip::tcp::socket socket_;
  boost::asio::steady_timer timer_;
  const Welcome welcome_;
  std::string client_, received_;
  bool watching_ = false, write_waits_ = false;
  bool client_ended_ = false;  // it sends no more
  bool head_only_ = false;     // the request under way is HEAD
  bool stopping_ = false;
};

}  // namespace drover::http
