// A request's body: as every endpoint's, and its first text as an answer in pieces. What is taken keeps to its limits.
#include "data/stop_texts.h"
#include "launch/openai/requests.h"
#include "launch/openai/tool_calls.h"
#include "tests/fuzz/fuzz.h"

using namespace drover;
using namespace drover::openai;

namespace {

constexpr RequestDefaults kDefaults{.temperature = 0.6, .top_p = 0.9, .vocab_size = 1000};

template <typename Parse>
void try_parse(const Parse& parse) {
  try {
    parse();
  } catch (const ApiError& error) {
    fuzz::holds(error.status == 400, "what a request gets wrong is a 400");
    fuzz::holds(!parse_json(error.body(), "an error's body").at("error").at("message").empty(), "an error says why");
  }
}

void check(const AnswerOptions& o) {
  const Sampling& s = o.sampling;
  fuzz::holds(s.temperature > 0 && s.temperature <= 2, "a temperature can divide");
  fuzz::holds(s.top_p > 0 && s.top_p <= 1 && s.min_p >= 0 && s.min_p <= 1 && s.top_k >= 0, "limits are limits");
  fuzz::holds(s.repetition_penalty > 0 && s.logit_bias.size() <= kMostBiases, "penalties keep to their range");
  fuzz::holds(s.logprobs.value_or(0) <= kMostLogprobs && o.n >= 1 && o.n <= kMostAnswers, "memory is bounded");
  fuzz::holds(o.max_tokens.value_or(1) >= 1 && o.stop.size() <= kMostStops, "an answer ends");
  for (const int32_t id : o.stop_ids) fuzz::holds(id >= 0 && id < 1000, "an id is of the vocabulary");
  StopTexts stops(o.stop);
}

// However it is cut, a text gives the same content and calls.
std::string split(std::string_view text, size_t piece) {
  ToolCallParser parser({"x"});
  std::string content, calls;
  const auto add = [&](const ToolCallParser::Piece& part) {
    content += part.content;
    for (const ToolCall& call : part.calls) calls += call.name + call.arguments;
  };
  for (size_t at = 0; at < text.size(); at += piece) add(parser.push(text.substr(at, piece)));
  add(parser.finish());
  return content + '\0' + calls;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body = fuzz::text_of(data, size);
  try_parse([&] {
    const ChatRequest request = parse_chat(body, kDefaults);
    fuzz::holds(!request.dialog.messages.empty(), "a dialog has messages");
    fuzz::holds(request.tool_choice.kind != ToolChoice::Kind::required || request.may_call(), "a call has tools");
    check(request.options);
  });
  try_parse([&] {
    const CompletionRequest request = parse_completion(body, kDefaults);
    fuzz::holds(!request.prompts.empty() && request.prompts.size() <= kMostPrompts, "there are prompts");
    check(request.options);
  });
  try_parse([&] { parse_tokenize(body); });
  try_parse([&] { parse_detokenize(body, kDefaults); });
  try_parse([&] { parse_load_adapter(body); });
  try_parse([&] { parse_unload_adapter(body); });
  fuzz::holds(split(body, 1) == split(body, size + 1), "calls are found whatever the pieces");
  return 0;
}
