// Writing, reading and refusing recipes in tests, and the list of all keys by visiting the schema.
#pragma once
#include <fstream>
#include <string>
#include <type_traits>
#include <vector>

#include "configs/recipe.h"
#include "tests/base/scratch_directory.h"

namespace drover {

inline const std::string kLeast = "model: {path: m}\ndata: {train: t.jsonl}\noutput: {dir: o}\n";

class RecipeFile {
 public:
  explicit RecipeFile(const std::string& text) { std::ofstream(path(), std::ios::binary) << text; }
  fs::path path() const { return directory_ / "recipe.yaml"; }
  std::string at(int line, int column) const { return fmt::format("{}:{}:{}: ", path().string(), line, column); }
  ReadRecipe read(const std::vector<std::string>& overrides = {}) const { return read_recipe(path(), overrides); }

  // The message; a recipe that is accepted or leaves with another code fails the test.
  std::string refused(const std::vector<std::string>& overrides = {}) const {
    try {
      read(overrides);
    } catch (const Error& error) {
      EXPECT_EQ(static_cast<int>(error.fault()), static_cast<int>(Fault::bad_recipe)) << error.what();
      return error.what();
    }
    ADD_FAILURE() << "the recipe was accepted";
    return {};
  }

 private:
  ScratchDirectory directory_;
};

inline Recipe recipe_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return RecipeFile(text).read(overrides).recipe;
}
inline std::string refusal_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return RecipeFile(text).refused(overrides);
}

struct Key {
  std::string section, name, wrong;  // `wrong`: a value of another type
  Info info;
  bool is_number = false;
  std::string full() const { return section.empty() ? name : section + "." + name; }
  // The least recipe without this key's own line, and the key with `value` at line 1 (alone) or 2 (in its section).
  std::string recipe_with(const std::string& key, const std::string& value) const {
    std::string text = section.empty() ? key + ": " + value + "\n" : section + ":\n  " + key + ": " + value + "\n";
    if (section != "model") text += "model: {path: m}\n";
    if (section != "data") text += "data: {train: t.jsonl}\n";
    if (section != "output") text += "output: {dir: o}\n";
    if (section == "model" && name != "path") text.insert(text.find('\n') + 1, "  path: m\n");
    if (section == "data" && name != "train") text.insert(text.find('\n') + 1, "  train: t.jsonl\n");
    if (section == "output" && name != "dir") text.insert(text.find('\n') + 1, "  dir: o\n");
    return text;
  }
  int line() const {
    if (section.empty()) return 1;
    const bool beside_required = (section == "model" && name != "path") || (section == "data" && name != "train") ||
                                 (section == "output" && name != "dir");
    return beside_required ? 3 : 2;
  }
  int column() const { return section.empty() ? 1 : 3; }
};

struct KeyCollector {
  std::vector<Key> keys;
  std::string current;
  void section(const std::string& name) { current = name; }
  template <typename T>
  void operator()(const char* name, T&, const Info& info) {
    constexpr bool is_int = std::is_same_v<T, int64_t> || std::is_same_v<T, std::optional<int64_t>>;
    constexpr bool is_double = std::is_same_v<T, double> || std::is_same_v<T, std::optional<double>>;
    const char* wrong = "[[a]]";
    if constexpr (std::is_same_v<T, bool>) wrong = "yes";
    if constexpr (is_int) wrong = "1.5";
    if constexpr (is_double) wrong = "many";
    if constexpr (std::is_same_v<T, Pattern>) wrong = "5";
    keys.push_back({current, name, wrong, info, is_int || is_double});
  }
};

inline std::vector<Key> all_keys() {
  KeyCollector collector;
  Recipe recipe;
  recipe.fields(collector);
  return collector.keys;
}

}  // namespace drover
