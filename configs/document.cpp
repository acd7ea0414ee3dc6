#include "configs/document.h"

#include <yaml-cpp/eventhandler.h>

#include <algorithm>
#include <sstream>
#include <utility>

#include "kernels/base/error.h"

namespace drover {

namespace {

constexpr size_t kMostBytes = size_t{1} << 20;
constexpr int kDeepest = 64;
constexpr size_t kMostProblemsShown = 100;

struct Finding {
  YAML::Mark mark;
  std::string message;
};

// Walks the events of one document before any node is built. What is thrown is too large to go on with.
class TrapFinder : public YAML::EventHandler {
 public:
  explicit TrapFinder(const DocumentKind& kind) : kind_(kind) {}
  std::vector<Finding> findings;

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { node(mark, "", anchor, nullptr); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    add(mark, in_a("aliases (*name)") + "; write the value out, or quote a text that starts with *");
    node(mark, "", 0, nullptr);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    node(mark, tag, anchor, &value);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, false);
  }
  void OnSequenceEnd() override { open_.pop_back(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, true);
  }
  void OnMapEnd() override { open_.pop_back(); }

 private:
  struct Collection {
    bool is_map = false, key_is_next = false;
    std::string path;                 // "lora."
    std::string key;                  // the last one read
    std::map<std::string, int> keys;  // → line
  };

  void add(const YAML::Mark& mark, const std::string& message) { findings.push_back({mark, message}); }
  std::string in_a(const std::string& what) const { return what + " are not allowed in a " + kind_.name; }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, bool is_map) {
    node(mark, tag, anchor, nullptr);
    if (open_.size() == kDeepest)
      throw YAML::Exception(mark,
                            fmt::format("it is nested deeper than {} levels; a {} has few", kDeepest, kind_.name));
    const std::string path = open_.empty() || !open_.back().is_map ? "" : open_.back().path + open_.back().key + ".";
    open_.push_back({is_map, is_map, path, "", {}});
  }

  void node(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, const std::string* scalar) {
    if (++nodes_ > kind_.most_values)
      throw YAML::Exception(mark, fmt::format("it has more than {} values", kind_.most_values));
    if (anchor != 0) add(mark, in_a("anchors (&name)"));
    if (!tag.empty() && tag != "?" && tag != "!") add(mark, in_a("tags (" + shown(tag) + ")"));
    if (open_.empty() || !open_.back().is_map) return;
    Collection& map = open_.back();
    if (map.key_is_next) read_key(map, mark, scalar);
    map.key_is_next = !map.key_is_next;
  }

  void read_key(Collection& map, const YAML::Mark& mark, const std::string* scalar) {
    if (scalar == nullptr) {
      add(mark, "a key must be a name");
      return;
    }
    map.key = *scalar;
    const std::string name = shown(map.path + map.key);
    if (map.key == "<<") {
      add(mark, in_a("merge keys (<<)") + "; write the values out");
      return;
    }
    const auto [first, is_new] = map.keys.emplace(map.key, mark.line + 1);
    if (!is_new) add(mark, fmt::format("{} is given twice (first on line {})", name, first->second));
  }

  const DocumentKind& kind_;
  std::vector<Collection> open_;
  int nodes_ = 0;
};

// The document in `text`; findings do not stop the reading, a YAML::Exception does.
YAML::Node parse_document(const std::string& text, const DocumentKind& kind, std::vector<Finding>& findings) {
  std::istringstream stream(text);
  YAML::Parser parser(stream);
  TrapFinder finder(kind);
  parser.HandleNextDocument(finder);
  findings = finder.findings;
  if (parser)
    findings.push_back(
        {YAML::Mark::null_mark(), fmt::format("a {} is one document; leave out the line --- between two", kind.name)});
  return YAML::Load(text);
}

bool continues_character(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

}  // namespace

std::string shown(const std::string& text, size_t most_bytes) {
  std::string result;
  for (char c : text) {
    if (result.size() >= most_bytes && !continues_character(c)) return result + "…";
    const bool control = static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
    result += c == '\t' ? ' ' : control ? '?' : c;
  }
  return result;
}

std::string RecipeDocument::excerpt(int line, int column) const {
  if (line < 1 || line > static_cast<int>(lines.size())) return {};
  const std::string& text = lines[static_cast<size_t>(line) - 1];
  size_t before = 0;  // characters, where the column counts bytes
  for (size_t i = 0; i + 1 < static_cast<size_t>(std::max(column, 1)) && i < text.size(); ++i)
    before += continues_character(text[i]) ? 0 : 1;
  const std::string caret = before < 160 ? "\n    " + std::string(before, ' ') + "^" : "";
  return "    " + shown(text, 160) + caret;
}

Entry RecipeDocument::entry_at(const YAML::Mark& mark) const {
  if (mark.is_null()) return {{}, file, file, 0, 0};
  const int line = mark.line + 1, column = mark.column + 1;
  return {{}, fmt::format("{}:{}:{}", file, line, column), fmt::format("{}:{}", file, line), line, column};
}

void RecipeDocument::complain(const Entry& entry, const std::string& message) {
  problems.push_back({entry.place, message, excerpt(entry.line, entry.column), entry.line, entry.column});
}

void RecipeDocument::complain(const YAML::Mark& mark, const std::string& message) { complain(entry_at(mark), message); }

void RecipeDocument::fail_if_wrong(const std::string& what) const {
  if (problems.empty()) return;
  std::vector<Problem> sorted = problems;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Problem& a, const Problem& b) {
    return std::pair(a.line, a.column) < std::pair(b.line, b.column);
  });
  std::string text = fmt::format("{} {} in {}:", sorted.size(), sorted.size() == 1 ? "problem" : "problems", what);
  for (size_t i = 0; i < sorted.size() && i < kMostProblemsShown; ++i) {
    text += fmt::format("\n  {}: {}{}{}", sorted[i].place, sorted[i].message, sorted[i].excerpt.empty() ? "" : "\n",
                        sorted[i].excerpt);
  }
  if (sorted.size() > kMostProblemsShown) text += fmt::format("\n  and {} more", sorted.size() - kMostProblemsShown);
  throw Error(Fault::bad_recipe, text);
}

void RecipeDocument::read(const fs::path& path) {
  std::string text;
  try {
    text = read_text(path, kMostBytes);
  } catch (const Error& error) {
    if (error.fault() != Fault::bad_data) throw;
    throw Error(Fault::bad_recipe, error.what());
  }
  parse(path.string(), text);
}

void RecipeDocument::parse(const std::string& name, const std::string& text) {
  file = name;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    if (line.ends_with('\r')) line.pop_back();
    lines.push_back(line);
  }
  for (size_t i = 0; i < lines.size(); ++i) {
    const size_t word = lines[i].find_first_not_of(" \t"), tab = lines[i].find('\t');
    if (tab == std::string::npos || tab > word) continue;
    YAML::Mark mark;
    mark.line = static_cast<int>(i), mark.column = static_cast<int>(tab);
    complain(mark, "a tab indents this line; YAML allows spaces only");
  }
  if (!problems.empty()) return;

  YAML::Node root;
  try {
    std::vector<Finding> findings;
    root = parse_document(text, kind, findings);
    for (const Finding& f : findings) complain(f.mark, f.message);
  } catch (const YAML::Exception& error) {
    complain(error.mark, fmt::format("this cannot be read as a {}: {}", kind.name, error.msg));
    return;
  }
  if (root.IsNull()) {
    complain(YAML::Mark(), fmt::format("the {} is empty; {}", kind.name, kind.least));
    return;
  }
  if (!root.IsMap()) {
    complain(root.Mark(), fmt::format("a {} is a mapping of {}", kind.name, kind.sections));
    return;
  }
  const auto insert = [&](const std::string& key, const YAML::Node& word, const YAML::Node& value) {
    if (!word.IsScalar() || word.Scalar() == "<<") return;  // reported already
    Entry entry = entry_at(word.Mark());
    entry.node = value;
    entries.emplace(key, entry);
  };
  for (const auto& pair : root) {
    if (!pair.first.IsScalar()) continue;
    const std::string section = pair.first.Scalar();
    if (!pair.second.IsMap() || pair.second.size() == 0) {
      insert(section, pair.first, pair.second);
      continue;
    }
    for (const auto& inner : pair.second) {
      if (inner.first.IsScalar()) insert(section + "." + inner.first.Scalar(), inner.first, inner.second);
    }
  }
}

namespace {

bool is_brackets(const std::string& value) {
  const bool list = value.starts_with('[') && value.ends_with(']');
  if (!list && !(value.starts_with('{') && value.ends_with('}'))) return false;
  try {
    return !YAML::Load(value).IsScalar();
  } catch (const YAML::Exception&) {
    return false;
  }
}

bool is_text(const std::string& value, Spelling spelling) {
  if (value.empty() || spelling == Spelling::yaml) return false;
  if (spelling == Spelling::text) return true;
  return value != "none" && value != "null" && (spelling == Spelling::optional_text || !is_brackets(value));
}

}  // namespace

void RecipeDocument::apply_override(const std::string& text, const std::map<std::string, Spelling>& spellings) {
  const size_t equals = text.find('=');
  Entry entry;
  entry.place = "command line: " + shown(text, 160);
  entry.origin = "command line";
  if (equals == std::string::npos || equals == 0) {
    complain(entry, "an override has the form section.key=value");
    return;
  }
  const std::string key = text.substr(0, equals), value = text.substr(equals + 1);
  const auto spelling = spellings.find(key);
  if (spelling != spellings.end() && is_text(value, spelling->second)) {
    entry.node = YAML::Node(value);
    entry.node.SetTag("!");  // as if quoted
    entries[key] = entry;
    return;
  }
  try {
    std::vector<Finding> findings;
    entry.node = parse_document(value, kind, findings);
    for (const Finding& f : findings) complain(entry, f.message);
  } catch (const YAML::Exception& error) {
    complain(entry, fmt::format("the value cannot be read: {}", error.msg));
    return;
  }
  entries[key] = entry;
}

}  // namespace drover
