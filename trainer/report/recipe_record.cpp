#include "trainer/report/recipe_record.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "kernels/base/unicode.h"

namespace drover {

namespace {

std::string trimmed(std::string_view text) { return std::string(strip(text)); }

// What stands behind the first colon, in two.
RecipeKey key_of(std::string_view line, size_t colon, const std::string& section) {
  std::string_view value = line.substr(colon + 1);
  std::string origin;
  if (const size_t hash = value.rfind("  # "); hash != value.npos) {
    origin = trimmed(value.substr(hash + 4));
    value = value.substr(0, hash);
  }
  const std::string name = trimmed(line.substr(0, colon));
  return {section.empty() ? name : section + "." + name, trimmed(value), origin};
}

}  // namespace

const RecipeKey* RecipeRecord::find(std::string_view key) const {
  const auto found = std::ranges::find(keys, key, &RecipeKey::key);
  return found == keys.end() ? nullptr : &*found;
}

std::optional<std::string> RecipeRecord::word(std::string_view key) const {
  const RecipeKey* found = find(key);
  if (found == nullptr || found->value == "none" || found->value.empty()) return std::nullopt;
  try {
    const YAML::Node node = YAML::Load(found->value);
    return node.IsScalar() ? node.Scalar() : found->value;
  } catch (const YAML::Exception&) {
    return found->value;
  }
}

std::optional<double> RecipeRecord::number(std::string_view key) const {
  const std::optional<std::string> text = word(key);
  double value = 0;
  if (!text) return std::nullopt;
  const auto [end, wrong] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (wrong != std::errc() || end != text->data() + text->size()) return std::nullopt;
  return value;
}

bool RecipeRecord::is(std::string_view key, std::string_view value) const { return word(key) == value; }

RecipeRecord parse_recipe_record(const std::string& text) {
  RecipeRecord record{.text = text};
  std::string section;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const size_t colon = line.find(':'), first = line.find_first_not_of(' ');
    if (first == line.npos || colon == line.npos || line[first] == '#') continue;
    if (first == 0) section.clear();
    const RecipeKey key = key_of(line, colon, section);
    if (first == 0 && key.value.empty()) {
      section = key.key;
    } else {
      record.keys.push_back(key);
    }
  }
  return record;
}

std::vector<RecipeDifference> recipe_differences(const std::vector<const RecipeRecord*>& recipes) {
  std::vector<RecipeDifference> differences;
  std::set<std::string> seen;
  for (const RecipeRecord* recipe : recipes) {
    for (const RecipeKey& key : recipe->keys) {
      if (key.key == "output.dir" || !seen.insert(key.key).second) continue;
      RecipeDifference difference{.key = key.key};
      for (const RecipeRecord* one : recipes) {
        const RecipeKey* found = one->find(key.key);
        difference.values.push_back(found == nullptr ? "–" : found->value);
      }
      if (std::ranges::adjacent_find(difference.values, std::not_equal_to<>()) != difference.values.end())
        differences.push_back(std::move(difference));
    }
  }
  return differences;
}

}  // namespace drover
