// What a client may send: kept connections, requests sent ahead, bodies in chunks, HEAD, 100-continue, HTTP/1.0, IPv6.
#include <gmock/gmock.h>

#include "tests/http/echo.h"

namespace drover {
namespace {

using testing::HasSubstr;

class Requests : public testing::Test {
 protected:
  HttpServer server{at("127.0.0.1", 0), echo};
  Client client{server.port()};
};

TEST_F(Requests, KeepAConnection) {
  for (const char* target : {"/a?b=c", "/d", "/e?f?g"}) {
    const std::string path(target);
    const size_t question = std::min(path.find('?'), path.size());
    const Reply reply = client.ask(get(target));
    EXPECT_EQ(reply.status, 200);
    EXPECT_EQ(reply.body,
              "GET " + path.substr(0, question) + " " + path.substr(std::min(question + 1, path.size())) + " ");
    EXPECT_EQ(reply.header("Connection"), "");
    EXPECT_EQ(reply.header("Server"), "drover");
    EXPECT_EQ(reply.header("Content-Type"), "text/plain");
  }
  EXPECT_EQ(server.counts().connections, 1);
  EXPECT_EQ(server.counts().requests, 3);
  EXPECT_EQ(client.ask(get("/", "Connection: close\r\n")).header("Connection"), "close");
  EXPECT_TRUE(client.closed());
}

TEST_F(Requests, SentAheadAreAnsweredInOrder) {
  std::string all;
  for (int i = 0; i < 500; ++i)
    all += i % 2 == 0 ? get("/" + std::to_string(i)) : post("/" + std::to_string(i), "body");
  std::thread sender([&] { client.send(all); });
  for (int i = 0; i < 500; ++i) {
    const std::string path = "/" + std::to_string(i);
    ASSERT_EQ(client.reply().body, i % 2 == 0 ? "GET " + path + "  " : "POST " + path + "  body");
  }
  sender.join();
  EXPECT_EQ(server.counts().requests, 500);
}

TEST_F(Requests, EveryCutInTwoReadsTheSame) {
  const std::string request =
      "\r\nPOST /p?q HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
      "3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n";
  for (size_t cut = 1; cut < request.size(); ++cut) {
    client.send(request.substr(0, cut));
    std::this_thread::sleep_for(100us);
    ASSERT_EQ(client.ask(request.substr(cut)).body, "POST /p q abc0123456789") << cut;
  }
}

TEST_F(Requests, ByteByByte) {
  for (const std::string body : {"0\r\n\r\n", "1\r\nx\r\n0\r\n\r\n", "0\r\nA: b\r\n\r\n"}) {
    const std::string request = "PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + body;
    for (const char byte : request) {
      client.send({&byte, 1});
      std::this_thread::sleep_for(200us);
    }
    EXPECT_EQ(client.reply().body, body[0] == '1' ? "PUT /  x" : "PUT /  ");
  }
}

TEST_F(Requests, LongBodiesOfBothKinds) {
  std::string body;
  for (int i = 0; body.size() < 3'000'000; ++i) body += std::to_string(i) + ",";
  std::string chunked = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (size_t at = 0, size = 1; at < body.size(); at += size, size = 1 + size * 7 % 9973) {
    const std::string part = body.substr(at, size);
    chunked += fmt::format("{:X}\r\n{}\r\n", part.size(), part);
  }
  std::thread sender([&] { client.send(post("/", body) + chunked + "0\r\n\r\n"); });
  EXPECT_EQ(client.reply().body, "POST /  " + body);
  EXPECT_EQ(client.reply().body, "POST /  " + body);
  sender.join();
}

TEST_F(Requests, HeadIsGetWithoutTheBody) {
  client.send("HEAD /h HTTP/1.1\r\nHost: x\r\n\r\n");
  const Reply head = client.reply(true);
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.header("Content-Length"), std::to_string(std::string("GET /h  ").size()));
  EXPECT_EQ(client.ask(get("/next")).body, "GET /next  ");
}

TEST_F(Requests, ContinueIsSaidWhereTheBodyWaitsForIt) {
  const std::string fields = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
  EXPECT_EQ(client.ask(fields).status, 100);
  EXPECT_EQ(client.ask("abc").body, "POST /  abc");
  EXPECT_EQ(client.ask(fields + "abc").body, "POST /  abc");  // it did not wait
}

TEST_F(Requests, OldClients) {
  Client kept(server.port());
  const Reply reply = kept.ask("GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_EQ(reply.body, "GET /old  ");
  EXPECT_EQ(reply.header("Connection"), "keep-alive");
  EXPECT_EQ(kept.ask("GET /old HTTP/1.0\r\n\r\n").header("Connection"), "close");
  EXPECT_TRUE(kept.closed());
}

TEST_F(Requests, TargetsOfOtherForms) {
  EXPECT_EQ(client.ask("GET http://x:80/a?b HTTP/1.1\r\nHost: x\r\n\r\n").body, "GET /a b ");
  EXPECT_EQ(client.ask("GET HTTP://x HTTP/1.1\r\nHost: x\r\n\r\n").body, "GET /  ");
  EXPECT_EQ(client.ask("GET http://x?y HTTP/1.1\r\nHost: x\r\n\r\n").body, "GET / y ");
  EXPECT_EQ(client.ask("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").body, "OPTIONS *  ");
  EXPECT_EQ(client.ask("OPTIONS /o HTTP/1.1\r\nHost: x\r\n\r\n").body, "OPTIONS /o  ");
  EXPECT_EQ(client.ask("BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n").body, "BREW /pot  ");
  EXPECT_EQ(client.ask(get("/%41%00")).body, "GET /%41%00  ");
}

TEST_F(Requests, HalfClosedAfterTheRequestIsAnsweredAtOnce) {
  client.send(get("/1") + get("/2"));
  client.half_close();
  EXPECT_EQ(client.reply().body, "GET /1  ");
  EXPECT_EQ(client.reply().body, "GET /2  ");
  EXPECT_TRUE(client.closed());
}

TEST(RequestFields, AreFoundInAnyCaseAndTrailersAreNone) {
  HttpServer server(at("127.0.0.1", 0), [](const HttpRequest& request, const std::shared_ptr<Exchange>& exchange) {
    const std::string_view key = request.header("x-KEY"), none = request.header("X-Trailer");
    exchange->answer(text_response(std::string(key) + "|" + std::string(none) + "|" + request.client));
  });
  Client client(server.port());
  const Reply reply = client.ask(
      "POST / HTTP/1.1\r\nHost: x\r\nX-Key:  a b \r\nx-key: second\r\nTransfer-Encoding: chunked\r\n\r\n"
      "0\r\nX-Trailer: t\r\n\r\n");
  EXPECT_THAT(reply.body, testing::MatchesRegex("a b[|][|]127.0.0.1:[0-9]+"));
}

TEST(Hosts, Ipv6AndLocalhost) {
  HttpServer six(at("::1", 0), [](const HttpRequest& request, const std::shared_ptr<Exchange>& exchange) {
    exchange->answer(text_response(request.client));
  });
  EXPECT_THAT(Client(six.port(), "::1").ask(get("/")).body, testing::StartsWith("[::1]:"));
  HttpServer local(at("localhost", 0), echo);
  EXPECT_EQ(Client(local.port()).ask(get("/")).status, 200);
}

}  // namespace
}  // namespace drover
