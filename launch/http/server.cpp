#include "launch/http/server.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/string.hpp>
#include <csignal>
#include <thread>

#include "kernels/base/error.h"
#include "kernels/base/json.h"
#include "kernels/base/log.h"
#include "launch/http/connection.h"

namespace drover {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr size_t kTurnedAway = 64;                                   // at once; further ones are closed without a word
constexpr auto kWithoutDescriptors = std::chrono::milliseconds(50);  // before accepting is tried again

tcp::endpoint endpoint_of(const HttpServer::Settings& settings) {
  error_code problem;
  const asio::ip::address address =
      asio::ip::make_address(settings.host == "localhost" ? "127.0.0.1" : settings.host, problem);
  if (problem) {
    fail(Fault::usage, "the host \"{}\" is no address: give one of this machine's, as 127.0.0.1, ::1 or 0.0.0.0",
         clipped(settings.host));
  }
  return {address, settings.port};
}

void listen(tcp::acceptor& acceptor, const HttpServer::Settings& settings) {
  const tcp::endpoint endpoint = endpoint_of(settings);
  error_code problem;
  acceptor.open(endpoint.protocol(), problem);
  if (!problem) acceptor.set_option(tcp::acceptor::reuse_address(true), problem);
  if (!problem) acceptor.bind(endpoint, problem);
  if (problem == asio::error::address_in_use) {
    fail(Fault::io, "{} port {} is in use: end the program that listens there, or choose another port", settings.host,
         settings.port);
  }
  if (problem == std::errc::address_not_available) {
    fail(Fault::usage, "{} is no address of this machine: give one that is, as 127.0.0.1, or 0.0.0.0 for all of them",
         settings.host);
  }
  if (!problem) acceptor.listen(tcp::acceptor::max_listen_connections, problem);
  if (problem) fail(Fault::io, "cannot listen at {} port {}: {}", settings.host, settings.port, problem.message());
}

}  // namespace

std::string_view HttpRequest::header(std::string_view name) const {
  for (const auto& [known, value] : headers) {
    if (boost::beast::iequals(known, name)) return value;
  }
  return {};
}

struct HttpServer::Impl {
  asio::io_context io{1};
  asio::executor_work_guard<asio::io_context::executor_type> work{io.get_executor()};
  tcp::acceptor acceptor{io};
  asio::steady_timer pause{io};
  http::Connections connections;
  uint16_t port = 0;
  std::thread thread;

  asio::awaitable<void> accept_all();
  void welcome(tcp::socket socket);
  void drain();
  void run();
};

void HttpServer::Impl::run() {
  for (;;) {
    try {
      io.run();
      return;
    } catch (const std::exception& problem) {
      log::warn("in the I/O thread: {}", problem.what());
    } catch (...) {
      log::warn("in the I/O thread: what is no exception");
    }
  }
}

asio::awaitable<void> HttpServer::Impl::accept_all() {
  constexpr auto as_tuple = asio::as_tuple(asio::use_awaitable);
  while (acceptor.is_open()) {
    auto [problem, socket] = co_await acceptor.async_accept(as_tuple);
    if (!problem) {
      try {
        welcome(std::move(socket));
      } catch (const std::exception&) {  // it is reset already, or memory is short
      }
    } else if (acceptor.is_open() && problem != asio::error::connection_aborted) {
      pause.expires_after(kWithoutDescriptors);
      co_await pause.async_wait(as_tuple);
    }
  }
}

void HttpServer::Impl::welcome(tcp::socket socket) {
  ++connections.accepted;
  const bool full = connections.open.size() - connections.turned_away >= connections.settings.limits.connections;
  if (full && connections.turned_away >= kTurnedAway) {
    ++connections.refused;
    return;
  }
  const auto how = full ? http::Connection::Welcome::turned_away : http::Connection::Welcome::served;
  std::make_shared<http::Connection>(connections, std::move(socket), how)->start();
}

void HttpServer::Impl::drain() {
  connections.draining = true;
  error_code ignored;
  acceptor.close(ignored);
  pause.cancel();
  for (http::Connection* connection : connections.open) connection->wake();
}

HttpServer::HttpServer(Settings settings, HttpHandler handler) : impl_(std::make_unique<Impl>()) {
  listen(impl_->acceptor, settings);
  impl_->port = impl_->acceptor.local_endpoint().port();
  impl_->connections.settings = std::move(settings);
  impl_->connections.handler = std::move(handler);
  impl_->connections.io = std::make_shared<http::IoThread>(
      [&io = impl_->io](http::IoThread::Work work) { asio::post(io, std::move(work)); });
  asio::co_spawn(impl_->io, impl_->accept_all(), asio::detached);
  // Signals are for the threads of the program.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  impl_->thread = std::thread([impl = impl_.get()] { impl->run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

HttpServer::~HttpServer() {
  asio::post(impl_->io, [impl = impl_.get()] {
    impl->drain();
    for (http::Connection* connection : impl->connections.open) connection->stop();
    impl->work.reset();
  });
  impl_->thread.join();
  impl_->connections.io->end();
  // What was posted in between, as the call of a when_gone.
  impl_->io.restart();
  impl_->run();
}

uint16_t HttpServer::port() const { return impl_->port; }

void HttpServer::drain() {
  asio::post(impl_->io, [impl = impl_.get()] { impl->drain(); });
}

bool HttpServer::idle() const { return impl_->connections.running == 0; }

HttpServer::Counts HttpServer::counts() const {
  const http::Connections& all = impl_->connections;
  return {.connections = all.accepted, .requests = all.requests, .refused = all.refused, .open = all.now_open};
}

}  // namespace drover
