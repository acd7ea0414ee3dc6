// The fields of one mapping in a file of settings, read one by one. What is missing, wrong or left over is a problem of
// the document, with its line and column: RecipeDocument::fail_if_wrong then reports all of them.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "configs/document.h"

namespace drover {

// A number that somebody published. `date`: when, or when it was read where the place has no date; 2024, 2024-07 or
// 2024-07-23.
struct Figure {
  double value = 0;
  std::string source, date;
  bool operator==(const Figure&) const = default;
};

// Which of two figures counts: the one that makes a plan slower, smaller or dearer.
enum class Cautious : uint8_t { smaller, larger };

// The keys at the top of a document, in its order.
std::vector<std::string> sections_of(const RecipeDocument& document);

class FieldReader {
 public:
  // The keys `section.key` of the document; an empty section: its keys at the top.
  FieldReader(RecipeDocument& document, const std::string& section);
  // A mapping inside a value, which messages call `name`.
  FieldReader(RecipeDocument& document, const YAML::Node& mapping, const std::string& name);

  bool has(const std::string& key) const { return fields_.count(key) != 0; }
  // What is read of a field that is missing or wrong is of no use; fail_if_wrong comes before it is looked at.
  std::string text(const std::string& key);
  std::string date(const std::string& key);
  bool flag(const std::string& key);
  double above_zero(const std::string& key);
  double share(const std::string& key);  // above 0, at most 1
  int64_t whole_above_zero(const std::string& key);
  Figure figure(const std::string& key, Cautious cautious);  // {value, source, date}, or a list of two
  YAML::Node list(const std::string& key);                   // not empty

  void complain(const std::string& key, const std::string& message);  // at the field's value
  void finish(const std::vector<std::string>& known);                 // complains of every other key

 private:
  struct Field {
    YAML::Node node;
    Entry place;
  };
  std::string name_of(const std::string& key) const { return name_.empty() ? key : name_ + "." + key; }
  const Field* find(const std::string& key);  // null, and a problem, where it is missing from a mapping
  Figure one_figure(const YAML::Node& node, const std::string& name);
  template <typename T>
  T value(const std::string& key);

  RecipeDocument& document_;
  std::string name_;
  Entry start_;  // of the mapping
  bool is_mapping_ = true;
  std::map<std::string, Field> fields_;
};

}  // namespace drover
