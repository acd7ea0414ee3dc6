// How answers are given: from other threads, in parts, to nobody any more, to slow readers, wrongly, never.
#include <gmock/gmock.h>

#include <atomic>
#include <mutex>

#include "kernels/base/error.h"
#include "tests/http/echo.h"

namespace drover {
namespace {

using Given = std::shared_ptr<Exchange>;

class Answers : public testing::Test {
 protected:
  // Hands requests over to the test.
  HttpHandler keep() {
    return [this](const HttpRequest&, Given exchange) {
      const std::lock_guard lock(mutex);
      exchanges.push_back(std::move(exchange));
    };
  }
  Given next() {
    Given exchange;
    EXPECT_TRUE(soon([&] {
      const std::lock_guard lock(mutex);
      if (!exchanges.empty()) exchange = std::move(exchanges.front()), exchanges.erase(exchanges.begin());
      return exchange != nullptr;
    }));
    return exchange;
  }
  std::mutex mutex;
  std::vector<Given> exchanges;
  HttpServer server{at("127.0.0.1", 0, quick()), keep()};
  Client client{server.port()};
};

TEST_F(Answers, FromAnotherThread) {
  for (int i = 0; i < 50; ++i) {
    client.send(get("/"));
    std::thread([exchange = next(), i] { exchange->answer(text_response(std::to_string(i), 201)); }).join();
    const Reply reply = client.reply();
    EXPECT_EQ(reply.status, 201);
    EXPECT_EQ(reply.body, std::to_string(i));
  }
}

TEST_F(Answers, OneRequestAtATime) {
  client.send(get("/1") + get("/2"));
  const Given first = next();
  std::this_thread::sleep_for(20ms);
  EXPECT_EQ(server.counts().requests, 1);
  EXPECT_FALSE(server.idle());
  first->answer(text_response("first"));
  next()->answer(text_response("second"));
  EXPECT_EQ(client.reply().body, "first");
  EXPECT_EQ(client.reply().body, "second");
  EXPECT_TRUE(soon([&] { return server.idle(); }));
}

TEST_F(Answers, InPartsAsTheyCome) {
  client.send(get("/"));
  const Given exchange = next();
  exchange->begin({.type = "text/event-stream", .body = "start;", .headers = {{"X-More", "yes"}}});
  for (int i = 0; i < 20; ++i) {
    const std::string part = std::to_string(i) + ";";
    exchange->send(part);
    while (client.received().find(part + "\r\n") == std::string::npos) ASSERT_TRUE(client.receive()) << i;
  }
  exchange->end();
  const Reply reply = client.reply();
  EXPECT_EQ(reply.header("Content-Type"), "text/event-stream");
  EXPECT_EQ(reply.header("X-More"), "yes");
  EXPECT_EQ(reply.header("Content-Length"), "");
  EXPECT_EQ(reply.body, "start;0;1;2;3;4;5;6;7;8;9;10;11;12;13;14;15;16;17;18;19;");
  client.send(get("/"));
  next()->answer(text_response("kept"));
  EXPECT_EQ(client.reply().body, "kept");
}

TEST_F(Answers, ManyPartsAreGatheredAndNoneIsLost) {
  client.send(get("/"));
  const Given exchange = next();
  exchange->begin(text_response(""));
  std::string all;
  for (int i = 0; i < 10000; ++i) {
    all += std::to_string(i) + " ";
    exchange->send(std::to_string(i) + " ");
  }
  exchange->end();
  const Reply reply = client.reply();
  EXPECT_EQ(reply.body, all);
  EXPECT_LT(reply.chunks.size(), 10000);
}

TEST_F(Answers, StreamToAnOldClientUntilTheEnd) {
  client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const Given exchange = next();
  exchange->begin(text_response("a"));
  exchange->send("b");
  exchange->end();
  const Reply reply = client.reply();
  EXPECT_EQ(reply.header("Transfer-Encoding"), "");
  EXPECT_EQ(reply.header("Connection"), "close");
  EXPECT_EQ(reply.body, "ab");
}

TEST_F(Answers, WithoutABody) {
  client.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
  Given exchange = next();
  exchange->begin(text_response("a"));
  exchange->send("b");
  exchange->end();
  EXPECT_EQ(client.reply(true).status, 200);
  client.send(get("/"));
  next()->answer(text_response("dropped", 204));
  const Reply reply = client.reply();
  EXPECT_EQ(reply.status, 204);
  EXPECT_EQ(reply.header("Content-Length"), "");
  client.send(get("/"));
  next()->answer(text_response("next"));
  EXPECT_EQ(client.reply().body, "next");
}

TEST_F(Answers, AClientThatHasGoneIsNoticed) {
  for (const bool by_reset : {false, true}) {
    for (const bool streaming : {false, true}) {
      Client leaving(server.port());
      leaving.send(get("/"));
      const Given exchange = next();
      std::atomic<bool> gone{false};
      exchange->when_gone([&] { gone = true; });
      if (streaming) exchange->begin(text_response("a"));
      std::this_thread::sleep_for(20ms);
      EXPECT_FALSE(gone);
      const auto start = Clock::now();
      by_reset ? leaving.reset() : leaving.close();
      EXPECT_TRUE(soon([&] { return gone.load(); }, 100ms)) << ms_since(start);
      if (!streaming) exchange->begin(text_response("a"));
      exchange->send("to nobody");
      exchange->end();
    }
  }
  EXPECT_TRUE(soon([&] { return server.idle(); }));
}

TEST_F(Answers, AClientThatHasSentAheadAndGoneIsNoticed) {
  Client leaving(server.port());
  leaving.send(get("/1") + get("/2") + "GET /3");
  const Given exchange = next();
  std::atomic<bool> gone{false};
  exchange->when_gone([&] { gone = true; });
  std::this_thread::sleep_for(20ms);
  EXPECT_FALSE(gone);
  leaving.close();
  EXPECT_TRUE(soon([&] { return gone.load(); }, 100ms));
}

TEST_F(Answers, WhenGoneComesTooLate) {
  Client leaving(server.port());
  leaving.send(get("/"));
  Given exchange = next();
  leaving.close();
  EXPECT_TRUE(soon([&] { return server.counts().open == 1; }));
  std::atomic<bool> gone{false};
  exchange->when_gone([&] { gone = true; });
  EXPECT_TRUE(soon([&] { return gone.load(); }));

  client.send(get("/"));
  exchange = next();
  exchange->when_gone([&] { ADD_FAILURE() << "the answer is complete"; });
  exchange->answer(text_response("complete"));
  EXPECT_EQ(client.reply().body, "complete");
  client.close();
  EXPECT_TRUE(soon([&] { return server.counts().open == 0; }));
}

TEST_F(Answers, AReaderThatLagsIsCutOff) {
  Client slow(server.port(), "127.0.0.1", Client::Connect::now, 4096);
  slow.send(get("/"));
  const Given exchange = next();
  std::atomic<bool> gone{false};
  exchange->when_gone([&] { gone = true; });
  exchange->begin(text_response(""));
  size_t sent = 0;
  const auto start = Clock::now();
  for (; !gone && ms_since(start) < 5000; sent += 1000) exchange->send(std::string(1000, 'x'));
  EXPECT_TRUE(gone);
  exchange->end();
  const std::string got = slow.rest();
  EXPECT_LT(got.size(), sent);
  EXPECT_EQ(got.find("\r\n0\r\n\r\n"), std::string::npos);  // and can see that it was
}

TEST_F(Answers, LongStreamsAreCountedByWhatIsUnsent) {
  client.send(get("/"));
  const Given exchange = next();
  exchange->begin(text_response(""));
  const std::string part(10000, 'x');  // of which 10 may be unsent
  for (int i = 1; i <= 50; ++i) {
    exchange->send(part);
    while (client.received().size() < i * part.size()) ASSERT_TRUE(client.receive()) << i;
  }
  exchange->end();
  EXPECT_EQ(client.reply().body.size(), 50 * part.size());
}

class SlowReaders : public testing::Test {
 protected:
  static HttpLimits limits() {
    HttpLimits limits = quick();
    limits.write_time = 1s;  // a busy machine may hold a reader up for half of it
    limits.request_time = 60s;
    return limits;
  }
  static constexpr size_t kBytes = 60'000'000;
  HttpServer server{at("127.0.0.1", 0, limits()), [](const HttpRequest&, const Given& exchange) {
                      exchange->answer(text_response(std::string(kBytes, 'x')));
                    }};
  Client client{server.port(), "127.0.0.1", Client::Connect::now, 65536};
};

TEST_F(SlowReaders, ThatTakeNothingAreCutOff) {
  const auto start = Clock::now();
  client.send(get("/"));
  EXPECT_TRUE(soon([&] { return server.counts().open == 1; }));
  EXPECT_TRUE(soon([&] { return server.counts().open == 0; }));
  EXPECT_GT(ms_since(start), 990);
}

TEST_F(SlowReaders, ThatKeepTakingGetAll) {
  const auto start = Clock::now();
  client.send(get("/", "Connection: close\r\n"));
  size_t received = 0;
  for (int i = 0; client.receive(); ++i) {
    if (i % 2 == 0) std::this_thread::sleep_for(3ms);
    received = client.received().size();
  }
  EXPECT_GT(received, kBytes);
  EXPECT_GT(ms_since(start), 1100);  // write_time and more
}

TEST_F(Answers, TooLate) {
  const auto start = Clock::now();
  client.send(get("/"));
  Given exchange = next();
  std::atomic<bool> gone{false};
  exchange->when_gone([&] { gone = true; });
  const Reply reply = client.reply();
  EXPECT_EQ(reply.status, 504);
  EXPECT_GT(ms_since(start), 590);
  EXPECT_TRUE(gone);
  exchange->answer(text_response("late"));
  EXPECT_TRUE(client.closed());

  Client streamed(server.port());
  streamed.send(get("/"));
  exchange = next();
  exchange->begin(text_response("a"));
  EXPECT_EQ(streamed.reply().status, 0);  // cut off in the middle
}

TEST_F(Answers, NeverGivenAreErrors) {
  client.send(get("/"));
  next().reset();
  const Reply reply = client.reply();
  EXPECT_EQ(reply.status, 500);
  EXPECT_EQ(reply.body, json_error(500, "the server failed at this request"));
  Client streamed(server.port());
  streamed.send(get("/"));
  Given exchange = next();
  exchange->begin(text_response("a"));
  exchange.reset();
  EXPECT_EQ(streamed.reply().status, 0);
}

TEST_F(Answers, InAnotherOrderBreakAnInvariant) {
  client.send(get("/"));
  const Given exchange = next();
  EXPECT_THROW(exchange->send("a"), Error);
  EXPECT_THROW(exchange->end(), Error);
  EXPECT_THROW(exchange->answer(text_response("a", 99)), Error);
  EXPECT_THROW(exchange->answer({.body = {}, .headers = {{"A", "b\r\nC: d"}}}), Error);
  EXPECT_THROW(exchange->answer({.body = {}, .headers = {{"A: b\n", "c"}}}), Error);
  exchange->answer(text_response("b"));
  EXPECT_THROW(exchange->answer(text_response("c")), Error);
  EXPECT_THROW(exchange->begin(text_response("c")), Error);
  EXPECT_EQ(client.reply().body, "b");
}

TEST(Handlers, ThatThrowAreErrorsOfTheServer) {
  HttpServer server(at("127.0.0.1", 0), [](const HttpRequest& request, const Given& exchange) {
    if (request.path == "/begun") exchange->begin(text_response("a"));
    if (request.path == "/answered") exchange->answer(text_response("answered"));
    if (request.path == "/int") throw 1;
    throw std::runtime_error("a secret");
  });
  for (const char* path : {"/", "/int"}) {
    const Reply reply = Client(server.port()).ask(get(path));
    EXPECT_EQ(reply.status, 500);
    EXPECT_EQ(reply.body.find("secret"), std::string::npos);
  }
  EXPECT_EQ(Client(server.port()).ask(get("/begun")).status, 0);
  EXPECT_EQ(Client(server.port()).ask(get("/answered")).body, "answered");
}

TEST(Handlers, ExchangesOutliveServers) {
  std::vector<Given> exchanges;
  std::atomic<int> gone{0};
  {
    std::atomic<int> handled{0};
    HttpServer server(at("127.0.0.1", 0), [&](const HttpRequest&, Given exchange) {
      exchange->when_gone([&] { ++gone; });
      exchange->begin(text_response("a"));
      exchanges.push_back(std::move(exchange));
      ++handled;
    });
    Client one(server.port()), two(server.port());
    one.send(get("/"));
    two.send(get("/"));
    EXPECT_TRUE(soon([&] { return handled == 2; }));
  }
  EXPECT_EQ(gone, 2);
  exchanges[0]->send("b");
  exchanges[0]->end();
  bool called = false;
  exchanges[1]->when_gone([&] { called = true; });
  EXPECT_TRUE(called);
}

TEST(Handlers, ManyThreadsAnswerManyClients) {
  std::vector<std::thread> workers;
  std::mutex mutex;
  HttpServer server(at("127.0.0.1", 0), [&](const HttpRequest& request, const Given& exchange) {
    const std::lock_guard lock(mutex);
    workers.emplace_back([exchange, path = request.path] {
      exchange->begin(text_response(path));
      for (int i = 0; i < 50; ++i) exchange->send("," + std::to_string(i));
      exchange->end();
    });
  });
  std::vector<std::thread> clients;
  for (int c = 0; c < 8; ++c) {
    clients.emplace_back([&, c] {
      Client client(server.port());
      for (int i = 0; i < 20; ++i) {
        const std::string path = "/" + std::to_string(c) + "/" + std::to_string(i);
        const Reply reply = client.ask(get(path));
        EXPECT_EQ(reply.body.substr(0, path.size() + 1), path + ",");
        EXPECT_EQ(reply.body.substr(reply.body.size() - 3), ",49");
      }
    });
  }
  for (std::thread& thread : clients) thread.join();
  for (std::thread& thread : workers) thread.join();
}

}  // namespace
}  // namespace drover
