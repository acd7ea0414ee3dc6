#include "configs/document.h"

#include <yaml-cpp/eventhandler.h>

#include <sstream>

#include "kernels/base/error.h"

namespace drover {

namespace {

constexpr size_t kMostBytes = size_t{1} << 20;
constexpr int kMostNodes = 1000, kDeepest = 64;

// Walks the file before anything is built: counts, and finds anchors, aliases and tags.
class Census : public YAML::EventHandler {
 public:
  struct Finding {
    YAML::Mark mark;
    std::string message;
  };
  std::vector<Finding> findings;

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { node(mark, "", anchor); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { findings.push_back({mark, "aliases (*name) are not allowed in a recipe; write the value out"}); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, const std::string&) override { node(mark, tag, anchor); }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YAML::EmitterStyle::value) override { open(mark, tag, anchor); }
  void OnSequenceEnd() override { --depth_; }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YAML::EmitterStyle::value) override { open(mark, tag, anchor); }
  void OnMapEnd() override { --depth_; }

 private:
  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    node(mark, tag, anchor);
    if (++depth_ == kDeepest + 1) findings.push_back({mark, "the recipe is nested too deep; a recipe has two levels"});
  }
  void node(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    if (++nodes_ == kMostNodes + 1) findings.push_back({mark, fmt::format("the recipe has more than {} values", kMostNodes)});
    if (anchor != 0) findings.push_back({mark, "anchors (&name) are not allowed in a recipe"});
    if (!tag.empty() && tag != "?" && tag != "!") findings.push_back({mark, "tags (" + tag + ") are not allowed in a recipe"});
  }
  int nodes_ = 0, depth_ = 0;
};

}  // namespace

std::string RecipeDocument::excerpt(int line, int column) const {
  if (line < 1 || line > static_cast<int>(lines.size())) return {};
  return fmt::format("    {}\n    {}^", lines[static_cast<size_t>(line) - 1], std::string(static_cast<size_t>(std::max(0, column - 1)), ' '));
}

Entry RecipeDocument::entry_at(const fs::path& file, const YAML::Node& node) const {
  const int line = node.Mark().line + 1, column = node.Mark().column + 1;
  return {node, fmt::format("{}:{}:{}", file.string(), line, column), fmt::format("{}:{}", file.string(), line), line, column};
}

void RecipeDocument::complain(const Entry& entry, const std::string& message) {
  problems.push_back({entry.place, message, excerpt(entry.line, entry.column), entry.line});
}

void RecipeDocument::read(const fs::path& file) {
  const std::string text = read_text(file, kMostBytes);
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  for (size_t i = 0; i < lines.size(); ++i) {
    const size_t word = lines[i].find_first_not_of(" \t"), tab = lines[i].find('\t');
    if (tab != std::string::npos && tab < word) {
      const int line = static_cast<int>(i) + 1, column = static_cast<int>(tab) + 1;
      problems.push_back({fmt::format("{}:{}:{}", file.string(), line, column), "a tab indents this line; YAML allows spaces only", excerpt(line, column), line});
    }
  }
  if (!problems.empty()) return;

  YAML::Node root;
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    Census census;
    parser.HandleNextDocument(census);
    for (const Census::Finding& f : census.findings) {
      const int line = f.mark.line + 1, column = f.mark.column + 1;
      problems.push_back({fmt::format("{}:{}:{}", file.string(), line, column), f.message, excerpt(line, column), line});
    }
    if (!problems.empty()) return;
    root = YAML::Load(text);
  } catch (const YAML::Exception& error) {
    const int line = error.mark.line + 1, column = error.mark.column + 1;
    problems.push_back({fmt::format("{}:{}:{}", file.string(), line, column), fmt::format("this is not valid YAML: {}", error.msg), excerpt(line, column), line});
    return;
  }
  if (root.IsNull()) {
    problems.push_back({file.string() + ":1:1", "the recipe is empty; it needs at least model.path, data.train and output.dir", "", 1});
    return;
  }
  if (!root.IsMap()) {
    complain(entry_at(file, root), "a recipe is a mapping of sections, such as model: or lora:");
    return;
  }
  const auto insert = [&](const std::string& key, const YAML::Node& name, const YAML::Node& value) {
    Entry entry = entry_at(file, name);
    entry.node = value;
    if (key.ends_with("<<")) {
      complain(entry, "merge keys (<<) are not allowed in a recipe; write the values out");
    } else if (!entries.emplace(key, entry).second) {
      complain(entry, fmt::format("{} is given twice (first at {})", key, entries.at(key).origin));
    }
  };
  std::map<std::string, int> sections;
  for (const auto& pair : root) {
    const std::string name = pair.first.IsScalar() ? pair.first.Scalar() : "?";
    if (!pair.second.IsMap()) {
      insert(name, pair.first, pair.second);
      continue;
    }
    if (sections[name]++ > 0) {
      complain(entry_at(file, pair.first), fmt::format("the section {} is given twice", name));
      continue;
    }
    for (const auto& inner : pair.second) insert(name + "." + (inner.first.IsScalar() ? inner.first.Scalar() : "?"), inner.first, inner.second);
  }
}

void RecipeDocument::apply_override(const std::string& text) {
  const size_t equals = text.find('=');
  Entry entry;
  entry.place = "command line: " + text;
  entry.origin = "command line";
  if (equals == std::string::npos || equals == 0) {
    complain(entry, "an override has the form section.key=value");
    return;
  }
  try {
    entry.node = YAML::Load(text.substr(equals + 1));
  } catch (const YAML::Exception& error) {
    complain(entry, fmt::format("the value is not valid YAML: {}", error.msg));
    return;
  }
  entries[text.substr(0, equals)] = entry;
}

}  // namespace drover
