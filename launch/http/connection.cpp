#include "launch/http/connection.h"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "kernels/base/json.h"
#include "kernels/base/log.h"

namespace drover::http {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

constexpr auto kLinger = std::chrono::seconds(1);
constexpr auto kAsTuple = asio::as_tuple(asio::use_awaitable);

std::string name_of(const asio::ip::tcp::endpoint& client) {
  asio::ip::address address = client.address();
  if (address.is_v6() && address.to_v6().is_v4_mapped()) {
    address = asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6());
  }
  return fmt::format(fmt::runtime(address.is_v6() ? "[{}]:{}" : "{}:{}"), address.to_string(), client.port());
}

}  // namespace

// The header of a request has come, its answer has not been written.
struct Connection::Running {
  explicit Running(Connections& all) : all(all) { ++all.running; }
  ~Running() { --all.running; }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
  Connections& all;
};

Connection::Connection(Connections& all, asio::ip::tcp::socket socket, Welcome welcome)
    : all_(all),
      limits_(all.settings.limits),
      socket_(std::move(socket)),
      timer_(socket_.get_executor()),
      welcome_(welcome) {
  all_.open.insert(this);
  all_.turned_away += welcome_ == Welcome::turned_away;
  ++all_.now_open;
}

Connection::~Connection() {
  all_.open.erase(this);
  all_.turned_away -= welcome_ == Welcome::turned_away;
  --all_.now_open;
}

void Connection::start() {
  client_ = name_of(socket_.remote_endpoint());
  socket_.non_blocking(true);
  socket_.set_option(asio::ip::tcp::no_delay(true));
  asio::co_spawn(
      socket_.get_executor(), [self = shared_from_this()] { return self->run(); }, asio::detached);
}

void Connection::wake() { timer_.cancel(); }

void Connection::stop() {
  stopping_ = true;
  wake();
}

Connection::Task<> Connection::run() {
  try {
    if (welcome_ == Welcome::turned_away) {
      Refusal full{503, "too many connections are open"};
      co_await refuse(std::move(full));
    } else {
      while (co_await serve_one()) continue;
    }
    co_await linger();
  } catch (const Ended&) {
  } catch (const std::exception& problem) {
    log::warn("{}: the connection ends: {}", client_, problem.what());
  }
  error_code ignored;
  socket_.close(ignored);
}

Connection::Task<bool> Connection::serve_one() {
  RequestReader reader(limits_);
  std::optional<Refusal> refusal;
  try {
    head_only_ = false;
    co_await read_header(reader);
    head_only_ = reader.head_only();
    const Running running(all_);
    co_await read_body(reader);
    co_return co_await answer(reader);
  } catch (const Refusal& refused) {
    refusal = refused;
  }
  co_await refuse(*std::move(refusal));
  co_return false;
}

Connection::Task<> Connection::read_header(RequestReader& reader) {
  bool begun = false;
  Clock::time_point deadline = Clock::now() + limits_.idle_time;
  for (;;) {
    if (!begun) {
      received_.erase(0, received_.find_first_not_of("\r\n"));  // empty lines before a request are passed over
      if (received_.empty()) received_.shrink_to_fit();         // there may be many connections that only wait
      begun = !received_.empty();
      if (begun) deadline = Clock::now() + limits_.header_time;
    }
    received_.erase(0, reader.take(received_));
    if (reader.is_header_done()) co_return;
    if (client_ended_ || (all_.draining && !begun)) throw Ended{};
    watch();
    if (co_await wait(deadline)) continue;
    if (!begun) throw Ended{};
    throw Refusal{408, fmt::format("the header did not come within {} ms", limits_.header_time.count())};
  }
}

namespace {

// A body's part of what all connections hold.
class HeldBytes {
 public:
  explicit HeldBytes(Connections& all) : all_(all) {}
  ~HeldBytes() { all_.bodies_bytes -= bytes_; }
  HeldBytes(const HeldBytes&) = delete;
  HeldBytes& operator=(const HeldBytes&) = delete;
  void set(size_t bytes) {
    all_.bodies_bytes += bytes - bytes_;
    bytes_ = bytes;
    if (all_.bodies_bytes > all_.settings.limits.all_bodies_bytes) throw Refusal{503, "too many bodies are being read"};
  }

 private:
  Connections& all_;
  size_t bytes_ = 0;
};

}  // namespace

Connection::Task<> Connection::read_body(RequestReader& reader) {
  if (!reader.is_done() && reader.expects_continue() && received_.empty()) {
    co_await write("HTTP/1.1 100 Continue\r\n\r\n");
  }
  HeldBytes held(all_);
  const Clock::time_point end = Clock::now() + limits_.request_time;
  Clock::time_point deadline = Clock::now() + limits_.idle_time;
  for (;;) {
    const size_t taken = reader.take(received_);
    received_.erase(0, taken);
    held.set(reader.request().body.size());
    if (reader.is_done()) co_return;
    if (client_ended_) throw Ended{};
    if (received_.size() >= all_.scratch.size()) throw Refusal{400, "the framing of a chunk is too long"};
    if (taken > 0) deadline = Clock::now() + limits_.idle_time;
    watch();
    if (!co_await wait(std::min(deadline, end))) throw Refusal{408, "the body did not come in time"};
  }
}

void Connection::hand_over(RequestReader& reader, const std::shared_ptr<Answer>& answer) {
  HttpRequest request = std::move(reader.request());
  request.client = client_;
  ++all_.requests;
  try {
    all_.handler(request, exchange_of(answer));
  } catch (const std::exception& problem) {
    log::warn("{} {}: {}", request.method, clipped(request.path), problem.what());
    answer->abandon();
  } catch (...) {
    log::warn("{} {}: the handler threw what is no exception", request.method, clipped(request.path));
    answer->abandon();
  }
}

Connection::Task<bool> Connection::answer(RequestReader& reader) {
  const auto answer = std::make_shared<Answer>(all_.io, limits_.unsent_bytes, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->wake();
  });
  // However this ends, whoever makes the answer learns that.
  const struct Closing {
    Answer& answer;
    ~Closing() { answer.close(); }
  } closing{*answer};
  Framing framing;
  framing.keep = reader.keep_alive();
  framing.http_1_0 = reader.http_1_0();
  hand_over(reader, answer);
  co_return co_await write_answer(*answer, framing);
}

Connection::Task<bool> Connection::write_answer(Answer& answer, Framing framing) {
  const Clock::time_point deadline = Clock::now() + limits_.request_time;
  bool begun = false, body = false;
  for (;;) {
    Answer::Taken taken = answer.take();
    if (taken.cut) throw Ended{};
    if (taken.failed) throw Refusal{500, "the server failed at this request"};
    std::string text;
    if (taken.head) {
      if (taken.streamed) framing.length = framing.http_1_0 ? Framing::Length::until_close : Framing::Length::chunked;
      body = has_body(taken.head->status) && !head_only_;
      framing.keep &= !all_.draining && (framing.length != Framing::Length::until_close || !body);
      text = head_text(*taken.head, taken.bytes.size(), framing);
      begun = true;
    }
    const bool chunked = framing.length == Framing::Length::chunked;
    if (body && chunked) append_chunk(text, taken.bytes);
    if (body && !chunked) text += taken.bytes;
    if (body && chunked && taken.last) text += kLastChunk;
    co_await write(text, &answer);
    if (taken.last) co_return framing.keep && !all_.draining;
    if (client_ended_) throw Ended{};
    watch();  // and what came to be sent meanwhile wakes this at once
    if (co_await wait(deadline) || !answer.close()) continue;
    if (begun) throw Ended{};
    throw Refusal{504, fmt::format("no answer within {} ms", limits_.request_time.count())};
  }
}

Connection::Task<> Connection::refuse(Refusal refusal) {
  if (refusal.status != 500 && refusal.status != 504) ++all_.refused;
  HttpResponse response{.status = refusal.status, .body = {}, .headers = {}};
  const auto& error_body = all_.settings.error_body;
  if (!error_body) response.type = "text/plain; charset=utf-8";
  response.body = error_body ? error_body(refusal.status, refusal.message) : refusal.message + "\n";
  if (refusal.status == 503) response.headers.emplace_back("Retry-After", "1");
  std::string text = head_text(response, response.body.size(), {.keep = false});
  if (!head_only_) text += response.body;
  co_await write(text);
}

Connection::Task<> Connection::write(std::string_view text, Answer* of) {
  const Clock::time_point end = Clock::now() + limits_.request_time;
  Clock::time_point deadline = Clock::now() + limits_.write_time;
  while (!text.empty()) {
    if (!write_waits_) {
      error_code problem;
      const size_t written = socket_.write_some(asio::buffer(text), problem);
      text.remove_prefix(written);
      if (written > 0) deadline = Clock::now() + limits_.write_time;
      if (of != nullptr) of->wrote(written);
      if (!problem || problem == asio::error::interrupted) continue;
      if (problem != asio::error::would_block) throw Ended{};
      write_waits_ = true;
      socket_.async_wait(asio::ip::tcp::socket::wait_write, [self = shared_from_this()](error_code) {
        self->write_waits_ = false;
        self->wake();
      });
    }
    if (!co_await wait(std::min(deadline, end)) || (of != nullptr && of->cut())) throw Ended{};
  }
}

// A connection that is closed while the client still sends is reset, and what was answered may be lost on its way. So
// the client is listened to for a little longer.
Connection::Task<> Connection::linger() {
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  const Clock::time_point deadline = Clock::now() + kLinger;
  do {
    received_.clear();
    watch();
  } while (!client_ended_ && co_await wait(deadline));
}

Connection::Task<bool> Connection::wait(Clock::time_point deadline) {
  if (stopping_) throw Ended{};
  timer_.expires_at(deadline);
  co_await timer_.async_wait(kAsTuple);
  if (stopping_) throw Ended{};
  co_return Clock::now() < deadline;
}

void Connection::watch() {
  // What is sent ahead of an answer waits in the system from here on.
  const size_t enough = std::max(limits_.header_bytes, all_.scratch.size());
  if (watching_ || client_ended_ || received_.size() > enough) return;
  watching_ = true;
  socket_.async_wait(asio::ip::tcp::socket::wait_read, [self = shared_from_this()](error_code problem) {
    self->watching_ = false;
    if (problem) self->client_ended_ = true;
    if (!problem) self->receive();
    self->wake();
  });
}

void Connection::receive() {
  error_code problem;
  const size_t bytes = socket_.read_some(asio::buffer(all_.scratch), problem);
  received_.append(all_.scratch.data(), bytes);
  if (problem && problem != asio::error::would_block && problem != asio::error::interrupted) client_ended_ = true;
}

}  // namespace drover::http
