// One value of a recipe: from a YAML node with what is allowed, and back to YAML text that reads as the same value.
#pragma once
#include <yaml-cpp/yaml.h>

#include <map>

#include "configs/schema.h"
#include "kernels/base/error.h"

namespace drover {

// Each read gives an empty text, or what is wrong and what is allowed; `value` is then unspecified.
// wrong_at() is the inner item (of a list or mapping) that is wrong, null where it is the value itself.
class ValueReader {
 public:
  explicit ValueReader(const Info& info) : info_(&info) {}
  YAML::Mark wrong_at() const { return wrong_at_; }

  std::string read(const YAML::Node& node, bool& value);
  std::string read(const YAML::Node& node, int64_t& value);
  std::string read(const YAML::Node& node, double& value);
  std::string read(const YAML::Node& node, std::string& value);
  std::string read(const YAML::Node& node, std::vector<double>& value);
  std::string read(const YAML::Node& node, TargetModules& value);
  std::string read(const YAML::Node& node, TracedSteps& value);
  std::string read(const YAML::Node& node, Pattern& value);
  std::string read(const YAML::Node& node, FieldNames& value);
  std::string read(const YAML::Node& node, DataFile& value);
  std::string read(const YAML::Node& node, std::vector<DataFile>& value);
  std::string read(const YAML::Node& node, Validation& value);
  template <Choice E>
  std::string read(const YAML::Node& node, E& value) {
    std::string word;
    const std::string wrong = read_choice(node, word);
    if (wrong.empty()) require(read_word(word, value), "what a key allows are words of its enum");
    return wrong;
  }
  template <typename T>
  std::string read(const YAML::Node& node, std::optional<T>& value) {
    if (is_none(node)) return {};
    return read(node, value.emplace());
  }

  static bool is_none(const YAML::Node& node);  // nothing, null or the word none, not in quotes

 private:
  std::string read_choice(const YAML::Node& node, std::string& word);  // one of those that are allowed
  std::string out_of_range(double value) const;
  std::string at(const YAML::Node& item, const std::string& wrong);
  const Info* info_;
  YAML::Mark wrong_at_ = YAML::Mark::null_mark();
};

std::string range_of(const Info& info);  // "1 to 4096", "at least 0", "" where there is no limit

std::string yaml(bool value);
std::string yaml(int64_t value);
std::string yaml(double value);
std::string yaml(const std::string& value);
std::string yaml(const std::vector<double>& value);
std::string yaml(const TargetModules& value);
std::string yaml(const TracedSteps& value);
std::string yaml(const Pattern& value);
std::string yaml(const FieldNames& value);
std::string yaml(const DataFile& value);
std::string yaml(const std::vector<DataFile>& value);
std::string yaml(const Validation& value);
template <Choice E>
std::string yaml(E value) {
  return yaml(std::string(word_of(value)));
}
template <typename T>
std::string yaml(const std::optional<T>& value) {
  return value ? yaml(*value) : "none";
}

}  // namespace drover
