// Each limit, each kind of broken request, and that the connection closes after it while others are served on.
#include <gmock/gmock.h>

#include <random>

#include "tests/http/echo.h"

namespace drover {
namespace {

using testing::HasSubstr;

class Refusals : public testing::Test {
 protected:
  // What is answered to these bytes, after which the server closes.
  Reply refused(std::string_view bytes) {
    Client client(server.port());
    EXPECT_TRUE(client.send(bytes));
    const Reply reply = client.reply();
    EXPECT_EQ(reply.header("Connection"), "close") << bytes.substr(0, 100);
    EXPECT_EQ(reply.header("Content-Type"), "application/json");
    EXPECT_THAT(reply.body, HasSubstr("{\"status\":" + std::to_string(reply.status) + ","));
    EXPECT_TRUE(client.closed());
    return reply;
  }
  int status(std::string_view bytes) { return refused(bytes).status; }
  static std::string with(const std::string& fields, const std::string& body = "") {
    return "POST / HTTP/1.1\r\nHost: x\r\n" + fields + "\r\n" + body;
  }
  int chunks(const std::string& text) { return status(with("Transfer-Encoding: chunked\r\n", text)); }

  ~Refusals() override {
    EXPECT_EQ(Client(server.port()).ask(get("/")).status, 200);
    EXPECT_TRUE(soon([this] { return server.idle(); }));
  }
  HttpServer server{at("127.0.0.1", 0, quick()), echo};
};

TEST_F(Refusals, LongHeaders) {
  EXPECT_EQ(status(get("/", "A: " + std::string(2000, 'a') + "\r\n")), 431);
  EXPECT_EQ(status(get("/" + std::string(2000, 'a'))), 431);
  std::string many;
  for (int i = 0; i < 400; ++i) many += "A: b\r\n";
  EXPECT_EQ(status(get("/", many)), 431);
  EXPECT_EQ(status(std::string(2100, 'G')), 431);
  EXPECT_EQ(Client(server.port()).ask(get("/", "A: " + std::string(1900, 'a') + "\r\n")).status, 200);
}

TEST_F(Refusals, LongHeadersThatComeInParts) {
  Client client(server.port());
  client.send("GET / HTTP/1.1\r\nHost: x\r\n");
  for (int i = 0; i < 25 && !client.receive(1ms); ++i) client.send("A: " + std::string(95, 'a') + "\r\n");
  EXPECT_EQ(client.reply().status, 431);
  Client halves(server.port());
  halves.send("GET / HTTP/1.1\r\nHost: x\r\nA: " + std::string(1500, 'a') + "\r\nB: ");
  std::this_thread::sleep_for(20ms);
  EXPECT_EQ(halves.ask(std::string(1500, 'b') + "\r\n\r\n").status, 431);
}

TEST_F(Refusals, LongBodies) {
  EXPECT_EQ(Client(server.port()).ask(post("/", std::string(10000, 'x'))).status, 200);
  EXPECT_EQ(status(with("Content-Length: 10001\r\n")), 413);
  EXPECT_EQ(status(with("Content-Length: 10001\r\nExpect: 100-continue\r\n")), 413);
  EXPECT_EQ(status(post("/", std::string(5'000'000, 'x'))), 413);  // the answer arrives although nobody reads this
  EXPECT_EQ(chunks("2711\r\n"), 413);
  std::string parts;
  for (int i = 0; i < 101; ++i) parts += "64\r\n" + std::string(100, 'x') + "\r\n";
  EXPECT_EQ(chunks(parts), 413);
}

TEST_F(Refusals, LengthsThatAreNone) {
  for (const char* length : {"-1", "+1", "1x", "", "0x10", "18446744073709551616", "1, 2", "1 2"}) {
    EXPECT_EQ(status(with("Content-Length: " + std::string(length) + "\r\n")), 400) << length;
  }
  EXPECT_EQ(status(with("Content-Length: 1\r\nContent-Length: 2\r\n")), 400);
  EXPECT_EQ(status(with("Content-Length: 18446744073709551615\r\n")), 413);
}

TEST_F(Refusals, ChunksThatAreNone) {
  for (const char* size : {"-1", "g", "", " 1", "0x1", "10000000000000000", "1 x", "1;=\"", "ffffffffffffffffffff"}) {
    EXPECT_EQ(chunks(std::string(size) + "\r\na\r\n0\r\n\r\n"), 400) << size;
  }
  EXPECT_EQ(chunks("ffffffffffffffff\r\n"), 413);
  EXPECT_EQ(chunks("1\r\nab\r\n0\r\n\r\n"), 400);
  EXPECT_EQ(chunks("1\na\r\n0\r\n\r\n"), 400);
  EXPECT_EQ(chunks("0\r\nContent-Length: 5\r\n\r\n"), 400);
  EXPECT_EQ(chunks("1;" + std::string(200000, 'a')), 400);
  EXPECT_EQ(chunks("0\r\nA: " + std::string(200000, 'a')), 400);
}

// What two readers could take for different requests.
TEST_F(Refusals, TwoFramings) {
  for (const char* encoding : {"chunked", "gzip", "identity", "chunked, gzip", "gzip, chunked", "\"chunked\""}) {
    const std::string field = "Transfer-Encoding: " + std::string(encoding) + "\r\n";
    EXPECT_EQ(status(with("Content-Length: 3\r\n" + field, "0\r\n\r\n")), 400) << encoding;
    EXPECT_EQ(status(with(field + "Content-Length: 3\r\n", "0\r\n\r\n")), 400) << encoding;
    if (std::string(encoding) != "chunked") {
      EXPECT_EQ(status(with(field, "0\r\n\r\n")), 501) << encoding;
    }
  }
  EXPECT_EQ(status(with("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")), 501);
  EXPECT_EQ(status(with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")), 400);
  EXPECT_EQ(status("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400);
}

TEST_F(Refusals, WhatIsNoRequest) {
  for (const char* bytes :
       {"GET\r\n\r\n", "GET /\r\n\r\n", " GET / HTTP/1.1\r\n\r\n", "GET  / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1 \r\n\r\n",
        "GET / FTP/1.1\r\n\r\n", "G@T / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\nHost: x\n\n", "GET / HTTP/1.1\r\nHost: x\r\nA: \x01\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n", "GET x HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\x02"}) {
    EXPECT_EQ(status(bytes), 400) << bytes;
  }
  EXPECT_EQ(status("GET / HTTP/1.1\r\n\r\n"), 400);
  EXPECT_EQ(status("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), 400);
}

TEST_F(Refusals, OtherVersionsAndExpectations) {
  for (const char* version : {"HTTP/2.0", "HTTP/0.9", "HTTP/1.2", "HTTP/3", "HTTP/9.9"}) {
    EXPECT_EQ(status("GET / " + std::string(version) + "\r\nHost: x\r\n\r\n"), 505) << version;
  }
  EXPECT_EQ(status("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
  EXPECT_EQ(status(get("/", "Expect: a-miracle\r\n")), 417);
}

TEST(SlowRequests, Headers) {
  HttpLimits limits = quick();
  limits.idle_time = 60s;
  HttpServer server(at("127.0.0.1", 0, limits), echo);
  Client client(server.port());
  const auto start = Clock::now();
  for (const char byte : get("/")) {
    client.send({&byte, 1});
    if (client.receive(20ms)) break;
  }
  EXPECT_EQ(client.reply().status, 408);
  EXPECT_GT(ms_since(start), 140);
  EXPECT_TRUE(client.closed());
}

TEST_F(Refusals, SlowBodies) {
  const auto start = Clock::now();
  EXPECT_EQ(status(with("Content-Length: 3\r\n", "ab")), 408);
  EXPECT_GT(ms_since(start), 290);
  EXPECT_EQ(status(with("Transfer-Encoding: chunked\r\n", "1\r\n")), 408);
  Client drip(server.port());  // never idle, but longer than request_time in all
  const auto dripping = Clock::now();
  drip.send(with("Content-Length: 100\r\n"));
  int sent = 0;
  for (; sent < 99 && !drip.receive(50ms); ++sent) drip.send("x");
  EXPECT_EQ(drip.reply().status, 408);
  EXPECT_LT(sent, 50);
  EXPECT_GT(ms_since(dripping), 590);
}

TEST_F(Refusals, IdleConnectionsCloseWithoutAWord) {
  const auto start = Clock::now();
  Client silent(server.port()), kept(server.port());
  EXPECT_EQ(kept.ask(get("/")).status, 200);
  EXPECT_TRUE(silent.closed());
  EXPECT_TRUE(kept.closed());
  EXPECT_GT(ms_since(start), 290);
  EXPECT_EQ(server.counts().refused, 0);
}

TEST_F(Refusals, BodiesOfAllConnections) {
  std::vector<Client> clients;
  for (int i = 0; i < 3; ++i) {
    clients.emplace_back(server.port());
    clients.back().send(with("Content-Length: 10000\r\n", std::string(9000, 'x')));
    std::this_thread::sleep_for(20ms);
  }
  const Reply third = clients[2].reply();
  EXPECT_EQ(third.status, 503);
  EXPECT_EQ(third.header("Retry-After"), "1");
  for (int i = 0; i < 2; ++i) EXPECT_EQ(clients[i].ask(std::string(1000, 'x')).status, 200);
}

TEST_F(Refusals, TooManyConnections) {
  std::vector<Client> clients;
  for (int i = 0; i < 20; ++i) clients.emplace_back(server.port());
  EXPECT_TRUE(soon([&] { return server.counts().open == 20; }));
  const Reply reply = refused(get("/"));
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.header("Retry-After"), "1");
  for (Client& client : clients) EXPECT_EQ(client.ask(get("/")).status, 200);
  EXPECT_EQ(server.counts().refused, 1);
  for (int i = 0; i < 200; ++i) clients.emplace_back(server.port());  // they say nothing and do not leave
  EXPECT_TRUE(soon([&] { return server.counts().connections == 221; }));
  EXPECT_LE(server.counts().open, 20 + 64);
  clients.clear();
  EXPECT_TRUE(soon([&] { return server.counts().open == 0; }));
}

TEST_F(Refusals, NeverReachTheHandlerAndAreCounted) {
  refused("nonsense\r\n\r\n");
  refused(with("Content-Length: 99999\r\n"));
  EXPECT_EQ(server.counts().requests, 0);
  EXPECT_EQ(server.counts().refused, 2);
}

TEST_F(Refusals, RandomBytes) {
  std::mt19937 random(20240607);
  const std::vector<std::string> pieces = {"GET ",
                                           "POST ",
                                           "/",
                                           " HTTP/1.1",
                                           "\r\n",
                                           "\r\n\r\n",
                                           "Host: x\r\n",
                                           "Content-Length: ",
                                           "5\r\n",
                                           ":",
                                           "chunked",
                                           "0\r\n\r\n",
                                           "Expect: ",
                                           "100-continue\r\n",
                                           "\t",
                                           " HTTP/1.0\r\n",
                                           "-1",
                                           ";",
                                           "ffffffff",
                                           "Connection: ,,",
                                           "\x80\xFF\x7F",
                                           "Transfer-Encoding:",
                                           "A: b\r\n \r\n"};
  for (int i = 0; i < 2000; ++i) {
    std::string bytes;
    if (i % 4 != 0) bytes = i % 4 == 1 ? with("Transfer-Encoding: chunked\r\n") : "POST / HTTP/1.1\r\nHost: x\r\n";
    for (unsigned n = random() % 12; n > 0; --n) {
      if (random() % 3 == 0)
        bytes += std::string(random() % 8, static_cast<char>(random()));
      else
        bytes += pieces[random() % pieces.size()];
    }
    Client client(server.port());
    client.send(bytes);
    if (i % 3 == 0)
      client.reset();
    else if (i % 3 == 1)
      client.half_close();
    if (i % 3 == 1) client.rest();
  }
  EXPECT_TRUE(soon([&] { return server.counts().open == 0; }));
}

TEST(RefusalsWithoutBodies, AreText) {
  HttpServer server({.port = 0, .limits = quick(), .error_body = {}}, echo);
  const Reply reply = Client(server.port()).ask("\x01\r\n\r\n");
  EXPECT_EQ(reply.status, 400);
  EXPECT_THAT(reply.header("Content-Type"), HasSubstr("text/plain"));
  EXPECT_THAT(reply.body, HasSubstr("no valid HTTP request"));
}

}  // namespace
}  // namespace drover
