// Answers that are drawn at random from what a grammar allows: whatever comes is JSON, and fits.
#include "launch/grammar/grammars.h"

#include <gmock/gmock.h>

#include <random>
#include <set>
#include <thread>

#include "kernels/backend.h"
#include "kernels/base/json.h"
#include "tests/data/tokenizer_files.h"

namespace drover {
namespace {

constexpr int64_t kVocab = 333;  // 302 tokens, then padding rows
constexpr int32_t kEnd = 300, kOtherSpecial = 301;

class GrammarsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!Grammars::available()) GTEST_SKIP() << "xgrammar is absent: DROVER_GRAMMAR=ON builds it";
  }
  ScratchDirectory directory;
  const Tokenizer tokenizer = open_with(directory, small_tokenizer({"<|end|>", "<|other|>"}));
  Grammars grammars{tokenizer, kVocab};

  std::shared_ptr<TokenFilter> filter(const Json& spec) { return grammars.filter(spec.dump(), std::vector{kEnd, -5}); }
  static Json schema_spec(const Json& schema, bool strict = true) {
    return {{"kind", "json_schema"}, {"schema", schema}, {"strict", strict}};
  }
  std::string why_not(const std::string& spec) {
    try {
      grammars.filter(spec, std::vector{kEnd});
    } catch (const Error& error) {
      EXPECT_EQ(error.fault(), Fault::bad_data);
      return error.what();
    }
    return "";
  }
};

std::vector<int32_t> allowed(TokenFilter& filter) {
  std::vector<uint32_t> bits(static_cast<size_t>(bit_words(kVocab)), ~uint32_t{0});
  filter.allow(bits);
  std::vector<int32_t> tokens;
  for (int32_t t = 0; t < static_cast<int32_t>(bits.size() * 32); ++t) {
    if ((bits[static_cast<size_t>(t) / 32] >> t % 32 & 1) != 0) tokens.push_back(t);
  }
  return tokens;
}

bool contains(const std::vector<int32_t>& tokens, int32_t token) {
  return std::ranges::find(tokens, token) != tokens.end();
}

void accept_all(TokenFilter& filter, const std::string& text) {
  for (const char c : text) ASSERT_TRUE(filter.accept(static_cast<unsigned char>(c))) << text << ": " << c;
}

// One of many answers; often a token that ends something, so that it comes to an end.
std::string drawn_answer(const Tokenizer& tokenizer, TokenFilter& filter, std::mt19937& random) {
  std::string text;
  for (int step = 0; step < 20'000; ++step) {
    std::vector<int32_t> tokens = allowed(filter);
    EXPECT_FALSE(tokens.empty()) << text;
    if (tokens.empty()) return text;
    std::vector<int32_t> ends;
    std::ranges::copy_if(tokens, std::back_inserter(ends), [](int32_t t) {
      return t == kEnd || (t < 128 && std::string_view("\"]}:,").find(static_cast<char>(t)) != std::string_view::npos);
    });
    if (!ends.empty() && random() % 2 == 0) tokens = ends;
    const int32_t token = tokens[random() % tokens.size()];
    EXPECT_TRUE(filter.accept(token)) << text << "; token " << token;
    if (token == kEnd) {
      EXPECT_TRUE(allowed(filter).empty());
      EXPECT_FALSE(filter.accept(token));
      return text;
    }
    text += tokenizer.raw_bytes(token);
  }
  ADD_FAILURE() << "no end: " << text.substr(0, 200);
  return text;
}

// As JSON; numbers too large for fp64 count as numbers.
Json parsed(const std::string& text) {
  EXPECT_TRUE(is_utf8(text));
  Json value;
  try {
    value = Json::parse(text);
  } catch (const Json::out_of_range&) {
    return nullptr;
  } catch (const Json::exception& error) {
    ADD_FAILURE() << error.what() << ": " << text;
  }
  return value;
}

bool is_type(const Json& value, const std::string& type) {
  if (type == "integer") return value.is_number_integer();
  return type == (value.is_object()    ? "object"
                  : value.is_array()   ? "array"
                  : value.is_string()  ? "string"
                  : value.is_boolean() ? "boolean"
                  : value.is_null()    ? "null"
                                       : "number");
}

size_t characters(const std::string& text) {
  return static_cast<size_t>(std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; }));
}

// The definition, for what the schemas below say.
bool fits(const Json& value, const Json& schema, const Json& root) {
  if (schema.contains("$ref"))
    return fits(value, root.at(Json::json_pointer(schema["$ref"].get<std::string>().substr(1))), root);
  if (schema.contains("const")) return value == schema["const"];
  if (schema.contains("enum")) return std::ranges::find(schema["enum"], value) != schema["enum"].end();
  const auto one_fits = [&](const Json& option) { return fits(value, option, root); };
  if (schema.contains("anyOf")) return std::ranges::any_of(schema["anyOf"], one_fits);
  if (schema.contains("type")) {
    const Json types = schema["type"].is_array() ? schema["type"] : Json::array({schema["type"]});
    if (!std::ranges::any_of(types, [&](const Json& t) { return is_type(value, t); })) return false;
  }
  if (value.is_number()) {
    if (schema.contains("minimum") && value < schema["minimum"]) return false;
    if (schema.contains("maximum") && value > schema["maximum"]) return false;
    if (schema.contains("exclusiveMinimum") && value <= schema["exclusiveMinimum"]) return false;
    return !schema.contains("exclusiveMaximum") || value < schema["exclusiveMaximum"];
  }
  if (value.is_string()) {
    const size_t length = characters(value.get<std::string>());
    return length >= schema.value("minLength", size_t{0}) && length <= schema.value("maxLength", size_t{1} << 30);
  }
  if (value.is_array()) {
    if (value.size() < schema.value("minItems", size_t{0}) || value.size() > schema.value("maxItems", size_t{1} << 30))
      return false;
    return std::ranges::all_of(value,
                               [&](const Json& v) { return fits(v, schema.value("items", Json::object()), root); });
  }
  if (!value.is_object()) return true;
  for (const Json& name : schema.value("required", Json::array())) {
    if (!value.contains(name.get<std::string>())) return false;
  }
  for (const auto& [name, member] : value.items()) {
    const bool known = schema.contains("properties") && schema["properties"].contains(name);
    const Json further = schema.value("additionalProperties", Json(false));
    if (!known && further == false) return false;
    if (!fits(member, known ? schema["properties"][name] : further.is_object() ? further : Json::object(), root))
      return false;
  }
  return true;
}

const std::vector<const char*> kSchemas = {
    R"({"type":"object","properties":{"name":{"type":"string"},"unit":{"enum":["°C","\"F\"",3,null]}},
        "required":["name"]})",
    R"({"type":"object","properties":{"a":{"type":"integer","minimum":-3,"maximum":120},
        "b":{"type":"number","exclusiveMinimum":0.25,"maximum":2.5},"c":{"type":["boolean","null"]}},
        "required":["a","b","c"]})",
    R"({"type":"array","items":{"type":"object","properties":{"x":{"type":"array","items":{"type":"integer"},
        "maxItems":2}},"required":["x"]},"minItems":1,"maxItems":3})",
    R"({"type":"object","properties":{"s":{"type":"string","minLength":2,"maxLength":4}},"required":["s"]})",
    R"({"anyOf":[{"type":"integer"},{"const":{"ä":[1,2.5,"ß"]}},{"type":"string"}]})",
    R"({"type":"object","additionalProperties":{"type":"boolean"}})",
    R"({"$defs":{"node":{"type":"object","properties":{"v":{"type":"integer"},
        "next":{"anyOf":[{"$ref":"#/$defs/node"},{"type":"null"}]}},"required":["v","next"]}},
        "$ref":"#/$defs/node"})",
};

TEST_F(GrammarsTest, AnswersFitTheirSchemas) {
  std::mt19937 random(1);
  for (const char* text : kSchemas) {
    const Json schema = Json::parse(text);
    std::set<std::string> answers;
    for (int i = 0; i < 25; ++i) {
      const std::string answer =
          drawn_answer(tokenizer, *filter({{"kind", "json_schema"}, {"schema", schema}}), random);
      EXPECT_TRUE(fits(parsed(answer), schema, schema)) << answer << "\n" << text;
      answers.insert(answer);
    }
    EXPECT_GT(answers.size(), 5u) << text;
  }
}

TEST_F(GrammarsTest, PatternsHoldForTheWholeText) {
  std::mt19937 random(2);
  for (const char* pattern : {"^[a-c]{2,3}-\\d+$", ".{3}", "[^a]{2}", "\\W\\S\\D", "\\s{2}"}) {
    for (int i = 0; i < 25; ++i) {
      const Json spec = schema_spec({{"type", "string"}, {"pattern", pattern}});
      const Json value = parsed(drawn_answer(tokenizer, *filter(spec), random));
      ASSERT_TRUE(value.is_string());
      if (pattern[0] != '^') continue;
      EXPECT_THAT(value.get<std::string>(), testing::MatchesRegex("[a-c][a-c][a-c]?-[0-9]+"));
    }
  }
}

TEST_F(GrammarsTest, AnyObject) {
  std::mt19937 random(3);
  std::set<std::string> answers;
  for (int i = 0; i < 40; ++i) {
    const std::string answer = drawn_answer(tokenizer, *filter({{"kind", "json_object"}}), random);
    const Json value = parsed(answer);
    EXPECT_TRUE(value.is_object() || value.is_null()) << answer;
    answers.insert(answer);
  }
  EXPECT_GT(answers.size(), 10u);
}

TEST_F(GrammarsTest, NotStrictLeavesObjectsOpen) {
  const Json schema = {{"type", "object"}, {"properties", {{"a", {{"type", "null"}}}}}};
  accept_all(*filter(schema_spec(schema, false)), "{\"zz\": [1]}");
  const auto strict = filter(schema_spec(schema));
  accept_all(*strict, "{\"");
  EXPECT_FALSE(strict->accept('z'));
}

const Json kTools = Json::parse(R"([
  {"type":"function","function":{"name":"get \"it\"","parameters":{"type":"object",
    "properties":{"city":{"type":"string"},"n":{"type":"integer"}},"required":["city"]}}},
  {"type":"function","function":{"name":"now"}}])");

TEST_F(GrammarsTest, CallsOfTools) {
  std::mt19937 random(4);
  const auto called = [&](const Json& spec) {
    const std::string answer = drawn_answer(tokenizer, *filter(spec), random);
    const Json call = parsed(answer);
    EXPECT_TRUE(answer.starts_with("{\"name\": \"")) << answer;
    EXPECT_EQ(call.size(), 2u) << answer;
    const std::string name = call.at("name");
    const Json schema = name == "now" ? Json{{"type", "object"}} : kTools[0]["function"]["parameters"];
    EXPECT_TRUE(fits(call.at("parameters"), schema, schema)) << answer;
    return name;
  };
  std::set<std::string> names;
  for (int i = 0; i < 25; ++i) {
    names.insert(called({{"kind", "tools"}, {"tools", kTools}}));
    EXPECT_EQ(called({{"kind", "tools"}, {"tools", kTools}, {"name", "get \"it\""}}), "get \"it\"");
  }
  EXPECT_EQ(names, (std::set<std::string>{"get \"it\"", "now"}));
}

TEST_F(GrammarsTest, SeveralCallsWhereTheyMayBeParallel) {
  const std::string one = R"({"name": "now", "parameters": {}})";
  const auto many = filter({{"kind", "tools"}, {"tools", kTools}, {"parallel", true}});
  accept_all(*many, one);
  EXPECT_TRUE(contains(allowed(*many), kEnd));
  accept_all(*many, "; " + one + "; " + one);
  EXPECT_TRUE(many->accept(kEnd));
  const auto single = filter({{"kind", "tools"}, {"tools", kTools}});
  accept_all(*single, one);
  EXPECT_EQ(allowed(*single), std::vector{kEnd});
}

TEST_F(GrammarsTest, EndOnlyWhereTheAnswerIsWhole) {
  const Json spec =
      schema_spec({{"type", "object"}, {"properties", {{"a", {{"type", "string"}}}}}, {"required", {"a"}}});
  const auto f = filter(spec);
  const std::string text = R"({"a": "x"})";
  for (size_t i = 0; i <= text.size(); ++i) {
    const std::vector<int32_t> tokens = allowed(*f);
    EXPECT_EQ(contains(tokens, kEnd), i == text.size()) << text.substr(0, i);
    for (const int32_t t : tokens) EXPECT_TRUE(t < 262 || t == kEnd) << t;
    if (i < text.size()) {
      ASSERT_TRUE(f->accept(text[i]));
    }
  }
  // A stop id that is text ends the answer, and is no part of it.
  const auto ends_in_x = grammars.filter(spec.dump(), std::vector<int32_t>{'x'});
  accept_all(*ends_in_x, R"({"a": ")");
  EXPECT_FALSE(contains(allowed(*ends_in_x), 'x'));
  EXPECT_FALSE(ends_in_x->accept('x'));
  accept_all(*ends_in_x, R"(y"})");
  EXPECT_TRUE(contains(allowed(*ends_in_x), 'x'));
}

TEST_F(GrammarsTest, WhatMayNotComeIsNotAcceptedAndChangesNothing) {
  const auto f = filter(schema_spec({{"const", "the"}}));
  const std::vector<int32_t> before = allowed(*f);
  for (const int32_t wrong : {int32_t{'x'}, 257, kEnd, kOtherSpecial, 320, -1, 100'000}) {
    EXPECT_FALSE(f->accept(wrong)) << wrong;
    EXPECT_EQ(allowed(*f), before) << wrong;
  }
  EXPECT_TRUE(f->accept('"'));
  EXPECT_TRUE(f->accept(257));  // "the"
  EXPECT_TRUE(f->accept('"'));
}

// Grammars of sets of characters leave more through than there are characters.
TEST_F(GrammarsTest, BytesMakeCharacters) {
  const auto f = filter(schema_spec({{"type", "string"}, {"pattern", ".{2}"}}));
  accept_all(*f, "\"");
  for (const int32_t never : {0x80, 0xC0, 0xC1, 0xF5, 0xFF}) EXPECT_FALSE(contains(allowed(*f), never)) << never;
  ASSERT_TRUE(f->accept(0xED));
  EXPECT_TRUE(contains(allowed(*f), 0x9F));
  EXPECT_FALSE(contains(allowed(*f), 0xA0));  // a surrogate
  EXPECT_FALSE(contains(allowed(*f), 'a'));
  EXPECT_FALSE(f->accept(0xA0));
  ASSERT_TRUE(f->accept(0x9F));
  ASSERT_TRUE(f->accept(0xBF));
  EXPECT_TRUE(contains(allowed(*f), 'a'));
}

TEST_F(GrammarsTest, HostileSchemasAreAnsweredSoon) {
  const auto spec = [](const std::string& schema) { return R"({"kind":"json_schema","schema":)" + schema + "}"; };
  const auto repeated = [](size_t n, const std::string& text) {
    std::string all;
    for (size_t i = 0; i < n; ++i) all += text;
    return all;
  };
  EXPECT_THAT(why_not(spec(R"({"$ref":"#"})")), testing::HasSubstr("stands for itself"));
  EXPECT_THAT(why_not(spec(repeated(1000, R"({"items":)") + "{}" + repeated(1000, "}"))), testing::HasSubstr("64"));
  EXPECT_EQ(why_not(spec(repeated(30, R"({"items":)") + "{}" + repeated(30, "}"))), "");
  EXPECT_THAT(why_not(spec("\"" + std::string(300'000, 'a') + "\"")), testing::HasSubstr("262144 are the most"));
  EXPECT_EQ(why_not(spec(R"({"type":"string","pattern":"(((((a*)*)*)*)*)*b"})")), "");
  EXPECT_EQ(why_not(spec(R"({"type":"array","minItems":1000,"items":{"type":"array","minItems":1000}})")), "");
  EXPECT_THAT(why_not(spec(R"({"type":"string","pattern":"[a"})")), testing::HasSubstr("no grammar can be made"));
  std::string chain = R"({"$ref":"#/$defs/d0","$defs":{)";
  for (int i = 0; i < 900; ++i) chain += fmt::format(R"("d{}":{{"$ref":"#/$defs/d{}"}},)", i, i + 1);
  EXPECT_EQ(why_not(spec(chain + R"("d900":{"type":"null"}}})")), "");
}

TEST_F(GrammarsTest, SaysWhatIsWrongWithASpec) {
  const std::pair<const char*, const char*> cases[] = {
      {"{", "not valid JSON"},
      {R"({"kind":"yaml"})", "allowed are json_object, json_schema and tools"},
      {R"({"kind":"json_schema"})", "\"schema\" is missing"},
      {R"({"kind":"json_schema","schema":{},"strict":1})", "\"strict\" is 1"},
      {R"({"kind":"tools","tools":[]})", "there is no tool"},
      {R"({"kind":"tools","tools":[{"function":{"name":"a"}}],"name":"b"})", "no tool has the name \"b\""},
      {R"({"kind":"tools","tools":[{"function":{"name":"a"}},{"function":{"name":"a"}}]})", "two tools have the name"},
      {R"({"kind":"tools","tools":[{"function":{"name":"a","parameters":{"type":"string"}}}]})", "not \"object\""},
      {R"({"kind":"tools","tools":[{"function":{"name":"a","parameters":{"not":{}}}}]})", "the tool \"a\": the schema"},
  };
  for (const auto& [spec, why] : cases) EXPECT_THAT(why_not(spec), testing::HasSubstr(why)) << spec;
  EXPECT_THROW(grammars.filter(R"({"kind":"json_object"})", {}), Error);
}

TEST_F(GrammarsTest, ServesThreads) {
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (size_t i = 0; i < 12; ++i) {
        const Json schema = Json::parse(kSchemas[(t + i) % kSchemas.size()]);
        const std::string answer =
            drawn_answer(tokenizer, *filter({{"kind", "json_schema"}, {"schema", schema}}), random);
        EXPECT_TRUE(fits(parsed(answer), schema, schema)) << answer;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(GrammarsAbsent, AreSaidToBe) {
  if (Grammars::available()) return;
  ScratchDirectory directory;
  const Tokenizer tokenizer = open_with(directory, small_tokenizer({}));
  try {
    Grammars(tokenizer, 262).filter(R"({"kind":"json_object"})", std::vector{1});
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::usage);
    EXPECT_THAT(error.what(), testing::HasSubstr("this build has no xgrammar"));
  }
}

}  // namespace
}  // namespace drover
