// Bodies and events, as openai-python, lm-eval and vLLM's clients read them.
#include "launch/openai/responses.h"

#include <gtest/gtest.h>

#include "tests/data/tokenizer_files.h"

namespace drover::openai {
namespace {

const AnswerHead kHead{.id = "cmpl-1", .created = 7, .model = "m", .fingerprint = "fp"};

OrderedJson object(const std::string& text) { return OrderedJson::parse(text); }

std::vector<OrderedJson> events_of(const std::string& stream) {
  std::vector<OrderedJson> events;
  for (size_t at = 0; at < stream.size();) {
    const size_t end = stream.find("\n\n", at);
    EXPECT_NE(end, std::string::npos);
    const std::string line = stream.substr(at, end - at);
    EXPECT_TRUE(line.starts_with("data: ") && line.find('\n') == std::string::npos);
    events.push_back(object(line.substr(6)));
    at = end + 2;
  }
  return events;
}

TokenEntry entry(int32_t id, const std::string& bytes, float logprob, int64_t offset = 0) {
  return {.token = {id, bytes, logprob}, .text_offset = offset};
}

TEST(Responses, ChatCompletion) {
  const ChatChoice said{.index = 0, .content = "a\nb", .finish = FinishReason::length};
  EXPECT_EQ(object(chat_completion(kHead, std::vector{said}, {.prompt_tokens = 3, .completion_tokens = 4})), object(R"(
      {"id": "cmpl-1", "object": "chat.completion", "created": 7, "model": "m", "system_fingerprint": "fp",
       "choices": [{"index": 0, "message": {"role": "assistant", "content": "a\nb", "refusal": null},
                    "logprobs": null, "finish_reason": "length"}],
       "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}})"));
}

TEST(Responses, ChatCompletionWithCalls) {
  const ChatChoice called{
      .index = 1, .content = "", .calls = {{0, "call_x0", "f", "{\"a\": 1}"}}, .finish = finish_reason(true, 1)};
  EXPECT_EQ(object(chat_completion(kHead, std::vector{called}, {}))["choices"][0], object(R"(
      {"index": 1, "message": {"role": "assistant", "content": null, "refusal": null, "tool_calls":
       [{"id": "call_x0", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]},
       "logprobs": null, "finish_reason": "tool_calls"})"));
  EXPECT_EQ(finish_reason(true, 0), FinishReason::stop);
  EXPECT_EQ(finish_reason(false, 1), FinishReason::length);
}

TEST(Responses, ChatLogprobs) {
  TokenEntry half = entry(5, "\xE2\x82", -0.5F);
  half.top = {{5, "\xE2\x82", -0.5F}, {6, "é", -std::numeric_limits<float>::infinity()}};
  const ChatChoice choice{.content = "€", .logprobs = std::vector{half}};
  EXPECT_EQ(object(chat_completion(kHead, std::vector{choice}, {}))["choices"][0]["logprobs"], object(R"(
      {"content": [{"token": "\\xe2\\x82", "logprob": -0.5, "bytes": [226, 130], "top_logprobs":
        [{"token": "\\xe2\\x82", "logprob": -0.5, "bytes": [226, 130]},
         {"token": "é", "logprob": -9999.0, "bytes": [195, 169]}]}], "refusal": null})"));
}

// What lm-eval compares: a token's number and the largest in its dictionary, bit for bit.
TEST(Responses, TextLogprobs) {
  TokenEntry first = entry(1, "a", -0.1F), second = entry(2, "b", -3.25F, 1);
  first.top = {{1, "a", -0.1F}};
  second.top = {{3, "\x82", -0.2F}, {4, "\x82", -0.3F}};
  const TextChoice choice{.text = "ab", .logprobs = std::vector{first, second}};
  const OrderedJson body = object(text_completion(kHead, std::vector{choice}, {}));
  EXPECT_EQ(body["object"], "text_completion");
  const OrderedJson& logprobs = body["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"], object(R"(["a", "b"])"));
  EXPECT_EQ(logprobs["text_offset"], object("[0, 1]"));
  EXPECT_EQ(logprobs["top_logprobs"][0]["a"], logprobs["token_logprobs"][0]);
  EXPECT_EQ(logprobs["top_logprobs"][1]["b"].get<double>(), -3.25);
  EXPECT_EQ(logprobs["top_logprobs"][1]["bytes:\\x82"].get<double>(), static_cast<double>(-0.2F));
  EXPECT_EQ(logprobs["top_logprobs"][1].size(), 2u);
}

TEST(Responses, EchoBeginsWithTheUnscoredToken) {
  ScratchDirectory directory;
  const Tokenizer tokenizer = open_with(directory, small_tokenizer({"<|s|>"}));
  const std::vector<PromptToken> prompt{{300}, {'a', -1.5F, 3, {{'b', -0.5F}}}, {0xC3, -2.F}, {0xA9, -2.F}};
  const PromptText begin = prompt_text(tokenizer, prompt, 1);
  EXPECT_EQ(begin.text, "aé");
  TextChoice whole{.text = begin.text + "c", .logprobs = begin.entries};
  whole.logprobs->push_back(entry('c', "c", -1));
  whole.logprobs->back().text_offset = characters(begin.text);
  const OrderedJson logprobs = object(text_completion(kHead, std::vector{whole}, {}))["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"], object(R"(["<|s|>", "a", "bytes:\\xc3", "bytes:\\xa9", "c"])"));
  EXPECT_EQ(logprobs["token_logprobs"], object("[null, -1.5, -2.0, -2.0, -1.0]"));
  EXPECT_EQ(logprobs["top_logprobs"][0], nullptr);
  EXPECT_EQ(logprobs["top_logprobs"][1], object(R"({"b": -0.5, "a": -1.5})"));
  EXPECT_EQ(logprobs["text_offset"], object("[0, 0, 1, 1, 2]"));

  EXPECT_EQ(prompt_logprobs(tokenizer, std::span(prompt).first(3), 1), object(R"([null,
      {"98": {"logprob": -0.5, "rank": 1, "decoded_token": "b"},
       "97": {"logprob": -1.5, "rank": 3, "decoded_token": "a"}},
      {"195": {"logprob": -2.0, "decoded_token": "\\xc3"}}])"));
  TextChoice scored{.text = ""};
  scored.prompt_logprobs = prompt_logprobs(tokenizer, prompt, 0);
  EXPECT_EQ((*scored.prompt_logprobs)[1].size(), 1u);
  EXPECT_EQ(object(text_completion(kHead, std::vector{scored}, {}))["choices"][0]["prompt_logprobs"].size(), 4u);
  EXPECT_EQ(object(chat_completion(kHead, {}, {}, OrderedJson::array({nullptr})))["prompt_logprobs"].size(), 1u);
}

TEST(Responses, ChatEvents) {
  const StreamHead plain{kHead, false};
  const std::vector<OrderedJson> start = events_of(chat_start(plain, 2));
  EXPECT_EQ(start.at(0), object(R"(
      {"id": "cmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "m", "system_fingerprint": "fp",
       "choices": [{"index": 2, "delta": {"role": "assistant", "content": ""}, "logprobs": null,
                    "finish_reason": null}]})"));
  EXPECT_EQ(events_of(chat_events(plain, {.index = 0, .content = "a\n\nb"})).at(0)["choices"][0]["delta"],
            object(R"({"content": "a\n\nb"})"));
  const OrderedJson last = events_of(chat_events(plain, {.finish = FinishReason::stop})).at(0);
  EXPECT_EQ(last["choices"][0]["delta"], OrderedJson::object());
  EXPECT_EQ(last["choices"][0]["finish_reason"], "stop");
  EXPECT_FALSE(last.contains("usage"));
}

TEST(Responses, CallsInAStream) {
  const ChatPiece piece{.content = "x",
                        .calls = {{0, "call_0", "f", "{}"}, {1, "call_1", "g", "{\"a\": 1}"}},
                        .logprobs = std::vector{entry(1, "a", -1)},
                        .finish = FinishReason::tool_calls};
  const std::vector<OrderedJson> events = events_of(chat_events({kHead, false}, piece));
  ASSERT_EQ(events.size(), 5u);
  const auto delta = [&](size_t i) { return events[i]["choices"][0]["delta"]; };
  EXPECT_EQ(delta(0), object(R"({"content": "x"})"));
  EXPECT_EQ(delta(1), object(R"({"tool_calls": [{"index": 0, "id": "call_0", "type": "function",
                                 "function": {"name": "f", "arguments": ""}}]})"));
  EXPECT_EQ(delta(2), object(R"({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]})"));
  EXPECT_EQ(delta(4), object(R"({"tool_calls": [{"index": 1, "function": {"arguments": "{\"a\": 1}"}}]})"));
  for (size_t i = 0; i < 5; ++i) {
    const OrderedJson& choice = events[i]["choices"][0];
    EXPECT_EQ(choice["finish_reason"], i == 4 ? OrderedJson("tool_calls") : OrderedJson());
    EXPECT_EQ(choice["logprobs"].is_null(), i != 0);
  }
}

TEST(Responses, UsageOnlyWhereItIsAskedFor) {
  const StreamHead asked{kHead, true};
  for (const std::string& text :
       {chat_start(asked, 0), chat_events(asked, {.content = "a"}), text_event(asked, {.index = 0, .text = "a"})}) {
    const OrderedJson event = events_of(text).at(0);
    EXPECT_TRUE(event.contains("usage") && event["usage"].is_null());
  }
  for (const AnswerKind kind : {AnswerKind::chat, AnswerKind::text}) {
    const OrderedJson event = events_of(usage_event(asked, kind, {.prompt_tokens = 1, .completion_tokens = 2})).at(0);
    EXPECT_EQ(event["choices"], OrderedJson::array());
    EXPECT_EQ(event["usage"]["total_tokens"], 3);
    EXPECT_EQ(event["object"], kind == AnswerKind::chat ? "chat.completion.chunk" : "text_completion");
  }
}

TEST(Responses, TextEventsAndErrors) {
  const TextPiece piece{.index = 3, .text = "é", .logprobs = std::vector{entry(1, "é", -1, 4)}};
  const OrderedJson choice = events_of(text_event({kHead, false}, piece)).at(0)["choices"][0];
  EXPECT_EQ(choice["index"], 3);
  EXPECT_EQ(choice["text"], "é");
  EXPECT_EQ(choice["finish_reason"], nullptr);
  EXPECT_EQ(choice["logprobs"]["text_offset"], object("[4]"));
  EXPECT_EQ(events_of(error_event(internal_error("a\nb"))).at(0)["error"]["message"], "a\nb");
  EXPECT_STREQ(kDone, "data: [DONE]\n\n");
}

TEST(Responses, ModelsAndTokens) {
  const std::vector<ModelCard> models{{.id = "base", .created = 7, .root = "/m", .context = 99},
                                      {.id = "sql", .created = 8, .root = "/a", .parent = "base", .context = 99}};
  EXPECT_EQ(object(models_body(models)), object(R"({"object": "list", "data": [
      {"id": "base", "object": "model", "created": 7, "owned_by": "drover", "root": "/m", "parent": null,
       "max_model_len": 99},
      {"id": "sql", "object": "model", "created": 8, "owned_by": "drover", "root": "/a", "parent": "base",
       "max_model_len": 99}]})"));
  EXPECT_EQ(object(model_body(models[0]))["id"], "base");
  ScratchDirectory directory;
  const Tokenizer tokenizer = open_with(directory, small_tokenizer({"<|s|>"}), {{"eos_token", "<|s|>"}});
  const std::vector<int32_t> ids{257, 300};
  EXPECT_EQ(object(tokenize_body(tokenizer, ids, 99, true)),
            object(R"({"count": 2, "max_model_len": 99, "tokens": [257, 300], "token_strs": ["the", "<|s|>"]})"));
  EXPECT_EQ(object(tokenize_body(tokenizer, ids, 99, false))["token_strs"], nullptr);
  EXPECT_EQ(object(detokenize_body(tokenizer, ids)), object(R"({"prompt": "the<|s|>"})"));
  const OrderedJson info = object(tokenizer_info_body(tokenizer, ChatTemplate{}, 99));
  EXPECT_EQ(info["eos_token"], "<|s|>");
  EXPECT_EQ(info["bos_token"], nullptr);
  EXPECT_TRUE(info["chat_template"].is_string());
  EXPECT_EQ(object(version_body("1.2")), object(R"({"version": "1.2"})"));
  EXPECT_EQ(loaded_text("x"), "Success: LoRA adapter 'x' added successfully.");
  EXPECT_EQ(unloaded_text("x"), "Success: LoRA adapter 'x' removed successfully.");
}

}  // namespace
}  // namespace drover::openai
