// A recipe's YAML as flat "section.key" → node, with every trap of YAML that could change a value's meaning reported instead of resolved.
#pragma once
#include <yaml-cpp/yaml.h>

#include <map>
#include <string>
#include <vector>

#include "kernels/base/file.h"

namespace drover {

struct Problem {
  std::string place;    // "recipe.yaml:3:5" or "command line"
  std::string message;
  std::string excerpt;  // the line and a caret; empty for the command line
  int line = 0;
};

struct Entry {
  YAML::Node node;
  std::string place, origin;  // "recipe.yaml:3:5", "recipe.yaml:3"
  int line = 0, column = 0;   // from 1; 0: the command line
};

struct RecipeDocument {
  std::map<std::string, Entry> entries;
  std::vector<Problem> problems;
  std::vector<std::string> lines;

  void read(const fs::path& file);
  void apply_override(const std::string& text);  // section.key=value
  void complain(const Entry& entry, const std::string& message);
  Entry entry_at(const fs::path& file, const YAML::Node& node) const;
  std::string excerpt(int line, int column) const;
};

}  // namespace drover
