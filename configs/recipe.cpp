#include "configs/recipe.h"

#include <algorithm>
#include <set>
#include <type_traits>

#include "configs/document.h"
#include "configs/foreign.h"
#include "configs/value.h"
#include "kernels/base/hub_cache.h"
#include "kernels/base/log.h"

namespace drover {

namespace {

// Reads every field from the document's entries; what cannot be read is a problem and leaves the default.
class Reader {
 public:
  Reader(RecipeDocument& document, ReadRecipe& read, bool whole) : document_(document), read_(read), whole_(whole) {}

  void section(const std::string& name) {
    prefix_ = name.empty() ? "" : name + ".";
    if (!name.empty()) sections_.insert(name);
  }

  template <typename T>
  void operator()(const char* name, T& value, const Info& info) {
    const std::string key = prefix_ + name;
    keys_.insert(key);
    const auto found = document_.entries.find(key);
    if (found == document_.entries.end()) {
      if (info.required && whole_)
        document_.problems.push_back({document_.file, fmt::format("{} is missing: {}", key, info.help), ""});
      return;
    }
    const Entry& entry = found->second;
    T parsed{};
    ValueReader reader(info);
    const std::string wrong = reader.read(entry.node, parsed);
    if (wrong.empty()) {
      if (info.hub) look_up(key, parsed);
      value = parsed;
      read_.origins[key] = entry.origin;
      return;
    }
    const bool inside_file = entry.line != 0 && !reader.wrong_at().is_null();
    document_.complain(inside_file ? document_.entry_at(reader.wrong_at()) : entry, fmt::format("{}: {}", key, wrong));
  }

  void report_unknown() {
    for (const auto& [key, entry] : document_.entries) {
      if (keys_.count(key) != 0) continue;
      if (sections_.count(key) == 0) {
        document_.complain(entry, about_unknown_key(key, keys_));
      } else if (entry.line == 0) {
        document_.complain(entry, fmt::format("{} is a section; name a key of it, as in {}.key=value", key, key));
      } else if (!entry.node.IsNull() && !entry.node.IsMap()) {
        document_.complain(entry, fmt::format("{} is a section: its keys stand indented below it", key));
      }
    }
  }

 private:
  template <typename T>
  void look_up(const std::string& key, T& value) {
    if constexpr (std::is_same_v<T, std::optional<std::string>>) {
      if (value) look_up(key, *value);
    } else if constexpr (std::is_same_v<T, std::string>) {
      const std::optional<std::string> cached = cached_model(value);
      if (!cached) return;
      read_.notes.push_back(fmt::format("{} {} is {} in the local hub cache", key, value, *cached));
      value = *cached;
    }
  }

  RecipeDocument& document_;
  ReadRecipe& read_;
  bool whole_;  // required keys must be there
  std::string prefix_;
  std::set<std::string> keys_, sections_;
};

// How the command line spells every key's value.
struct Speller {
  std::map<std::string, Spelling> spellings;
  std::string prefix;

  void section(const std::string& name) { prefix = name.empty() ? "" : name + "."; }
  template <typename T>
  void operator()(const char* name, T&, const Info&) {
    constexpr bool either =
        std::is_same_v<T, std::vector<DataFile>> || std::is_same_v<T, Validation> || std::is_same_v<T, TargetModules>;
    spellings[prefix + name] = std::is_same_v<T, std::string>                  ? Spelling::text
                               : std::is_same_v<T, std::optional<std::string>> ? Spelling::optional_text
                               : either                                        ? Spelling::text_or_brackets
                                                                               : Spelling::yaml;
  }
};

void apply(RecipeDocument& document, std::span<const std::string> overrides) {
  Recipe recipe;
  Speller speller;
  recipe.fields(speller);
  for (const std::string& text : overrides) document.apply_override(text, speller.spellings);
}

constexpr std::pair<const char*, const char*> kPairs[] = {{"train.epochs", "train.max_steps"},
                                                          {"optim.warmup_ratio", "optim.warmup_steps"}};

// One of a pair on the command line replaces the other in the file.
void let_command_line_choose(RecipeDocument& document) {
  for (const auto& [a, b] : kPairs) {
    const auto first = document.entries.find(a), second = document.entries.find(b);
    if (first == document.entries.end() || second == document.entries.end()) continue;
    const bool first_chosen = first->second.line == 0 && !ValueReader::is_none(first->second.node);
    const bool second_chosen = second->second.line == 0 && !ValueReader::is_none(second->second.node);
    if (first_chosen && second->second.line != 0) {
      document.entries.erase(second);
    } else if (second_chosen && first->second.line != 0) {
      document.entries.erase(first);
    }
  }
}

std::string batch_wrong(const Recipe& recipe, int64_t dp) {
  const int64_t global = recipe.train.global_batch_size, micro = recipe.train.micro_batch_size;
  if (global % (micro * dp) == 0) return {};
  return fmt::format("train.global_batch_size {} is not a multiple of train.micro_batch_size {} · dp {} = {}", global,
                     micro, dp, micro * dp);
}

// What only two keys together show.
void check_together(RecipeDocument& document, const Recipe& recipe) {
  const auto exclude = [&](bool both, const std::pair<const char*, const char*>& pair) {
    if (both)
      document.complain(document.entries.at(pair.second),
                        fmt::format("{} and {} exclude each other; give one of them", pair.first, pair.second));
  };
  exclude(recipe.train.epochs && recipe.train.max_steps, kPairs[0]);
  exclude(recipe.optim.warmup_ratio && recipe.optim.warmup_steps, kPairs[1]);
  const bool validates = !recipe.data.validation.files.empty() || recipe.data.validation.share > 0;
  const auto needs = [&](bool used, const char* key, bool there, const char* what) {
    if (used && !there) document.complain(document.entries.at(key), fmt::format("{} needs {}", key, what));
  };
  needs(recipe.checkpoint.keep_best, "checkpoint.keep_best", validates, "data.validation, whose loss it looks at");
  needs(recipe.eval.stop_after > 0, "eval.stop_after", validates && recipe.eval.every_steps > 0,
        "data.validation and eval.every_steps: it counts validations");
  const std::string wrong = batch_wrong(recipe, recipe.parallel.dp.value_or(1));
  if (wrong.empty()) return;
  for (const char* key : {"train.global_batch_size", "train.micro_batch_size", "parallel.dp"}) {
    if (document.entries.count(key) != 0) return document.complain(document.entries.at(key), wrong);
  }
}

}  // namespace

ReadRecipe read_recipe(const fs::path& file, std::span<const std::string> overrides) {
  RecipeDocument document;
  document.read(file);
  const bool readable = document.problems.empty() || !document.entries.empty();
  apply(document, overrides);
  let_command_line_choose(document);
  ReadRecipe result;
  if (readable) {
    Reader reader(document, result, true);
    result.recipe.fields(reader);
    reader.report_unknown();
    check_together(document, result.recipe);
  }
  document.fail_if_wrong(fmt::format("the recipe {}", file.string()));
  if (!result.recipe.train.epochs && !result.recipe.train.max_steps) result.recipe.train.epochs = 1;
  if (!result.recipe.optim.warmup_ratio && !result.recipe.optim.warmup_steps) result.recipe.optim.warmup_ratio = 0.03;
  return result;
}

Recipe read_overrides(std::span<const std::string> overrides, std::span<const std::string_view> allowed) {
  RecipeDocument document;
  document.file = "the command line";
  apply(document, overrides);
  ReadRecipe read;
  Reader reader(document, read, false);
  read.recipe.fields(reader);
  reader.report_unknown();
  for (const auto& [key, origin] : read.origins) {
    if (std::find(allowed.begin(), allowed.end(), key) != allowed.end()) continue;
    document.complain(document.entries.at(key),
                      fmt::format("{} has no effect here; what may be set is {}", key, fmt::join(allowed, ", ")));
  }
  document.fail_if_wrong(document.file);
  for (const std::string& note : read.notes) log::write(note);
  return read.recipe;
}

namespace {

struct PathMaker {
  void section(const std::string&) {}
  template <typename T>
  void operator()(const char*, T& value, const Info& info) {
    if constexpr (std::is_same_v<T, std::vector<DataFile>>) {
      for (DataFile& file : value) make(file.path);
    } else if constexpr (std::is_same_v<T, Validation>) {
      for (DataFile& file : value.files) make(file.path);
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (info.path && !is_word(value, info)) make(value);
    } else if constexpr (std::is_same_v<T, std::optional<std::string>>) {
      if (info.path && value) make(*value);
    }
  }
  static bool is_word(const std::string& value, const Info& info) {
    return std::any_of(info.allowed.begin(), info.allowed.end(), [&](const char* word) { return value == word; });
  }
  static void make(std::string& path) { path = fs::absolute(path).lexically_normal().string(); }
};

}  // namespace

ReadRecipe with_absolute_paths(ReadRecipe read) {
  PathMaker maker;
  read.recipe.fields(maker);
  return read;
}

MeshShape mesh_shape(const Recipe& recipe, int ranks) {
  const int64_t tp = recipe.parallel.tp, pp = recipe.parallel.pp;
  if (ranks % (tp * pp) != 0 || (recipe.parallel.dp && tp * pp * *recipe.parallel.dp != ranks)) {
    const int64_t product = tp * pp * recipe.parallel.dp.value_or(1);
    const bool dp_known = recipe.parallel.dp.has_value();
    fail(Fault::bad_recipe,
         "parallel: tp {} · pp {} · dp {} must be the number of ranks, which is {}; start {} ranks (-n {}) or change "
         "parallel",
         tp, pp, dp_known ? fmt::format("{}", *recipe.parallel.dp) : "(the rest)", ranks,
         dp_known ? fmt::format("{}", product) : fmt::format("a multiple of {}", product), product);
  }
  return {{Axis::tp, static_cast<int>(tp)},
          {Axis::pp, static_cast<int>(pp)},
          {Axis::dp, static_cast<int>(ranks / (tp * pp))}};
}

MeshShape check_mesh(const Recipe& recipe, int ranks) {
  const MeshShape shape = mesh_shape(recipe, ranks);
  if (const std::string wrong = batch_wrong(recipe, shape.dp()); !wrong.empty()) throw Error(Fault::bad_recipe, wrong);
  return shape;
}

}  // namespace drover
