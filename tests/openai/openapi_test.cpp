// openapi.json: whole by itself, and with every field that requests are read by.
#include "launch/openai/openapi.h"

#include <gtest/gtest.h>

#include <functional>

#include "launch/openai/field_table.h"

namespace drover::openai {
namespace {

const Json kDocument = Json::parse(openapi_json("1.2.3"));

void each(const Json& value, const std::function<void(const Json&)>& visit) {
  visit(value);
  if (!value.is_structured()) return;
  for (const Json& part : value) each(part, visit);
}

TEST(OpenApi, BeginsAsTheStandardHasIt) {
  EXPECT_EQ(kDocument["openapi"], "3.0.3");
  EXPECT_EQ(kDocument["info"]["version"], "1.2.3");
  EXPECT_EQ(kDocument["paths"].size(), 12u);
  for (const auto& [path, methods] : kDocument["paths"].items()) {
    EXPECT_EQ(path.front(), '/');
    for (const auto& [method, operation] : methods.items()) {
      EXPECT_EQ(operation.contains("requestBody"), method == "post") << path;
      for (const auto& [status, response] : operation["responses"].items())
        EXPECT_TRUE(response["description"].is_string()) << path << status;
    }
  }
}

TEST(OpenApi, ReferencesLeadSomewhereAndEverySchemaIsUsed) {
  std::set<std::string> used;
  each(kDocument, [&](const Json& value) {
    if (!value.is_object() || !value.contains("$ref")) return;
    const std::string target = value["$ref"];
    EXPECT_EQ(value.size(), 1u) << target;
    EXPECT_TRUE(target.starts_with("#/")) << target;
    EXPECT_TRUE(kDocument.contains(Json::json_pointer(target.substr(1)))) << target;
    used.insert(target.substr(target.rfind('/') + 1));
  });
  EXPECT_EQ(used.size(), kDocument["components"]["schemas"].size());
}

TEST(OpenApi, SchemasAreOfTheStandardsWords) {
  const std::set<std::string> words{"type",
                                    "format",
                                    "minimum",
                                    "maximum",
                                    "enum",
                                    "minLength",
                                    "maxLength",
                                    "pattern",
                                    "minItems",
                                    "maxItems",
                                    "items",
                                    "properties",
                                    "required",
                                    "anyOf",
                                    "allOf",
                                    "nullable",
                                    "description",
                                    "$ref",
                                    "additionalProperties",
                                    "maxProperties"};
  const std::function<void(const Json&)> check = [&](const Json& schema) {
    ASSERT_TRUE(schema.is_object()) << schema;
    for (const auto& [word, value] : schema.items()) {
      EXPECT_EQ(words.count(word), 1u) << word;
      if (word == "properties") {
        for (const auto& [name, property] : value.items()) check(property);
      }
      if (word == "items" || word == "additionalProperties") check(value);
      if (word == "anyOf" || word == "allOf") {
        for (const Json& one : value) check(one);
      }
      EXPECT_EQ(value.is_string(),
                word == "type" || word == "format" || word == "pattern" || word == "description" || word == "$ref")
          << word;
      EXPECT_EQ(value.is_array(), word == "required" || word == "enum" || word == "anyOf" || word == "allOf") << word;
    }
    EXPECT_EQ(schema.contains("items"), schema.value("type", "") == "array") << schema;
  };
  for (const auto& [name, schema] : kDocument["components"]["schemas"].items()) check(schema);
}

void expect_described(const FieldTable& table, std::set<std::string>& seen) {
  if (!seen.insert(table.name).second) return;
  const Json& schema = kDocument["components"]["schemas"][table.name];
  EXPECT_EQ(schema["properties"].size(), table.fields.size()) << table.name;
  for (const Field& field : table.fields) {
    ASSERT_TRUE(schema["properties"].contains(field.name)) << table.name << " " << field.name;
    const Json& property = schema["properties"][field.name];
    EXPECT_EQ(property["description"], field.about);
    EXPECT_EQ(property.value("nullable", false), !field.required);
    if (field.kind == FieldKind::integer) {
      EXPECT_EQ(property["minimum"], field.low);
      EXPECT_EQ(property["maximum"], field.high);
    }
    if (field.kind == FieldKind::number) {
      EXPECT_EQ(property["minimum"], field.least);
      EXPECT_EQ(property["maximum"], field.most);
    }
    if (field.of) expect_described(*field.of, seen);
  }
  for (const Refused& refused : table.refused) EXPECT_FALSE(schema["properties"].contains(refused.name));
}

TEST(OpenApi, EveryFieldOfTheTables) {
  std::set<std::string> seen;
  for (const Endpoint& endpoint : endpoints()) {
    const Json& operation = kDocument["paths"][endpoint.path][endpoint.method];
    for (const FieldTable* table : endpoint.bodies) {
      expect_described(*table, seen);
      EXPECT_NE(operation["requestBody"].dump().find("/" + table->name + "\""), std::string::npos);
    }
  }
  EXPECT_EQ(seen.size(), 18u);
}

TEST(OpenApi, SomeOfTheChatSchema) {
  const Json& chat = kDocument["components"]["schemas"]["ChatCompletionRequest"];
  EXPECT_EQ(chat.value("required", Json()), Json::array({"messages"}));
  const Json& fields = chat["properties"];
  EXPECT_EQ(fields["n"]["maximum"], 16);
  EXPECT_EQ(fields["messages"]["items"]["$ref"], "#/components/schemas/Message");
  EXPECT_EQ(fields["stop"]["anyOf"][1]["maxItems"], 16);
  EXPECT_EQ(fields["tool_choice"]["anyOf"][0]["enum"], Json::array({"none", "auto", "required"}));
  EXPECT_EQ(fields["logit_bias"]["additionalProperties"]["minimum"], -100);
  EXPECT_TRUE(
      kDocument["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"].contains("text/event-stream"));
}

}  // namespace
}  // namespace drover::openai
