// Requests: what is read, and what is refused by name. The numbers' ranges are tried as the tables have them.
#include "launch/openai/requests.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace drover::openai {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const RequestDefaults kDefaults{.temperature = 0.6, .top_p = 0.9, .vocab_size = 1000};

OrderedJson user(const OrderedJson& content = "Hi") { return {{"role", "user"}, {"content", content}}; }

OrderedJson with(OrderedJson body, const std::string& field, const OrderedJson& value) {
  body[field] = value;
  return body;
}

OrderedJson chat_body() { return {{"model", "m"}, {"messages", {user()}}}; }
OrderedJson completion_body() { return {{"model", "m"}, {"prompt", "Hi"}}; }

ChatRequest chat(const OrderedJson& body) { return parse_chat(body.dump(), kDefaults); }
ChatRequest chat(const std::string& field, const OrderedJson& value) { return chat(with(chat_body(), field, value)); }
CompletionRequest completion(const OrderedJson& body) { return parse_completion(body.dump(), kDefaults); }
CompletionRequest completion(const std::string& field, const OrderedJson& value) {
  return completion(with(completion_body(), field, value));
}

// The 400 that `body` gives.
template <typename Body>
ApiError refusal(const Body& body) {
  try {
    body();
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status, 400u) << error.what();
    return error;
  }
  ADD_FAILURE() << "nothing was refused";
  return internal_error("");
}

ApiError chat_refusal(const std::string& field, const OrderedJson& value) {
  return refusal([&] { chat(field, value); });
}

void expect_chat_refused(const std::string& field, const OrderedJson& value, const std::string& param) {
  EXPECT_EQ(chat_refusal(field, value).param, param) << value;
}

TEST(Requests, ChatWithDefaults) {
  const ChatRequest request = chat(chat_body());
  EXPECT_EQ(request.model, "m");
  EXPECT_EQ(request.dialog.messages, (std::vector<Message>{{"user", "Hi"}}));
  EXPECT_TRUE(request.dialog.add_generation_prompt);
  EXPECT_TRUE(request.dialog.tools.is_null());
  EXPECT_FALSE(request.may_call());
  const AnswerOptions& o = request.options;
  EXPECT_FALSE(o.sampling.greedy);
  EXPECT_FLOAT_EQ(o.sampling.temperature, 0.6F);
  EXPECT_FLOAT_EQ(o.sampling.top_p, 0.9F);
  EXPECT_EQ(o.sampling.top_k, 0);
  EXPECT_FALSE(o.sampling.penalizes());
  EXPECT_FALSE(o.sampling.logprobs || o.seed || o.max_tokens || o.prompt_logprobs);
  EXPECT_EQ(o.n, 1);
  EXPECT_FALSE(o.stream || o.include_usage || o.ignore_eos);
  EXPECT_TRUE(o.skip_special_tokens);
}

TEST(Requests, EverySetting) {
  OrderedJson body = chat_body();
  body.update({{"temperature", 1.5},
               {"top_p", 0.5},
               {"top_k", 7},
               {"min_p", 0.1},
               {"presence_penalty", -1},
               {"frequency_penalty", 2},
               {"repetition_penalty", 1.25},
               {"logit_bias", {{"5", -100}, {"999", 1.5}}},
               {"seed", -3},
               {"max_tokens", 9},
               {"n", 16},
               {"best_of", 16},
               {"stop", {"a", "b"}},
               {"stop_token_ids", {1, 2}},
               {"ignore_eos", true},
               {"skip_special_tokens", false},
               {"stream", true},
               {"stream_options", {{"include_usage", true}}},
               {"logprobs", true},
               {"top_logprobs", 20}});
  const AnswerOptions o = chat(body).options;
  EXPECT_FLOAT_EQ(o.sampling.temperature, 1.5F);
  EXPECT_FLOAT_EQ(o.sampling.top_p, 0.5F);
  EXPECT_EQ(o.sampling.top_k, 7);
  EXPECT_FLOAT_EQ(o.sampling.min_p, 0.1F);
  EXPECT_EQ(o.sampling.presence_penalty, -1);
  EXPECT_EQ(o.sampling.frequency_penalty, 2);
  EXPECT_EQ(o.sampling.repetition_penalty, 1.25F);
  ASSERT_EQ(o.sampling.logit_bias.size(), 2u);
  EXPECT_EQ(o.sampling.logit_bias[1].token, 999);
  EXPECT_EQ(o.sampling.logit_bias[1].bias, 1.5F);
  EXPECT_EQ(o.seed, -3);
  EXPECT_EQ(o.sampling.seed, static_cast<uint64_t>(-3));
  EXPECT_EQ(o.max_tokens, 9);
  EXPECT_EQ(o.n, 16);
  EXPECT_THAT(o.stop, ElementsAre("a", "b"));
  EXPECT_THAT(o.stop_ids, ElementsAre(1, 2));
  EXPECT_TRUE(o.ignore_eos && o.stream && o.include_usage);
  EXPECT_FALSE(o.skip_special_tokens);
  EXPECT_EQ(o.sampling.logprobs, 20);
}

TEST(Requests, GreedyAndCold) {
  for (const double temperature : {0.0, 1e-300, 9e-6})
    EXPECT_TRUE(chat("temperature", temperature).options.sampling.greedy);
  EXPECT_FALSE(chat("temperature", 1e-4).options.sampling.greedy);
  const Sampling s = chat("top_p", 0).options.sampling;
  EXPECT_TRUE(s.greedy);
  EXPECT_EQ(s.top_p, 1);
  EXPECT_EQ(chat("top_k", -1).options.sampling.top_k, 0);
  EXPECT_TRUE(parse_chat(chat_body().dump(), {.temperature = 0, .vocab_size = 9}).options.sampling.greedy);
}

TEST(Requests, TheNewerLengthCountsOnBothEndpoints) {
  for (const char* field : {"max_tokens", "max_completion_tokens"}) {
    EXPECT_EQ(chat(field, 5).options.max_tokens, 5);
    EXPECT_EQ(completion(field, 5).options.max_tokens, 5);
  }
  EXPECT_EQ(chat(with(with(chat_body(), "max_completion_tokens", 3), "max_tokens", 5)).options.max_tokens, 3);
}

TEST(Requests, NoTokensAtAllWhereThePromptIsAskedAbout) {
  const OrderedJson none = with(completion_body(), "max_tokens", 0);
  EXPECT_EQ(completion(with(none, "echo", true)).options.max_tokens, 0);
  EXPECT_EQ(completion(with(none, "prompt_logprobs", 0)).options.max_tokens, 0);
  EXPECT_EQ(refusal([&] { completion(none); }).param, "max_tokens");
  EXPECT_EQ(refusal([] { chat("max_tokens", 0); }).param, "max_tokens");
}

// What a number may not be: beyond its ends, of other types, too large for its own.
std::vector<OrderedJson> wrong_numbers(const Field& field) {
  std::vector<OrderedJson> values{"1",
                                  true,
                                  OrderedJson::array({1}),
                                  OrderedJson::object(),
                                  9223372036854775808ULL,
                                  18446744073709551615ULL,
                                  1e19,
                                  -1e19,
                                  1e300};
  if (field.kind == FieldKind::number) {
    values.insert(values.end(), {field.least - 1, field.most + 1, std::nextafter(field.most, 1e9)});
    return values;
  }
  values.insert(values.end(), {1.5, 1.0, 1e-5});
  if (field.low > std::numeric_limits<int64_t>::min()) values.insert(values.end(), {field.low - 1, -1'000'000'000'000});
  if (field.high < std::numeric_limits<int64_t>::max()) values.push_back(field.high + 1);
  return values;
}

void try_numbers(const FieldTable& table, const OrderedJson& body,
                 const std::function<void(const OrderedJson&)>& parse) {
  for (const Field& field : table.fields) {
    if (field.kind != FieldKind::integer && field.kind != FieldKind::number) continue;
    for (const OrderedJson& value : wrong_numbers(field)) {
      const ApiError error = refusal([&] { parse(with(body, field.name, value)); });
      EXPECT_EQ(error.param, field.name) << value;
      EXPECT_THAT(error.what(), HasSubstr("'" + field.name + "'"));
    }
    EXPECT_NO_THROW(parse(with(body, field.name, nullptr))) << field.name;
    const bool whole = field.kind == FieldKind::integer;
    for (const bool high : {false, true}) {
      const OrderedJson end =
          whole ? OrderedJson(high ? field.high : field.low) : OrderedJson(high ? field.most : field.least);
      OrderedJson at_the_end = with(body, field.name, end);
      if (field.name == "best_of") at_the_end["n"] = end;
      if (field.name == "top_logprobs") at_the_end["logprobs"] = true;
      if (field.name.starts_with("max_") && end == 0) at_the_end["echo"] = true;
      EXPECT_NO_THROW(parse(at_the_end)) << field.name << " " << end;
    }
  }
}

TEST(Requests, NumbersBeyondTheirRange) {
  try_numbers(chat_table(), chat_body(), [](const OrderedJson& body) { chat(body); });
  try_numbers(completion_table(), completion_body(), [](const OrderedJson& body) { completion(body); });
}

TEST(Requests, OtherTypes) {
  for (const FieldTable* table : {&chat_table(), &completion_table()}) {
    for (const Field& field : table->fields) {
      if (field.kind == FieldKind::any) continue;
      for (const OrderedJson& value :
           {OrderedJson(5), OrderedJson("x"), OrderedJson(true), OrderedJson::array({true})}) {
        const bool text = value.is_string() && (field.kind == FieldKind::text || field.kind == FieldKind::texts ||
                                                field.kind == FieldKind::prompt);
        const bool number = value.is_number() && (field.kind == FieldKind::number || field.kind == FieldKind::integer);
        const bool flag = value.is_boolean() && field.kind == FieldKind::boolean;
        if (text || number || flag) continue;
        const ApiError error = refusal([&] {
          if (table == &chat_table()) {
            chat(field.name, value);
          } else {
            completion(field.name, value);
          }
        });
        EXPECT_TRUE(error.param.starts_with(field.name)) << field.name << " " << value << " " << error.what();
      }
    }
  }
}

TEST(Requests, BodiesThatAreNoObjects) {
  const std::string deep = std::string(1'000'000, '[') + std::string(1'000'000, ']');
  for (const std::string& body :
       {std::string(), std::string("null"), std::string("[]"), std::string("{"), std::string("{\"n\": NaN}"),
        std::string("{\"n\": 1e999}"), std::string("{\"n\": 1, \"n\": 1}"), std::string("{\"a\": \"\\ud800\"}"),
        std::string("{\"a\": \"\xff\"}"), std::string("{\"a\": \"\\x\"}"), deep}) {
    const ApiError error = refusal([&] { parse_chat(body, kDefaults); });
    EXPECT_EQ(error.type, "invalid_request_error");
  }
}

TEST(Requests, UnknownFieldsArePassedOver) {
  EXPECT_NO_THROW(chat("frobnicate", {{"a", 1}}));
  EXPECT_NO_THROW(chat("messages", OrderedJson::array({with(user(), "frobnicate", 1)})));
}

TEST(Requests, EveryRefusedFieldIsNamedUnlessItAsksForNothing) {
  for (const FieldTable* table : {&chat_table(), &completion_table()}) {
    const auto parse = [&](const std::string& field, const OrderedJson& value) {
      if (table == &chat_table()) return void(chat(field, value));
      completion(field, value);
    };
    for (const Refused& refused : table->refused) {
      const ApiError error = refusal([&] { parse(refused.name, {{"some", "thing"}}); });
      EXPECT_EQ(error.param, refused.name);
      EXPECT_EQ(error.code, "unsupported_parameter");
      EXPECT_THAT(error.what(), HasSubstr(refused.instead));
      EXPECT_NO_THROW(parse(refused.name, nullptr));
      for (const OrderedJson& value : refused.neutral) EXPECT_NO_THROW(parse(refused.name, value)) << refused.name;
      EXPECT_EQ(table->find(refused.name), nullptr) << "refused and taken: " << refused.name;
    }
  }
  expect_chat_refused("functions", {{{"name", "f"}}}, "functions");
  EXPECT_THAT(chat_refusal("functions", {{{"name", "f"}}}).what(), HasSubstr("tools"));
  EXPECT_THAT(chat_refusal("guided_json", "{}").what(), HasSubstr("response_format"));
  expect_chat_refused("modalities", {"text", "audio"}, "modalities");
  expect_chat_refused("store", true, "store");
  expect_chat_refused("service_tier", "flex", "service_tier");
  expect_chat_refused("best_of", 2, "best_of");
  expect_chat_refused("echo", true, "echo");
}

TEST(Requests, StopTexts) {
  EXPECT_THAT(chat("stop", "x").options.stop, ElementsAre("x"));
  EXPECT_TRUE(chat("stop", OrderedJson::array()).options.stop.empty());
  EXPECT_EQ(chat("stop", std::vector<std::string>(16, "x")).options.stop.size(), 16u);
  expect_chat_refused("stop", std::vector<std::string>(17, "x"), "stop");
  expect_chat_refused("stop", "", "stop");
  expect_chat_refused("stop", {"a", ""}, "stop[1]");
  expect_chat_refused("stop", {"a", 5}, "stop[1]");
  expect_chat_refused("stop", std::string(1001, 'x'), "stop");
  EXPECT_THAT(completion("stop", "x").options.stop, ElementsAre("x"));
}

TEST(Requests, TokenIdsAndBiases) {
  expect_chat_refused("stop_token_ids", {1000}, "stop_token_ids[0]");
  expect_chat_refused("stop_token_ids", {1, -1}, "stop_token_ids[1]");
  for (const char* token : {"1000", "-1", "x", "", "1.0", "01", "+1", "99999999999999999999"})
    expect_chat_refused("logit_bias", {{token, 1}}, "logit_bias");
  expect_chat_refused("logit_bias", {{"1", 101}}, "logit_bias.1");
  expect_chat_refused("logit_bias", {{"1", "2"}}, "logit_bias.1");
  OrderedJson many = OrderedJson::object();
  for (int i = 0; i <= kMostBiases; ++i) many[std::to_string(i)] = 1;
  expect_chat_refused("logit_bias", many, "logit_bias");
}

TEST(Requests, FieldsThatNeedOthers) {
  expect_chat_refused("stream_options", {{"include_usage", true}}, "stream_options");
  expect_chat_refused("top_logprobs", 2, "top_logprobs");
  EXPECT_FALSE(chat("top_logprobs", 0).options.sampling.logprobs);
  EXPECT_EQ(chat("logprobs", true).options.sampling.logprobs, 0);
  OrderedJson stream = with(chat_body(), "stream", true);
  EXPECT_EQ(refusal([&] { chat(with(stream, "prompt_logprobs", 1)); }).param, "prompt_logprobs");
  stream["stream_options"] = {{"continuous_usage_stats", true}};
  EXPECT_EQ(refusal([&] { chat(stream); }).param, "stream_options.continuous_usage_stats");
  EXPECT_EQ(chat("prompt_logprobs", 20).options.prompt_logprobs, 20);
  EXPECT_EQ(completion("logprobs", 0).options.sampling.logprobs, 0);
}

TEST(Requests, Prompts) {
  using Ids = std::vector<int32_t>;
  EXPECT_THAT(completion("prompt", "a").prompts, ElementsAre(std::string("a")));
  EXPECT_THAT(completion("prompt", {"a", ""}).prompts, ElementsAre(std::string("a"), std::string()));
  EXPECT_THAT(completion("prompt", {1, 999}).prompts, ElementsAre(Ids{1, 999}));
  EXPECT_THAT(completion("prompt", {{1}, {2, 3}}).prompts, ElementsAre(Ids{1}, Ids{2, 3}));
  const auto param = [](const OrderedJson& prompt) { return refusal([&] { completion("prompt", prompt); }).param; };
  EXPECT_EQ(param(OrderedJson::array()), "prompt");
  EXPECT_EQ(param({1, 1000}), "prompt[1]");
  EXPECT_EQ(param({1, "a"}), "prompt[1]");
  EXPECT_EQ(param({"a", 1}), "prompt[1]");
  EXPECT_EQ(param({1.5}), "prompt[0]");
  EXPECT_EQ(param({{1}, {-1}}), "prompt[1][0]");
  EXPECT_EQ(param(OrderedJson::array({{1}, OrderedJson::array()})), "prompt[1]");
  EXPECT_EQ(param(std::vector<std::string>(1025, "a")), "prompt");
  EXPECT_EQ(refusal([] { completion({{"model", "m"}}); }).param, "prompt");
  const CompletionRequest request = completion(with(with(completion_body(), "echo", true), "n", 2));
  EXPECT_TRUE(request.echo && request.add_special_tokens);
  EXPECT_FALSE(request.scored_prompt());
  EXPECT_FALSE(completion("logprobs", 5).scored_prompt());
  EXPECT_EQ(completion("prompt_logprobs", 0).scored_prompt(), 0);
  const OrderedJson echoed = with(with(completion_body(), "echo", true), "logprobs", 5);
  EXPECT_EQ(completion(echoed).scored_prompt(), 5);
  EXPECT_EQ(completion(with(echoed, "prompt_logprobs", 7)).scored_prompt(), 7);
}

TEST(Requests, RoomForAnAnswer) {
  AnswerOptions o;
  EXPECT_EQ(answer_tokens(o, 10, 100, kCompletionTokens), 16);
  EXPECT_EQ(answer_tokens(o, 90, 100, kCompletionTokens), 10);
  EXPECT_EQ(answer_tokens(o, 10, 100, std::nullopt), 90);
  o.max_tokens = 90;
  EXPECT_EQ(answer_tokens(o, 10, 100, std::nullopt), 90);
  EXPECT_EQ(refusal([&] { answer_tokens(o, 11, 100, std::nullopt); }).code, "context_length_exceeded");
  EXPECT_EQ(refusal([&] { answer_tokens({}, 100, 100, 16); }).code, "context_length_exceeded");
  EXPECT_EQ(refusal([&] { answer_tokens({}, 0, 100, 16); }).param, "prompt");
}

TEST(Requests, OfTokensAndAdapters) {
  const TokenizeRequest text = parse_tokenize(R"({"model": "m", "prompt": "a", "return_token_strs": true})");
  EXPECT_EQ(std::get<std::string>(text.prompt), "a");
  EXPECT_TRUE(text.add_special_tokens && text.return_token_strs);
  const TokenizeRequest dialog = parse_tokenize(chat_body().dump());
  EXPECT_EQ(std::get<Dialog>(dialog.prompt).messages.size(), 1u);
  EXPECT_EQ(refusal([] { parse_tokenize("{}"); }).param, "prompt");
  EXPECT_EQ(refusal([] { parse_tokenize(R"({"prompt": 5})"); }).param, "prompt");
  EXPECT_THAT(parse_detokenize(R"({"tokens": [1, 2]})", kDefaults).tokens, ElementsAre(1, 2));
  EXPECT_EQ(refusal([] { parse_detokenize(R"({"tokens": [1, 5000]})", kDefaults); }).param, "tokens[1]");
  const LoadAdapterRequest load = parse_load_adapter(R"({"lora_name": "a.b_c-1", "lora_path": "/x"})");
  EXPECT_EQ(load.name, "a.b_c-1");
  EXPECT_EQ(load.path, "/x");
  EXPECT_FALSE(load.replace);
  for (const char* name : {"../x", "/x", "", "a b", "\\u0430", "a\\u0000"}) {
    const std::string body = fmt::format(R"({{"lora_name": "{}", "lora_path": "x"}})", name);
    EXPECT_EQ(refusal([&] { parse_load_adapter(body); }).param, "lora_name") << name;
  }
  EXPECT_EQ(refusal([] { parse_load_adapter(R"({"lora_name": "x"})"); }).param, "lora_path");
  EXPECT_EQ(refusal([] { parse_load_adapter(R"({"lora_name": "x", "lora_path": "a\u0000"})"); }).param, "lora_path");
  EXPECT_EQ(parse_unload_adapter(R"({"lora_name": "x"})").name, "x");
}

TEST(ApiErrors, HaveOpenAIsShape) {
  EXPECT_EQ(invalid_request("n", "no").body(),
            R"({"error":{"message":"no","type":"invalid_request_error","param":"n","code":null}})");
  EXPECT_EQ(model_not_found("x").status, 404u);
  EXPECT_EQ(model_not_found("x").code, "model_not_found");
  EXPECT_EQ(unauthorized().status, 401u);
  EXPECT_EQ(overloaded("").status, 429u);
  EXPECT_EQ(unavailable("").status, 503u);
  EXPECT_NO_THROW(OrderedJson::parse(internal_error("\xff").body()));
  const auto status = [](Fault fault) { return api_error_of(Error(fault, "x")).status; };
  EXPECT_EQ(status(Fault::bad_data), 400u);
  EXPECT_EQ(status(Fault::missing_input), 404u);
  EXPECT_EQ(status(Fault::non_finite), 500u);
  EXPECT_EQ(status(Fault::internal), 500u);
  EXPECT_EQ(status(Fault::rank_lost), 503u);
}

}  // namespace
}  // namespace drover::openai
