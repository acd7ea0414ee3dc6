// A recipe's YAML, or that of another file of settings, as flat "section.key" → node, with every trap of YAML that
// could change a value's meaning reported instead of resolved: duplicate keys at any depth, merge keys, anchors,
// aliases, tags, tabs, a second document, sizes.
#pragma once
#include <yaml-cpp/yaml.h>

#include <map>
#include <string>
#include <vector>

#include "kernels/base/file.h"

namespace drover {

struct Problem {
  std::string place;  // "recipe.yaml:3:5" or "command line: lora.r=x"
  std::string message;
  std::string excerpt;  // the line and a caret; empty for the command line
  int line = 0, column = 0;
};

struct Entry {
  YAML::Node node;
  std::string place, origin;  // "recipe.yaml:3:5", "recipe.yaml:3"
  int line = 0, column = 0;   // of the key, from 1; 0: the command line
};

// What the text after `key=` on the command line is. A text is that text, whatever YAML would make of it; an optional
// one may be `none` or `null`; where a list or mapping may stand, what YAML reads as one in brackets is that.
enum class Spelling : uint8_t { yaml, text, optional_text, text_or_brackets };

// What messages call a file, and how much it may hold.
struct DocumentKind {
  std::string name = "recipe";  // with "a" and "the"
  std::string sections = "sections, such as model: or lora:";
  std::string least = "it needs at least model.path, data.train and output.dir";
  int most_values = 1000;
};

struct RecipeDocument {
  DocumentKind kind;
  std::string file;
  std::map<std::string, Entry> entries;
  std::vector<Problem> problems;
  std::vector<std::string> lines;

  void read(const fs::path& path);
  void parse(const std::string& name, const std::string& text);  // as the file `name` that holds `text`
  // `section.key=value`; keys that are not in `spellings` are read as YAML.
  void apply_override(const std::string& text, const std::map<std::string, Spelling>& spellings);
  void complain(const Entry& entry, const std::string& message);
  void complain(const YAML::Mark& mark, const std::string& message);
  Entry entry_at(const YAML::Mark& mark) const;
  std::string excerpt(int line, int column) const;
  // bad_recipe with all problems, in the file's order; nothing where there are none.
  void fail_if_wrong(const std::string& what) const;  // "the recipe a.yaml"
};

// Text of a file or of the command line as a message may show it: shortened, without control characters.
std::string shown(const std::string& text, size_t most_bytes = 80);

}  // namespace drover
