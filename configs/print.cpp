// A recipe as text: with every key and its origin, as the keys that a resumed run must share, and as help. Each is a
// visitor of `fields`.
#include <type_traits>

#include "configs/document.h"
#include "configs/recipe.h"
#include "configs/value.h"

namespace drover {

namespace {

struct Named {
  std::string prefix;
  void section(const std::string& name) { prefix = name.empty() ? "" : name + "."; }
};

// A key that lora.init_from supplies stands as a comment: the recipe's default is not its value.
struct Printer : Named {
  const std::map<std::string, std::string>& origins;
  bool has_first_adapter, says_origins;
  std::string text;

  Printer(const ReadRecipe& read, bool with_origins)
      : origins(read.origins), has_first_adapter(read.recipe.lora.init_from.has_value()), says_origins(with_origins) {}
  void section(const std::string& name) {
    Named::section(name);
    if (!name.empty()) text += name + ":\n";
  }
  template <typename T>
  void operator()(const char* name, const T& value, const Info& info) {
    const auto found = origins.find(prefix + name);
    const char* const indent = prefix.empty() ? "" : "  ";
    if (info.of_adapter && has_first_adapter && found == origins.end()) {
      text += fmt::format("{}# {}: as in the adapter of lora.init_from\n", indent, name);
    } else {
      const std::string origin = found == origins.end() ? "default" : shown(found->second, 1000);
      text += fmt::format("{}{}: {}{}\n", indent, name, yaml(value), says_origins ? "  # " + origin : "");
    }
  }
};

// Directories are nobody else's business. The words that stand for no path hold no slash.
struct Shorten : Named {
  static void shorten(std::string& path) {
    fs::path plain = path;
    if (!plain.has_filename()) plain = plain.parent_path();
    path = plain.filename().string();
  }
  static void shorten(std::vector<DataFile>& files) {
    for (DataFile& file : files) shorten(file.path);
  }
  template <typename T>
  void operator()(const char*, T& value, const Info& info) {
    if constexpr (std::is_same_v<T, std::string>) {
      if (info.path) shorten(value);
    } else if constexpr (std::is_same_v<T, std::optional<std::string>>) {
      if (info.path && value) shorten(*value);
    } else if constexpr (std::is_same_v<T, std::vector<DataFile>>) {
      shorten(value);
    } else if constexpr (std::is_same_v<T, Validation>) {
      shorten(value.files);
    }
  }
};

struct Identity : Named {
  std::map<std::string, std::string> values;
  template <typename T>
  void operator()(const char* name, const T& value, const Info& info) {
    if (info.identity) values[prefix + name] = yaml(value);
  }
};

template <typename T>
struct Bare {
  using type = T;
};
template <typename T>
struct Bare<std::optional<T>> {
  using type = T;
};

template <typename Value>
std::string type_name(const Info& info) {
  using T = typename Bare<Value>::type;
  if constexpr (std::is_same_v<T, bool>) return "true | false";
  if constexpr (std::is_same_v<T, int64_t>) return "whole number";
  if constexpr (std::is_same_v<T, double>) return "number";
  if constexpr (std::is_same_v<T, std::vector<double>>) return "list of numbers";
  if constexpr (std::is_same_v<T, TracedSteps>) return "none, A..B or list of whole numbers";
  if constexpr (std::is_same_v<T, Pattern>) return info.whole ? "mapping of whole numbers" : "mapping of numbers";
  if constexpr (std::is_same_v<T, FieldNames>) return "mapping of names";
  if constexpr (std::is_same_v<T, TargetModules>) return "text or list";
  if constexpr (std::is_same_v<T, std::vector<DataFile>> || std::is_same_v<T, Validation>)
    return "path, list or mapping";
  if (!info.allowed.empty()) return fmt::format("{}{}", fmt::join(info.allowed, " | "), info.path ? " | path" : "");
  return info.path ? "path" : "text";
}

struct Help : Named {
  std::string text;
  template <typename T>
  void operator()(const char* name, const T& value, const Info& info) {
    const std::string range = range_of(info);
    std::string notes = info.required ? "required" : "default " + yaml(value);
    if (!range.empty()) notes += "; " + range;
    if (!info.later.empty()) notes += fmt::format("; not built yet: {}", fmt::join(info.later, ", "));
    text += fmt::format("  {:<34} {}\n  {:<34} {} ({})\n", prefix + name, type_name<T>(info), "", info.help, notes);
  }
};

// Visits a copy: `fields` is not const, because the reader writes through it.
template <typename Visitor>
void visit(Recipe recipe, Visitor& visitor) {
  recipe.fields(visitor);
}

}  // namespace

std::string resolved_recipe(const ReadRecipe& read) {
  Printer printer(read, true);
  visit(read.recipe, printer);
  return printer.text;
}

std::string published_recipe(const ReadRecipe& read) {
  ReadRecipe shortened = read;
  Shorten shorten;
  shortened.recipe.fields(shorten);
  Printer printer(shortened, false);
  visit(shortened.recipe, printer);
  return printer.text;
}

std::map<std::string, std::string> identity(const Recipe& recipe) {
  Identity visitor;
  visit(recipe, visitor);
  return visitor.values;
}

std::string recipe_help() {
  Help help{{},
            "Keys of a recipe, also as section.key=value on the command line. Relative paths start at the current "
            "directory.\n"};
  visit(Recipe(), help);
  return help.text;
}

}  // namespace drover
