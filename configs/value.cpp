#include "configs/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "configs/document.h"
#include "configs/paths.h"

namespace drover {

namespace {

bool plain(const YAML::Node& node) { return node.IsScalar() && node.Tag() != "!"; }

std::string got(const YAML::Node& node) {
  if (node.IsNull()) return "nothing";
  if (!node.IsScalar()) return node.IsMap() ? "a mapping" : "a list";
  return "\"" + shown(node.Scalar()) + "\"" + (plain(node) ? "" : " in quotes");
}

bool contains(const std::vector<const char*>& words, const std::string& word) {
  return std::any_of(words.begin(), words.end(), [&](const char* w) { return word == w; });
}

std::string read_text_of(const YAML::Node& node, std::string& text) {
  if (node.IsScalar()) {
    text = node.Scalar();
    return {};
  }
  return fmt::format("expected a text, got {}{}", got(node),
                     node.IsNull() ? "; give it a value or leave the key out" : "");
}

// 010 is 8 to some readers of YAML and 10 to others.
bool has_leading_zero(const std::string& text) {
  const size_t first = text.starts_with('-') || text.starts_with('+') ? 1 : 0;
  return text.size() > first + 1 && text[first] == '0' && text[first + 1] >= '0' && text[first + 1] <= '9';
}

// A double-quoted YAML scalar, unless the plain text reads back as the same text.
std::string quoted(const std::string& text, bool always = false) {
  static const char* const kWords[] = {"true", "false", "null", "Null", "NULL", "none", "yes", "no", "on", "off"};
  const bool simple = !always && !text.empty() && std::isalpha(static_cast<unsigned char>(text[0])) &&
                      text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./") ==
                          std::string::npos &&
                      std::none_of(std::begin(kWords), std::end(kWords), [&](const char* w) { return text == w; });
  if (simple) return text;
  std::string result = "\"";
  for (char c : text) {
    const unsigned char byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) {
      result += fmt::format("\\x{:02x}", byte);
      continue;
    }
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + "\"";
}

}  // namespace

std::string range_of(const Info& info) {
  if (std::isfinite(info.least) && std::isfinite(info.most)) return fmt::format("{} to {}", info.least, info.most);
  if (std::isfinite(info.least)) return fmt::format("at least {}", info.least);
  return std::isfinite(info.most) ? fmt::format("at most {}", info.most) : "";
}

bool ValueReader::is_none(const YAML::Node& node) { return node.IsNull() || (plain(node) && node.Scalar() == "none"); }

std::string ValueReader::out_of_range(double value) const {
  if (value >= info_->least && value <= info_->most) return {};
  return fmt::format("{} is out of range; allowed: {}", value, range_of(*info_));
}

std::string ValueReader::at(const YAML::Node& item, const std::string& wrong) {
  if (!wrong.empty() && wrong_at_.is_null()) wrong_at_ = item.Mark();
  return wrong;
}

std::string ValueReader::read(const YAML::Node& node, bool& value) {
  const std::string text = plain(node) ? node.Scalar() : "";
  value = text == "true";
  if (value || text == "false") return {};
  const bool spoken = contains({"yes", "Yes", "YES", "on", "On", "ON", "no", "No", "NO", "off", "Off", "OFF"}, text);
  return fmt::format("expected true or false, got {}{}", got(node),
                     spoken ? "; of YAML's many words for a boolean only these two are read" : "");
}

std::string ValueReader::read(const YAML::Node& node, int64_t& value) {
  const std::string text = plain(node) ? node.Scalar() : "";
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code == std::errc::result_out_of_range)
    return fmt::format("{} is out of range; allowed: {}", shown(text), range_of(*info_));
  if (code != std::errc() || end != text.data() + text.size() || has_leading_zero(text)) {
    return fmt::format("expected a whole decimal number{}, got {}",
                       range_of(*info_).empty() ? "" : ", " + range_of(*info_), got(node));
  }
  return out_of_range(static_cast<double>(value));
}

std::string ValueReader::read(const YAML::Node& node, double& value) {
  const std::string text = plain(node) ? node.Scalar() : "";
  const size_t sign = text.starts_with('+') && !text.starts_with("+-") ? 1 : 0;
  const auto [end, code] = std::from_chars(text.data() + sign, text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size() || !std::isfinite(value) || has_leading_zero(text)) {
    return fmt::format("expected a decimal number such as 0.05 or 2.0e-4, got {}", got(node));
  }
  return out_of_range(value);
}

std::string ValueReader::read(const YAML::Node& node, std::string& value) {
  if (const std::string wrong = read_text_of(node, value); !wrong.empty()) return wrong;
  if (value.empty()) return "the text is empty";
  return info_->path && !contains(info_->allowed, value) ? expand_path(value) : "";
}

std::string ValueReader::read_choice(const YAML::Node& node, std::string& word) {
  if (const std::string wrong = read_text_of(node, word); !wrong.empty()) return wrong;
  const std::string allowed = fmt::format("{}", fmt::join(info_->allowed, ", "));
  if (contains(info_->later, word)) return fmt::format("{} is not built yet; allowed now: {}", word, allowed);
  if (contains(info_->allowed, word)) return {};
  for (const auto& [theirs, ours] : info_->instead) {
    if (word == theirs) return fmt::format("{} is written {}", theirs, ours);
  }
  return fmt::format("\"{}\" is not allowed; allowed: {}", shown(word), allowed);
}

std::string ValueReader::read(const YAML::Node& node, std::vector<double>& value) {
  if (!node.IsSequence() || node.size() != 2)
    return fmt::format("expected a list of two numbers, such as [0.9, 0.999]; got {}", got(node));
  for (const YAML::Node& item : node) {
    if (const std::string wrong = at(item, read(item, value.emplace_back())); !wrong.empty()) return wrong;
  }
  return {};
}

std::string ValueReader::read(const YAML::Node& node, TargetModules& value) {
  const char* const expected = "expected all-linear, a list of names such as [q_proj, v_proj], or a regular expression";
  if (node.IsScalar()) {
    value.pattern = node.Scalar();
    return value.pattern.empty() ? fmt::format("{}; got an empty text", expected) : "";
  }
  if (!node.IsSequence() || node.size() == 0)
    return fmt::format("{}; got {}", expected, node.IsSequence() ? "an empty list" : got(node));
  value.pattern.clear();
  for (const YAML::Node& item : node) {
    if (!item.IsScalar() || item.Scalar().empty())
      return at(item, "every name in the list must be a text such as q_proj");
    value.names.push_back(item.Scalar());
  }
  return {};
}

std::string ValueReader::read(const YAML::Node& node, TracedSteps& value) {
  const char* const expected = "expected none, a range such as 10..12, or a list of steps such as [1, 100]";
  if (is_none(node)) return {};
  if (node.IsScalar()) {
    const std::string text = plain(node) ? node.Scalar() : "";
    const size_t dots = text.find("..");
    if (dots == std::string::npos) return fmt::format("{}; got {}", expected, got(node));
    for (const auto& [part, end] :
         {std::pair(text.substr(0, dots), &value.first), {text.substr(dots + 2), &value.last}}) {
      if (!read(YAML::Node(part), *end).empty())
        return fmt::format("{}; got {}, where each end is {}", expected, got(node), range_of(*info_));
    }
    return value.last < value.first ? fmt::format("{}; {} ends before it begins", expected, text) : "";
  }
  if (!node.IsSequence() || node.size() == 0)
    return fmt::format("{}; got {}", expected, node.IsSequence() ? "an empty list" : got(node));
  for (const YAML::Node& item : node) {
    if (const std::string wrong = at(item, read(item, value.listed.emplace_back())); !wrong.empty()) return wrong;
  }
  return {};
}

std::string ValueReader::read(const YAML::Node& node, Pattern& value) {
  if (is_none(node)) return {};
  if (!node.IsMap()) return fmt::format("expected a mapping such as {{q_proj: 32}}, got {}", got(node));
  for (const auto& pair : node) {
    auto& [name, number] = value.emplace_back();
    if (!pair.first.IsScalar() || pair.first.Scalar().empty())
      return at(pair.first, "a module pattern must be a text such as q_proj");
    name = pair.first.Scalar();
    int64_t whole = 0;
    const std::string wrong = info_->whole ? read(pair.second, whole) : read(pair.second, number);
    if (info_->whole) number = static_cast<double>(whole);
    if (!wrong.empty()) return at(pair.second, shown(name) + ": " + wrong);
  }
  return {};
}

std::string ValueReader::read(const YAML::Node& node, FieldNames& value) {
  if (is_none(node)) return {};
  if (!node.IsMap()) return fmt::format("expected a mapping such as {{text: content}}, got {}", got(node));
  for (const auto& pair : node) {
    const std::string ours = pair.first.IsScalar() ? pair.first.Scalar() : "?";
    if (std::ranges::find(kFieldsOfRows, ours) == std::end(kFieldsOfRows) &&
        std::ranges::find(kFieldsOfTurns, ours) == std::end(kFieldsOfTurns)) {
      return at(pair.first, fmt::format("{} is no field of ours; allowed: {}, and in turns {}", shown(ours),
                                        fmt::join(kFieldsOfRows, ", "), fmt::join(kFieldsOfTurns, ", ")));
    }
    std::string theirs;
    if (const std::string wrong = read(pair.second, theirs); !wrong.empty())
      return at(pair.second, ours + ": " + wrong);
    const auto same = std::ranges::find(value, theirs, &FieldNames::value_type::second);
    if (same != value.end())
      return at(pair.second, fmt::format("{} is {} already; a field has one meaning", shown(theirs), same->first));
    value.emplace_back(ours, theirs);
  }
  return {};
}

std::string ValueReader::read(const YAML::Node& node, DataFile& value) {
  static const Info kPath = {.path = true}, kWeight = {.least = 0, .most = 10}, kRepeat = {.least = 0.01, .most = 100};
  if (node.IsScalar()) return ValueReader(kPath).read(node, value.path);
  if (!node.IsMap()) return fmt::format("expected a file or {{path, format, weight, repeat}}, got {}", got(node));
  for (const auto& pair : node) {
    const std::string key = pair.first.IsScalar() ? pair.first.Scalar() : "?";
    std::string wrong;
    if (key == "path") {
      wrong = ValueReader(kPath).read(pair.second, value.path);
    } else if (key == "format") {
      wrong = ValueReader(kRowFormat).read(pair.second, value.format);
    } else if (key == "weight") {
      wrong = ValueReader(kWeight).read(pair.second, value.weight);
    } else if (key == "repeat") {
      wrong = ValueReader(kRepeat).read(pair.second, value.repeat);
    } else {
      return at(pair.first, fmt::format("{} is unknown here; allowed: path, format, weight, repeat", shown(key)));
    }
    if (!wrong.empty()) return at(pair.second, key + ": " + wrong);
  }
  return value.path.empty() ? at(node, "path is missing; it names the file") : "";
}

std::string ValueReader::read(const YAML::Node& node, std::vector<DataFile>& value) {
  if (!node.IsSequence()) return read(node, value.emplace_back());
  if (node.size() == 0) return "the list is empty; it needs at least one file";
  for (const YAML::Node& item : node) {
    if (const std::string wrong = at(item, read(item, value.emplace_back())); !wrong.empty()) return wrong;
  }
  return {};
}

std::string ValueReader::read(const YAML::Node& node, Validation& value) {
  if (is_none(node)) return {};
  if (!node.IsMap() || !node["share"]) {
    const std::string wrong = read(node, value.files);
    const bool repeats = std::ranges::any_of(value.files, [](const DataFile& file) { return file.repeat != 1; });
    return wrong.empty() && repeats ? "repeat is of epochs, which validation has not; take it out" : wrong;
  }
  if (node.size() != 1) return at(node, "share stands alone: {share: 0.05}");
  const std::string wrong = read(node["share"], value.share);
  if (!wrong.empty()) return at(node["share"], "share: " + wrong);
  if (value.share <= 0 || value.share >= 1)
    return at(node["share"], fmt::format("share: {} is out of range; allowed: above 0 and below 1", value.share));
  return {};
}

std::string yaml(bool v) { return v ? "true" : "false"; }
std::string yaml(int64_t v) { return fmt::format("{}", v); }
std::string yaml(double v) { return fmt::format("{}", v); }
std::string yaml(const std::string& v) { return quoted(v); }
std::string yaml(const DataFile& v) {
  return fmt::format("{{path: {}, format: {}, weight: {}, repeat: {}}}", quoted(v.path), word_of(v.format), v.weight,
                     v.repeat);
}

namespace {

template <typename T>
std::string yaml_list(const std::vector<T>& items) {
  std::vector<std::string> parts;
  for (const T& item : items) parts.push_back(yaml(item));
  return fmt::format("[{}]", fmt::join(parts, ", "));
}

}  // namespace

std::string yaml(const std::vector<double>& v) { return yaml_list(v); }
std::string yaml(const TargetModules& v) { return v.names.empty() ? quoted(v.pattern) : yaml_list(v.names); }
std::string yaml(const TracedSteps& v) {
  if (!v.listed.empty()) return yaml_list(v.listed);
  return v.empty() ? "none" : fmt::format("{}..{}", v.first, v.last);
}
std::string yaml(const std::vector<DataFile>& v) { return yaml_list(v); }
std::string yaml(const Pattern& v) {
  std::vector<std::string> parts;
  for (const auto& [name, number] : v) parts.push_back(fmt::format("{}: {}", quoted(name, true), number));
  return fmt::format("{{{}}}", fmt::join(parts, ", "));
}
std::string yaml(const FieldNames& v) {
  std::vector<std::string> parts;
  for (const auto& [ours, theirs] : v) parts.push_back(fmt::format("{}: {}", ours, quoted(theirs, true)));
  return fmt::format("{{{}}}", fmt::join(parts, ", "));
}
std::string yaml(const Validation& v) {
  if (v.share > 0) return fmt::format("{{share: {}}}", v.share);
  return v.files.empty() ? "none" : yaml_list(v.files);
}

}  // namespace drover
