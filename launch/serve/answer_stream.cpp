#include "launch/serve/answer_stream.h"

namespace drover {

void AnswerStream::event(std::string text) {
  if (begun_) return call_.exchange->send(std::move(text));
  begun_ = true;
  HttpResponse head{.type = "text/event-stream; charset=utf-8", .body = std::move(text), .headers = call_.headers};
  head.headers.emplace_back("Cache-Control", "no-cache");
  head.headers.emplace_back("X-Accel-Buffering", "no");  // nginx hands events on at once
  call_.exchange->begin(std::move(head));
}

void AnswerStream::end() { call_.exchange->end(); }

void AnswerStream::body(std::string json) {
  call_.exchange->answer({.body = std::move(json), .headers = call_.headers});
}

void AnswerStream::fail(const openai::ApiError& error) {
  if (begun_) {
    event(openai::error_event(error));
    end();
  } else {
    call_.exchange->answer({.status = error.status, .body = error.body(), .headers = call_.headers});
  }
}

}  // namespace drover
