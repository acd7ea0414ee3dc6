// The server as a whole: its address, its file descriptors, how it drains and ends.
#include "launch/http/server.h"

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <ctime>
#include <filesystem>

#include "kernels/base/error.h"
#include "tests/http/echo.h"

namespace drover {
namespace {

size_t descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(all), end(all)));
}

Error refusal(const char* host, uint16_t port) {
  try {
    const HttpServer server(at(host, port), echo);
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << host << " was taken";
  return {Fault::internal, ""};
}

TEST(Server, AddressesThatCannotBeHad) {
  const HttpServer server(at("127.0.0.1", 0), echo);
  const Error in_use = refusal("127.0.0.1", server.port());
  EXPECT_EQ(in_use.fault(), Fault::io);
  EXPECT_THAT(in_use.what(), testing::HasSubstr("127.0.0.1 port " + std::to_string(server.port()) + " is in use"));
  for (const char* host : {"192.0.2.1", "example.com", "", "300.1.1.1", "2001:db8::1"}) {
    EXPECT_EQ(refusal(host, 0).fault(), Fault::usage) << host;
  }
}

TEST(Server, TheSamePortAgainAtOnce) {
  uint16_t port = 0;
  for (int i = 0; i < 5; ++i) {
    const HttpServer server(at("127.0.0.1", port), echo);
    port = server.port();
    EXPECT_EQ(Client(port).ask(get("/")).status, 200);
  }
}

TEST(Server, AThousandConnectionsLeaveNoDescriptor) {
  const size_t before = descriptors();
  {
    HttpServer server(at("127.0.0.1", 0), echo);
    const size_t listening = descriptors();
    for (int i = 0; i < 1000; ++i) {
      Client client(server.port());
      if (i % 4 == 0) {
        EXPECT_EQ(client.ask(get("/")).status, 200);
      }
      if (i % 4 == 1) client.send("GET /");
      if (i % 4 == 2) client.send(get("/")), client.reset();
    }
    EXPECT_TRUE(soon([&] { return server.counts().connections == 1000 && server.counts().open == 0; }));
    EXPECT_TRUE(soon([&] { return descriptors() == listening; })) << descriptors() - listening;
  }
  EXPECT_EQ(descriptors(), before);
}

TEST(Server, WithoutDescriptorsItWaits) {
  HttpServer server(at("127.0.0.1", 0), echo);
  Client early(server.port());
  EXPECT_EQ(early.ask(get("/")).status, 200);
  Client client(server.port(), "127.0.0.1", Client::Connect::later);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{.rlim_cur = 3, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  client.connect();
  client.send(get("/"));
  const std::clock_t busy = std::clock();
  const bool answered = client.receive(300ms);
  const double busy_ms = 1000.0 * static_cast<double>(std::clock() - busy) / CLOCKS_PER_SEC;
  const Reply others = early.ask(get("/others"));
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_FALSE(answered);
  EXPECT_LT(busy_ms, 100);  // it did not try all the time
  EXPECT_EQ(others.body, "GET /others  ");
  EXPECT_EQ(client.reply().status, 200);
}

TEST(Server, Drains) {
  std::shared_ptr<Exchange> running;
  std::atomic<bool> handled{false};
  HttpServer server(at("127.0.0.1", 0), [&](const HttpRequest& request, std::shared_ptr<Exchange> exchange) {
    if (request.path != "/long") return echo(request, exchange);
    running = std::move(exchange);
    handled = true;
  });
  Client idle(server.port()), busy(server.port()), reading(server.port());
  EXPECT_EQ(idle.ask(get("/")).status, 200);
  busy.send(get("/long"));
  EXPECT_TRUE(soon([&] { return handled.load(); }));
  reading.send("GET /read");
  EXPECT_TRUE(soon([&] { return server.counts().open == 3; }));
  std::this_thread::sleep_for(20ms);
  server.drain();
  EXPECT_TRUE(idle.closed());
  EXPECT_THROW(Client another(server.port()), Error);
  EXPECT_FALSE(server.idle());
  const Reply read = reading.ask(" HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(read.body, "GET /read  ");
  EXPECT_EQ(read.header("Connection"), "close");
  running->answer(text_response("done"));
  const Reply done = busy.reply();
  EXPECT_EQ(done.body, "done");
  EXPECT_EQ(done.header("Connection"), "close");
  EXPECT_TRUE(soon([&] { return server.idle(); }));
}

TEST(Server, EndsWhileClientsSend) {
  for (int i = 0; i < 10; ++i) {
    std::atomic<bool> ending{false};
    std::vector<std::thread> clients;
    {
      HttpServer server(at("127.0.0.1", 0), echo);
      for (int c = 0; c < 3; ++c) {
        clients.emplace_back([&, port = server.port()] {
          try {
            while (!ending) {
              Client client(port);
              for (int n = 0; n < 20 && client.ask(post("/", "x")).status == 200; ++n) continue;
            }
          } catch (const Error&) {  // it accepts no more
          }
        });
      }
      std::this_thread::sleep_for(5ms);
    }
    ending = true;
    for (std::thread& client : clients) client.join();
  }
}

}  // namespace
}  // namespace drover
