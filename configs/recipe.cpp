#include "configs/recipe.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "configs/document.h"
#include "kernels/base/error.h"

namespace drover {

namespace {

std::string list_of(const std::vector<const char*>& words) { return fmt::format("{}", fmt::join(words, ", ")); }

size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

// What other programs call our keys.
struct Foreign {
  const char *name, *program, *ours;
};
constexpr Foreign kForeign[] = {
    {"base_model", "Axolotl", "model.path"},          {"model_name_or_path", "LLaMA-Factory", "model.path"},
    {"checkpoint_dir", "torchtune", "model.path"},    {"lora_rank", "LLaMA-Factory and torchtune", "lora.r"},
    {"lora_r", "Axolotl", "lora.r"},                  {"lora_alpha", "Axolotl and LLaMA-Factory", "lora.alpha"},
    {"lora_dropout", "Axolotl and LLaMA-Factory", "lora.dropout"}, {"lora_target", "LLaMA-Factory", "lora.target_modules"},
    {"lora_target_modules", "Axolotl", "lora.target_modules"}, {"lora_target_linear", "Axolotl", "lora.target_modules"},
    {"lora_attn_modules", "torchtune", "lora.target_modules"}, {"adapter", "Axolotl", "method"}, {"finetuning_type", "LLaMA-Factory", "method"},
    {"datasets", "Axolotl", "data.train"},            {"dataset", "LLaMA-Factory and torchtune", "data.train"},
    {"sequence_len", "Axolotl", "data.max_length"},   {"cutoff_len", "LLaMA-Factory", "data.max_length"},
    {"max_seq_len", "torchtune", "data.max_length"},  {"sample_packing", "Axolotl", "data.packing"}, {"packed", "torchtune", "data.packing"},
    {"val_set_size", "Axolotl", "data.validation"},   {"val_size", "LLaMA-Factory", "data.validation"},
    {"train_on_inputs", "Axolotl", "data.train_on"},  {"train_on_prompt", "LLaMA-Factory", "data.train_on"},
    {"batch_size", "torchtune", "train.micro_batch_size"}, {"per_device_train_batch_size", "LLaMA-Factory", "train.micro_batch_size"},
    {"gradient_accumulation_steps", "Axolotl, LLaMA-Factory and torchtune", "train.global_batch_size (rows of a step over all ranks)"},
    {"num_epochs", "Axolotl", "train.epochs"},        {"num_train_epochs", "LLaMA-Factory", "train.epochs"},
    {"lr", "torchtune", "optim.learning_rate"},       {"lr_scheduler", "Axolotl", "optim.schedule"}, {"lr_scheduler_type", "LLaMA-Factory", "optim.schedule"},
    {"num_warmup_steps", "torchtune", "optim.warmup_steps"}, {"gradient_checkpointing", "Axolotl and LLaMA-Factory", "memory.activation_checkpointing"},
    {"enable_activation_checkpointing", "torchtune", "memory.activation_checkpointing"}, {"output_dir", "Axolotl, LLaMA-Factory and torchtune", "output.dir"},
    {"eval_steps", "LLaMA-Factory", "eval.every_steps"}, {"save_steps", "Axolotl and LLaMA-Factory", "checkpoint.every_steps"},
    {"logging_steps", "LLaMA-Factory", "log.every_steps"}, {"resume_from_checkpoint", "Axolotl and LLaMA-Factory", "checkpoint.resume"},
};

// Reads every field from the document's entries; what cannot be read is a problem and leaves the default.
class Reader {
 public:
  Reader(RecipeDocument& document, std::map<std::string, std::string>& origins) : document_(document), origins_(origins) {}

  void section(const std::string& name) { prefix_ = name.empty() ? "" : name + "."; }

  template <typename T>
  void operator()(const char* name, T& value, const Info& info) {
    const std::string key = prefix_ + name;
    keys_.insert(key);
    const auto found = document_.entries.find(key);
    if (found == document_.entries.end()) {
      if (info.required) document_.problems.push_back({"", fmt::format("{} is missing: {}", key, info.help), "", 0});
      return;
    }
    const Entry& entry = found->second;
    info_ = &info;
    T parsed{};
    const std::string wrong = parse(entry.node, parsed);
    if (wrong.empty()) {
      value = parsed;
      origins_[key] = entry.origin;
    } else {
      document_.complain(entry, fmt::format("{}: {}", key, wrong));
    }
  }

  void report_unknown() {
    std::set<std::string> sections;
    for (const std::string& key : keys_) sections.insert(key.substr(0, key.find('.')));
    for (const auto& [key, entry] : document_.entries) {
      if (keys_.count(key) != 0) continue;
      if (key.find('.') == std::string::npos && sections.count(key) != 0) {
        document_.complain(entry, fmt::format("{} is a section: its keys stand indented below it", key));
        continue;
      }
      const std::string last = key.substr(key.rfind('.') + 1);
      const auto foreign = std::find_if(std::begin(kForeign), std::end(kForeign), [&](const Foreign& f) { return last == f.name; });
      if (foreign != std::end(kForeign)) {
        document_.complain(entry, fmt::format("{} is unknown; it is {}'s name for {}", key, foreign->program, foreign->ours));
        continue;
      }
      std::string nearest;
      size_t best = std::string::npos;
      for (const std::string& known : keys_) {
        const size_t distance = std::min(edit_distance(key, known), edit_distance(last, known.substr(known.rfind('.') + 1)) + (key.find('.') == std::string::npos ? 0 : 1));
        if (distance < best) best = distance, nearest = known;
      }
      document_.complain(entry, best <= std::max<size_t>(2, last.size() / 2) ? fmt::format("{} is unknown; did you mean {}?", key, nearest)
                                                                              : fmt::format("{} is unknown; `drover train --help-keys` lists all keys", key));
    }
  }

 private:
  static bool plain(const YAML::Node& node) { return node.IsScalar() && node.Tag() != "!"; }
  static std::string got(const YAML::Node& node) {
    if (node.IsNull()) return "nothing";
    return node.IsScalar() ? "\"" + node.Scalar() + "\"" : node.IsMap() ? "a mapping" : "a list";
  }
  std::string range_wrong(double value) const {
    if (value >= info_->least && value <= info_->most) return {};
    return fmt::format("{} is out of range; allowed is {} to {}", value, info_->least, info_->most);
  }

  std::string parse(const YAML::Node& node, bool& value) {
    if (plain(node) && (node.Scalar() == "true" || node.Scalar() == "false")) {
      value = node.Scalar() == "true";
      return {};
    }
    return fmt::format("expected true or false, got {}", got(node));
  }
  std::string parse(const YAML::Node& node, int64_t& value) {
    const std::string text = plain(node) ? node.Scalar() : "";
    const std::string digits = text.starts_with('-') ? text.substr(1) : text;
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool decimal = !digits.empty() && digits.find_first_not_of("0123456789") == std::string::npos && (digits.size() == 1 || digits[0] != '0');
    if (!decimal || code != std::errc() || end != text.data() + text.size()) return fmt::format("expected a whole decimal number, got {}", got(node));
    return range_wrong(static_cast<double>(value));
  }
  std::string parse(const YAML::Node& node, double& value) {
    std::string text = plain(node) ? node.Scalar() : "";
    if (text.starts_with('+')) text.erase(0, 1);
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || code != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return fmt::format("expected a number such as 2.0e-4, got {}", got(node));
    return range_wrong(value);
  }
  std::string parse(const YAML::Node& node, std::string& value) {
    if (!node.IsScalar()) return fmt::format("expected a text, got {}", got(node));
    value = node.Scalar();
    if (std::find_if(info_->later.begin(), info_->later.end(), [&](const char* l) { return value == l; }) != info_->later.end()) {
      return fmt::format("{} is not built yet; allowed now: {}", value, list_of(info_->allowed));
    }
    if (!info_->allowed.empty() && std::find_if(info_->allowed.begin(), info_->allowed.end(), [&](const char* a) { return value == a; }) == info_->allowed.end()) {
      return fmt::format("\"{}\" is not allowed; allowed: {}", value, list_of(info_->allowed));
    }
    return value.empty() ? "the text is empty" : "";
  }
  template <typename T>
  std::string parse(const YAML::Node& node, std::optional<T>& value) {
    if (node.IsNull() || (plain(node) && node.Scalar() == "none")) return {};
    T inner{};
    const std::string wrong = parse(node, inner);
    if (wrong.empty()) value = inner;
    return wrong;
  }
  std::string parse(const YAML::Node& node, std::vector<double>& value) {
    if (!node.IsSequence() || node.size() != 2) return fmt::format("expected a list of two numbers, got {}", got(node));
    for (const YAML::Node& item : node) {
      const std::string wrong = parse(item, value.emplace_back());
      if (!wrong.empty()) return wrong;
    }
    return {};
  }
  std::string parse(const YAML::Node& node, TargetModules& value) {
    value = {};
    if (node.IsScalar()) {
      value.pattern = node.Scalar();
      return value.pattern.empty() ? "the text is empty; allowed: all-linear, a list of names, or a regular expression" : "";
    }
    if (!node.IsSequence() || node.size() == 0) return fmt::format("expected all-linear, a list of names, or a regular expression; got {}", got(node));
    value.pattern.clear();
    for (const YAML::Node& item : node) {
      if (!item.IsScalar()) return "a name in the list is not a text";
      value.names.push_back(item.Scalar());
    }
    return {};
  }
  std::string parse(const YAML::Node& node, Pattern& value) {
    if (node.IsNull()) return {};
    if (!node.IsMap()) return fmt::format("expected a mapping such as {{q_proj: 32}}, got {}", got(node));
    for (const auto& pair : node) {
      double number = 0;
      const std::string wrong = parse(pair.second, number);
      if (!wrong.empty()) return wrong;
      value.emplace_back(pair.first.Scalar(), number);
    }
    return {};
  }
  std::string parse(const YAML::Node& node, DataFile& value) {
    if (node.IsScalar()) {
      value.path = node.Scalar();
      return value.path.empty() ? "the path is empty" : "";
    }
    if (!node.IsMap()) return fmt::format("expected a path or {{path, format, weight}}, got {}", got(node));
    for (const auto& pair : node) {
      const std::string key = pair.first.Scalar();
      if (key == "path" && pair.second.IsScalar()) {
        value.path = pair.second.Scalar();
      } else if (key == "format" && pair.second.IsScalar()) {
        value.format = pair.second.Scalar();
        if (value.format != "auto" && value.format != "messages" && value.format != "text") return "format: allowed are auto, messages, text";
      } else if (key == "weight") {
        const std::string wrong = parse(pair.second, value.weight);
        if (!wrong.empty()) return "weight: " + wrong;
        if (value.weight <= 0) return "weight: it must be above 0";
      } else {
        return fmt::format("\"{}\" is unknown here; allowed: path, format, weight", key);
      }
    }
    return value.path.empty() ? "path is missing" : "";
  }
  std::string parse(const YAML::Node& node, std::vector<DataFile>& value) {
    if (!node.IsSequence()) return parse(node, value.emplace_back());
    if (node.size() == 0) return "the list is empty";
    for (const YAML::Node& item : node) {
      const std::string wrong = parse(item, value.emplace_back());
      if (!wrong.empty()) return wrong;
    }
    return {};
  }
  std::string parse(const YAML::Node& node, Validation& value) {
    if (node.IsNull() || (plain(node) && node.Scalar() == "none")) return {};
    if (node.IsMap() && node["share"]) {
      const std::string wrong = parse(node["share"], value.share);
      if (!wrong.empty()) return "share: " + wrong;
      return node.size() == 1 && value.share > 0 && value.share < 1 ? "" : "share stands alone and lies between 0 and 1";
    }
    return parse(node, value.files);
  }

  RecipeDocument& document_;
  std::map<std::string, std::string>& origins_;
  std::string prefix_;
  std::set<std::string> keys_;
  const Info* info_ = nullptr;
};

// A double-quoted YAML scalar, unless the plain text reads back as the same text.
std::string quoted(const std::string& text) {
  const bool simple = !text.empty() && text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./") == std::string::npos &&
                      std::isalpha(static_cast<unsigned char>(text[0])) && text != "true" && text != "false" && text != "null" && text != "none" && text != "yes" &&
                      text != "no" && text != "on" && text != "off";
  if (simple) return text;
  std::string result = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    if (c == '\n') {
      result += "\\n";
    } else {
      result += c;
    }
  }
  return result + "\"";
}

std::string yaml(bool v) { return v ? "true" : "false"; }
std::string yaml(int64_t v) { return fmt::format("{}", v); }
std::string yaml(double v) { return fmt::format("{}", v); }
std::string yaml(const std::string& v) { return quoted(v); }
std::string yaml(const DataFile& v) { return fmt::format("{{path: {}, format: {}, weight: {}}}", quoted(v.path), v.format, v.weight); }
template <typename T>
std::string yaml(const std::optional<T>& v) {
  return v ? yaml(*v) : "none";
}
template <typename T>
std::string yaml_list(const std::vector<T>& v) {
  std::vector<std::string> parts;
  for (const T& item : v) parts.push_back(yaml(item));
  return fmt::format("[{}]", fmt::join(parts, ", "));
}
std::string yaml(const std::vector<double>& v) { return yaml_list(v); }
std::string yaml(const TargetModules& v) { return v.names.empty() ? quoted(v.pattern) : yaml_list(v.names); }
std::string yaml(const Pattern& v) {
  std::vector<std::string> parts;
  for (const auto& [name, number] : v) parts.push_back(fmt::format("\"{}\": {}", name, number));
  return fmt::format("{{{}}}", fmt::join(parts, ", "));
}
std::string yaml(const std::vector<DataFile>& v) { return yaml_list(v); }
std::string yaml(const Validation& v) {
  if (v.share > 0) return fmt::format("{{share: {}}}", v.share);
  return v.files.empty() ? "none" : yaml_list(v.files);
}

struct Printer {
  const std::map<std::string, std::string>& origins;
  std::string text, prefix;
  void section(const std::string& name) {
    prefix = name.empty() ? "" : name + ".";
    if (!name.empty()) text += name + ":\n";
  }
  template <typename T>
  void operator()(const char* name, T& value, const Info&) {
    const auto found = origins.find(prefix + name);
    text += fmt::format("{}{}: {}  # {}\n", prefix.empty() ? "" : "  ", name, yaml(value), found == origins.end() ? "default" : found->second);
  }
};

struct Identity {
  std::map<std::string, std::string> values;
  std::string prefix;
  void section(const std::string& name) { prefix = name.empty() ? "" : name + "."; }
  template <typename T>
  void operator()(const char* name, T& value, const Info& info) {
    if (info.identity) values[prefix + name] = yaml(value);
  }
};

struct Help {
  std::string text, prefix;
  void section(const std::string& name) { prefix = name.empty() ? "" : name + "."; }
  template <typename T>
  void operator()(const char* name, T& value, const Info& info) {
    std::string allowed = info.allowed.empty() ? "" : " [" + list_of(info.allowed) + "]";
    text += fmt::format("  {:<36}{}{} (default: {})\n", prefix + name, info.help, allowed, info.required ? "required" : yaml(value));
  }
};

}  // namespace

ReadRecipe read_recipe(const fs::path& file, std::span<const std::string> overrides) {
  RecipeDocument document;
  document.read(file);
  for (const std::string& text : overrides) document.apply_override(text);
  // One of a pair on the command line replaces the other in the file.
  for (const auto& [a, b] : {std::pair{"train.epochs", "train.max_steps"}, {"optim.warmup_ratio", "optim.warmup_steps"}}) {
    const auto first = document.entries.find(a), second = document.entries.find(b);
    if (first == document.entries.end() || second == document.entries.end()) continue;
    if (first->second.line == 0 && second->second.line != 0) {
      document.entries.erase(second);
    } else if (second->second.line == 0 && first->second.line != 0) {
      document.entries.erase(first);
    }
  }
  ReadRecipe result;
  const bool readable = document.problems.empty() || !document.entries.empty();
  if (readable) {
    Reader reader(document, result.origins);
    result.recipe.fields(reader);
    reader.report_unknown();
    const auto exclude = [&](bool both, const char* a, const char* b) {
      if (both) document.complain(document.entries.at(b), fmt::format("{} and {} exclude each other; give one of them", a, b));
    };
    const Recipe& r = result.recipe;
    exclude(r.train.epochs && r.train.max_steps, "train.epochs", "train.max_steps");
    exclude(r.optim.warmup_ratio && r.optim.warmup_steps, "optim.warmup_ratio", "optim.warmup_steps");
  }
  if (!document.problems.empty()) {
    std::stable_sort(document.problems.begin(), document.problems.end(), [](const Problem& a, const Problem& b) { return a.line < b.line; });
    std::string text = fmt::format("{} {} in the recipe {}:", document.problems.size(), document.problems.size() == 1 ? "problem" : "problems", file.string());
    for (const Problem& p : document.problems) {
      text += "\n  " + (p.place.empty() ? "" : p.place + ": ") + p.message;
      if (!p.excerpt.empty()) text += "\n" + p.excerpt;
    }
    throw Error(Exit::bad_recipe, text);
  }
  if (!result.recipe.train.epochs && !result.recipe.train.max_steps) result.recipe.train.epochs = 1;
  if (!result.recipe.optim.warmup_ratio && !result.recipe.optim.warmup_steps) result.recipe.optim.warmup_ratio = 0.03;
  return result;
}

std::string resolved_recipe(const ReadRecipe& read) {
  Recipe recipe = read.recipe;
  Printer printer{read.origins, "", ""};
  recipe.fields(printer);
  return printer.text;
}

std::map<std::string, std::string> identity(const Recipe& recipe) {
  Recipe copy = recipe;
  Identity visitor;
  copy.fields(visitor);
  return visitor.values;
}

std::string recipe_help() {
  Recipe recipe;
  Help help;
  recipe.fields(help);
  return help.text;
}

MeshSizes check_mesh(const Recipe& recipe, int ranks) {
  const int64_t tp = recipe.parallel.tp, pp = recipe.parallel.pp;
  if (ranks % (tp * pp) != 0 || (recipe.parallel.dp && tp * pp * *recipe.parallel.dp != ranks)) {
    fail(Exit::bad_recipe, "parallel: tp {} · pp {} · dp {} must be the number of ranks, which is {}; start {} ranks (-n {}) or change parallel", tp, pp,
         recipe.parallel.dp ? fmt::format("{}", *recipe.parallel.dp) : "(the rest)", ranks, tp * pp * recipe.parallel.dp.value_or(1), tp * pp * recipe.parallel.dp.value_or(1));
  }
  const int64_t dp = ranks / (tp * pp), unit = recipe.train.micro_batch_size * dp;
  if (recipe.train.global_batch_size % unit != 0) {
    fail(Exit::bad_recipe, "train.global_batch_size {} is not a multiple of train.micro_batch_size {} · dp {} = {}", recipe.train.global_batch_size,
         recipe.train.micro_batch_size, dp, unit);
  }
  return {static_cast<int>(tp), static_cast<int>(pp), static_cast<int>(dp)};
}

}  // namespace drover
