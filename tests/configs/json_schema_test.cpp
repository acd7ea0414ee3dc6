// The recipe's JSON Schema takes what the reader takes, and finds by itself what the reader refuses in one value.
#include "configs/json_schema.h"

#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <regex>
#include <set>

#include "kernels/base/json.h"
#include "tests/configs/recipes.h"

namespace drover {
namespace {

// YAML as editors hand it to a schema: plain scalars are what YAML's core schema takes them for.
Json json_of(const YAML::Node& node) {
  if (node.IsMap()) {
    Json object = Json::object();
    for (const auto& pair : node) object[pair.first.Scalar()] = json_of(pair.second);
    return object;
  }
  if (node.IsSequence()) {
    Json list = Json::array();
    for (const YAML::Node& item : node) list.push_back(json_of(item));
    return list;
  }
  if (node.IsNull()) return nullptr;
  const std::string& text = node.Scalar();
  if (node.Tag() == "!") return text;
  if (text == "true" || text == "false") return text == "true";
  const char* const end = text.data() + text.size();
  int64_t whole = 0;
  if (const auto [at, code] = std::from_chars(text.data(), end, whole); code == std::errc() && at == end) return whole;
  double number = 0;
  if (const auto [at, code] = std::from_chars(text.data(), end, number); code == std::errc() && at == end)
    return number;
  return text;
}

bool is_type(const Json& value, const std::string& type) {
  if (type == "integer") return value.is_number_integer();
  if (type == "number") return value.is_number();
  return type == std::string(value.is_boolean() ? "boolean" : value.type_name());
}

std::map<std::string, Json> items_of(const Json& value) {
  return value.is_object() ? value.get<std::map<std::string, Json>>() : std::map<std::string, Json>{};
}

// The part of JSON Schema that ours uses; an unknown keyword fails the test.
bool valid(const Json& schema, const Json& value) {
  static const std::set<std::string> kNotes = {"$schema", "title", "description", "default", "examples"};
  const auto size = [&] { return static_cast<double>(value.size()); };
  for (const auto& [word, of] : schema.items()) {
    bool holds = true;
    if (word == "type") {
      const Json types = of.is_array() ? of : Json::array({of});
      holds = std::ranges::any_of(types, [&](const Json& type) { return is_type(value, type); });
    } else if (word == "enum") {
      holds = std::ranges::find(of, value) != of.end();
    } else if (word == "anyOf") {
      holds = std::ranges::any_of(of, [&](const Json& kind) { return valid(kind, value); });
    } else if (word == "not") {
      holds = !valid(of, value);
    } else if (word == "minimum" || word == "maximum") {
      holds = !value.is_number() || (word == "minimum" ? value >= of : value <= of);
    } else if (word == "exclusiveMinimum" || word == "exclusiveMaximum") {
      holds = !value.is_number() || (word == "exclusiveMinimum" ? value > of : value < of);
    } else if (word == "minLength") {
      holds = !value.is_string() || static_cast<double>(value.get<std::string>().size()) >= of;
    } else if (word == "pattern") {
      holds = !value.is_string() || std::regex_search(value.get<std::string>(), std::regex(of.get<std::string>()));
    } else if (word == "minItems" || word == "maxItems") {
      holds = !value.is_array() || (word == "minItems" ? size() >= of : size() <= of);
    } else if (word == "items") {
      holds = !value.is_array() || std::ranges::all_of(value, [&](const Json& item) { return valid(of, item); });
    } else if (word == "required") {
      holds = !value.is_object() || std::ranges::all_of(of, [&](const Json& name) { return value.contains(name); });
    } else if (word == "properties") {
      for (const auto& [name, kind] : of.items())
        holds = holds && (!value.is_object() || !value.contains(name) || valid(kind, value.at(name)));
    } else if (word == "propertyNames") {
      for (const auto& [name, item] : items_of(value)) holds = holds && valid(of, Json(name));
    } else if (word == "additionalProperties") {
      const Json known = schema.value("properties", Json::object());
      for (const auto& [name, item] : items_of(value)) {
        if (!known.contains(name)) holds = holds && (of.is_boolean() ? of.get<bool>() : valid(of, item));
      }
    } else {
      EXPECT_TRUE(kNotes.contains(word)) << word << " is no keyword that is looked at here";
    }
    if (!holds) return false;
  }
  return true;
}

bool accepts(const std::string& recipe) {
  static const Json schema = Json::parse(recipe_schema());
  return valid(schema, json_of(YAML::Load(recipe)));
}

TEST(JsonSchema, TakesWhatTheReaderTakes) {
  EXPECT_TRUE(accepts(kEverything));
  EXPECT_TRUE(accepts(kLeast));
  for (const char* more : {"lora: {target_modules: '.*(q|v)_proj', rank_pattern: none, init_from: none}\n",
                           "lora:\neval:\n", "train: {epochs: none, max_steps: 3}\n", "train: {epochs: 2.5}\n",
                           "checkpoint: {resume: never}\nparallel: {dp: none}\n", "log: {trace: none}\n",
                           "log: {trace: 7..7}\n", "log: {trace: [1, 100]}\n"}) {
    EXPECT_TRUE(accepts(kLeast + more)) << more;
    RecipeFile(kLeast + more).read();
  }
  for (const auto& entry : fs::directory_iterator(fs::path(DROVER_SOURCE_DIR) / "configs" / "recipes"))
    EXPECT_TRUE(accepts(read_text(entry.path()))) << entry.path();
  for (const Key& key : all_keys()) {
    for (const std::string word : key.info.allowed)
      EXPECT_TRUE(accepts(key.recipe_with(key.name, word))) << key.full() << ": " << word;
  }
}

TEST(JsonSchema, FindsWhatTheReaderRefusesInOneValue) {
  int refused = 0;
  const auto wrong = [&](const std::string& recipe) {
    EXPECT_FALSE(accepts(recipe)) << recipe;
    RecipeFile(recipe).refused();
    ++refused;
  };
  for (const Key& key : all_keys()) {
    wrong(key.recipe_with(key.name + "x", "1"));
    wrong(key.recipe_with(key.name, key.wrong));
    if (!key.info.allowed.empty() && !key.info.path) wrong(key.recipe_with(key.name, "sideways"));
    for (const char* later : key.info.later) wrong(key.recipe_with(key.name, later));
    if (!key.is_number) continue;
    wrong(key.recipe_with(key.name, fmt::format("{:.0f}", key.info.least - 1)));
    wrong(key.recipe_with(key.name, fmt::format("{:.0f}", key.info.most * 4)));
  }
  for (const char* text :
       {"model: {path: m}\ndata: {train: t}\n",
        "model: {path: m}\noutput: {dir: o}\n",
        "data: {train: t}\n",
        "model: {tokenizer: m}\ndata: {train: t}\noutput: {dir: o}\n",
        "model:\ndata: {train: t}\noutput: {dir: o}\n",
        "model: {path: m}\ndata: {train: []}\noutput: {dir: o}\n",
        "model: {path: m}\ndata: {train: [{format: text}]}\noutput: {dir: o}\n",
        "model: {path: m}\ndata: {train: [{path: a, repeat: 0}]}\noutput: {dir: o}\n",
        "model: {path: m}\ndata: {train: [{path: a, times: 2}]}\noutput: {dir: o}\n",
        "model: {path: m}\ndata: {train: t, validation: {share: 1}}\noutput: {dir: o}\n",
        "model: {path: m}\ndata: {train: t, validation: [{path: a, repeat: 2}]}\noutput: {dir: o}\n",
        "model: {path: m}\ndata: {train: t, fields: {txet: a}}\noutput: {dir: o}\n",
        "model: {path: m}\ndata: {train: t}\noutput: {dir: o}\nlora: {rank_pattern: {q_proj: 1.5}}\n",
        "model: {path: m}\ndata: {train: t}\noutput: {dir: o}\nlora: {target_modules: []}\n",
        "model: {path: m}\ndata: {train: t}\noutput: {dir: o}\noptim: {betas: [0.9]}\n",
        "model: {path: m}\ndata: {train: t}\noutput: {dir: o}\noptim: {warmup_ratio: 0.1, warmup_steps: 3}\n",
        "model: {path: m}\ndata: {train: t}\noutput: {dir: o}\ntrain: {epochs: 2, max_steps: 3}\n",
        "model: {path: m}\ndata: {train: t}\noutput: {dir: o}\nlog: {trace: 3}\n",
        "model: {path: m}\ndata: {train: t}\noutput: {dir: o}\nlog: {trace: 0..3}\n",
        "model: {path: m}\ndata: {train: t}\noutput: {dir: o}\nlog: {trace: [2.5]}\n",
        "model: {path: m}\ndata: {train: t}\noutput: {dir: o}\ntrainer: {epochs: 2}\n"}) {
    wrong(text);
  }
  EXPECT_GE(refused, 190);
}

TEST(JsonSchema, SaysWhatAKeyIs) {
  const Json schema = Json::parse(recipe_schema());
  EXPECT_EQ(schema.at("$schema"), "http://json-schema.org/draft-07/schema#");
  const Json& r = schema.at("properties").at("lora").at("properties").at("r");
  EXPECT_EQ(r, (Json{{"type", "integer"},
                     {"minimum", 1},
                     {"maximum", 4096},
                     {"default", 16},
                     {"description", "rank of the adapters"}}));
  EXPECT_EQ(schema.at("required"), (Json{"model", "data", "output"}));
  for (const Key& key : all_keys()) {
    const Json& section = key.section.empty() ? schema : schema.at("properties").at(key.section);
    const std::string help = section.at("properties").at(key.name).at("description");
    EXPECT_TRUE(help.starts_with(key.info.help)) << key.full();
    for (const char* later : key.info.later) EXPECT_NE(help.find(later), std::string::npos) << key.full();
  }
}

}  // namespace
}  // namespace drover
