// One response that is sent as a stream of events, or as one body.
#pragma once
#include "launch/openai/responses.h"
#include "launch/serve/serving.h"

namespace drover {

class AnswerStream {
 public:
  explicit AnswerStream(Call call) : call_(std::move(call)) {}

  void event(std::string text);              // the first one begins the response
  void end();                                // of the events
  void body(std::string json);               // instead of events
  void fail(const openai::ApiError& error);  // an event where the response has begun, else a response of its own

 private:
  Call call_;
  bool begun_ = false;
};

}  // namespace drover
