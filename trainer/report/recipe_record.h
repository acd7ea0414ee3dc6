// recipe.yaml of a run, as trainer/run wrote it: a key a line, with its origin behind two spaces and #. A recipe of
// another version reads as well: keys are texts here, and nothing is checked.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace drover {

struct RecipeKey {
  std::string key;     // "lora.r"
  std::string value;   // as YAML
  std::string origin;  // "default", "command line", "recipe.yaml:12"; empty where none is said
};

struct RecipeRecord {
  std::string text;
  std::vector<RecipeKey> keys;  // in the file's order

  bool is_there() const { return !keys.empty(); }
  const RecipeKey* find(std::string_view key) const;
  std::optional<std::string> word(std::string_view key) const;  // without quotes; nothing for none
  std::optional<double> number(std::string_view key) const;
  bool is(std::string_view key, std::string_view value) const;
};

RecipeRecord parse_recipe_record(const std::string& text);

// A key whose value is not the same in all of several recipes; an absent one reads "–".
struct RecipeDifference {
  std::string key;
  std::vector<std::string> values;  // of each recipe
};
// But for output.dir, which always differs.
std::vector<RecipeDifference> recipe_differences(const std::vector<const RecipeRecord*>& recipes);

}  // namespace drover
