// Which schemas answers can be held to, and what is made of them.
#include "launch/grammar/answer_schema.h"

#include <gmock/gmock.h>

namespace drover {
namespace {

OrderedJson schema_of(const std::string& text, bool open = false) {
  return answer_schema(parse_ordered_json(text, "test"), open, "json_schema");
}

std::string why_not(const std::string& text) {
  try {
    schema_of(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::bad_data);
    return error.what();
  }
  return "";
}

TEST(AnswerSchema, SpellsItsDefaultsOut) {
  const auto made = [](const std::string& text, bool open = false) { return schema_of(text, open).dump(); };
  EXPECT_EQ(made(R"j({"type":"object","properties":{"b":{"type":"string"},"a":true}})j"),
            R"j({"type":"object","properties":{"b":{"type":"string"},"a":{}},"additionalProperties":false})j");
  EXPECT_EQ(made(R"j({"type":"object"})j"), R"j({"type":"object","additionalProperties":true,"properties":{}})j");
  EXPECT_EQ(made(R"j({"properties":{}})j", true), R"j({"properties":{},"type":"object","additionalProperties":true})j");
  EXPECT_EQ(made(R"j({"type":"array"})j"), R"j({"type":"array","items":{}})j");
  EXPECT_EQ(made(R"j({"type":"array","prefixItems":[true]})j"), R"j({"type":"array","prefixItems":[{}]})j");
  EXPECT_EQ(made(R"j({"minimum":3})j"), R"j({"minimum":3,"type":"number"})j");
  // What is required is there, also where nothing else is said of it.
  EXPECT_EQ(made(R"j({"type":"object","required":["x"],"additionalProperties":{"type":"null"}})j"),
            R"j({"type":"object","required":["x"],"additionalProperties":{"type":"null"},)j"
            R"j("properties":{"x":{"type":"null"}}})j");
  // Annotations, and words that nobody knows.
  EXPECT_EQ(made(R"j({"title":"t","x-order":3,"type":"null"})j"), R"j({"title":"t","x-order":3,"type":"null"})j");
}

TEST(AnswerSchema, RefusesWhatNoGrammarWouldHold) {
  const std::pair<const char*, const char*> cases[] = {
      {R"j([])j", "at #: it is a list; a schema is an object"},
      {R"j({"type":"object","properties":{"a":false}})j", "at #/properties/a: it is false"},
      {R"j({"type":"array","uniqueItems":true})j", "uniqueItems is not supported"},
      {R"j({"type":"array","items":{"not":{}}})j", "at #/items: not is not supported"},
      {R"j({"if":{},"then":{}})j", "if is not supported"},
      {R"j({"anyOf":[{}],"properties":{}})j", "anyOf with properties next to it"},
      {R"j({"anyOf":[{}],"oneOf":[{}]})j", "anyOf and oneOf in one schema"},
      {R"j({"type":"object","anyOf":[{}]})j", "anyOf with a type next to it"},
      {R"j({"anyOf":[]})j", "anyOf wants a list that is not empty"},
      {R"j({"allOf":[{},{}]})j", "allOf of more than one schema"},
      {R"j({"type":"string","enum":["a",1]})j", "the value 1 is not of its type"},
      {R"j({"minimum":1,"pattern":"a"})j", "give it a \"type\""},
      {R"j({"type":[]})j", "it has no type"},
      {R"j({"type":"string","pattern":"a","minLength":1})j", "pattern together with minLength or maxLength"},
      {R"j({"type":"string","maxLength":1001})j", "maxLength is 1001; it may be a whole number from 0 to 1000"},
      {R"j({"type":"array","minItems":-1})j", "minItems is -1"},
      {R"j({"type":"object","properties":{},"required":["a"]})j", "\"a\" is required and may not be there"},
      {R"j({"type":"string","pattern":"a\"b"})j", "a character that JSON escapes"},
      {R"j({"type":"string","pattern":"a\\\\b"})j", "\\\\, which is not supported"},
      {R"j({"type":"string","pattern":"a\\n"})j", "\\n, which is not supported"},
      {R"j({"type":"string","pattern":"(?=a)b"})j", "looks ahead"},
      {R"j({"type":"string","pattern":"a$|^b"})j", "a $ within"},
      {R"j({"type":"string","pattern":"((a{100}){100})"})j", "multiply to more than 1000"},
      {R"j({"type":"string","pattern":"a{99999999999999999999}"})j", "multiply to more than 1000"},
      {R"j({"$ref":"#"})j", "stands for itself"},
      {R"j({"$defs":{"a":{"anyOf":[{"$ref":"#/$defs/b"}]},"b":{"$ref":"#/$defs/a"}}})j", "stands for itself"},
      {R"j({"$ref":"other.json"})j", "there is no schema at other.json"},
      {R"j({"x":{},"$ref":"#/x"})j", "there is no schema at #/x"},
  };
  for (const auto& [text, why] : cases) EXPECT_THAT(why_not(text), testing::HasSubstr(why)) << text;
  EXPECT_EQ(why_not(R"j({"type":"string","pattern":"^[a$^({9999}]?$"})j"), "");
}

TEST(AnswerSchema, TakesRecursionThatHasAnEnd) {
  EXPECT_EQ(why_not(R"j({"type":"object","properties":{"next":{"anyOf":[{"$ref":"#"},{"type":"null"}]}}})j"), "");
  EXPECT_EQ(why_not(R"j({"$defs":{"n":{"type":"array","items":{"$ref":"#/$defs/n"}}},"$ref":"#/$defs/n"})j"), "");
}

TEST(AnswerSchema, IsBounded) {
  OrderedJson values = OrderedJson::array(), properties = OrderedJson::object();
  for (int i = 0; i < 1001; ++i) values.push_back(i);
  EXPECT_THAT(why_not(OrderedJson({{"enum", values}}).dump()), testing::HasSubstr("more than 1000 values"));
  for (int i = 0; i < 600; ++i) properties[fmt::format("p{}", i)] = {{"items", {{"type", "null"}}}};
  EXPECT_THAT(why_not(OrderedJson({{"properties", properties}}).dump()), testing::HasSubstr("more than 1000 parts"));
}

}  // namespace
}  // namespace drover
