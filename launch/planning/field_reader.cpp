#include "launch/planning/field_reader.h"

#include <algorithm>

#include "configs/value.h"

namespace drover {

namespace {

bool is_date(const std::string& text) {
  const std::string shape = "dddd-dd-dd";
  if (text.size() != 4 && text.size() != 7 && text.size() != 10) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool digit = text[i] >= '0' && text[i] <= '9';
    if (digit != (shape[i] == 'd') || (!digit && text[i] != '-')) return false;
  }
  const int month = text.size() > 4 ? std::stoi(text.substr(5, 2)) : 1;
  const int day = text.size() > 7 ? std::stoi(text.substr(8, 2)) : 1;
  return month >= 1 && month <= 12 && day >= 1 && day <= 31;
}

}  // namespace

std::vector<std::string> sections_of(const RecipeDocument& document) {
  std::vector<std::pair<int, std::string>> found;
  for (const auto& [key, entry] : document.entries) {
    const std::string section = key.substr(0, key.find('.'));
    if (std::ranges::find(found, section, &std::pair<int, std::string>::second) == found.end())
      found.emplace_back(entry.line, section);
  }
  std::ranges::sort(found);
  std::vector<std::string> sections;
  for (const auto& [line, section] : found) sections.push_back(section);
  return sections;
}

FieldReader::FieldReader(RecipeDocument& document, const std::string& section)
    : document_(document), name_(section), start_(document.entry_at(YAML::Mark::null_mark())) {
  const std::string prefix = section.empty() ? "" : section + ".";
  for (const auto& [key, entry] : document.entries) {
    if (key == section) {
      document_.complain(entry, fmt::format("{} is a mapping: its keys stand indented below it", section));
      is_mapping_ = false;
    } else if (key.starts_with(prefix)) {
      YAML::Mark mark;
      mark.line = entry.line - 1, mark.column = entry.column - 1;
      // Not the entry: what a YAML::Node is assigned to is written into.
      if (start_.line == 0 || entry.line < start_.line) start_ = document.entry_at(mark);
      fields_.emplace(key.substr(prefix.size()), Field{entry.node, entry});
    }
  }
}

FieldReader::FieldReader(RecipeDocument& document, const YAML::Node& mapping, const std::string& name)
    : document_(document), name_(name), start_(document.entry_at(mapping.Mark())) {
  if (!mapping.IsMap()) {
    document_.complain(start_, fmt::format("{}: expected a mapping", name));
    is_mapping_ = false;
    return;
  }
  for (const auto& pair : mapping) {
    if (pair.first.IsScalar())
      fields_.emplace(pair.first.Scalar(), Field{pair.second, document.entry_at(pair.first.Mark())});
  }
}

const FieldReader::Field* FieldReader::find(const std::string& key) {
  const auto found = fields_.find(key);
  if (found != fields_.end()) return &found->second;
  if (is_mapping_) document_.complain(start_, fmt::format("{} is missing", name_of(key)));
  return nullptr;
}

void FieldReader::complain(const std::string& key, const std::string& message) {
  const auto found = fields_.find(key);
  require(found != fields_.end(), "a field that is complained of is there");
  document_.complain(found->second.place, fmt::format("{}: {}", name_of(key), message));
}

template <typename T>
T FieldReader::value(const std::string& key) {
  T result{};
  const Field* field = find(key);
  if (field == nullptr) return result;
  static const Info kAny;
  const std::string wrong = ValueReader(kAny).read(field->node, result);
  if (!wrong.empty()) complain(key, wrong);
  return wrong.empty() ? result : T{};
}

std::string FieldReader::text(const std::string& key) { return value<std::string>(key); }
bool FieldReader::flag(const std::string& key) { return value<bool>(key); }

std::string FieldReader::date(const std::string& key) {
  const std::string result = text(key);
  if (!result.empty() && !is_date(result)) {
    complain(key, fmt::format("{} is no date; write 2024, 2024-07 or 2024-07-23", shown(result)));
  }
  return result;
}

double FieldReader::above_zero(const std::string& key) {
  const size_t problems = document_.problems.size();
  const double result = value<double>(key);
  if (result <= 0 && has(key) && document_.problems.size() == problems) {
    complain(key, fmt::format("{} is out of range; allowed: above 0", result));
  }
  return result;
}

double FieldReader::share(const std::string& key) {
  const double result = above_zero(key);
  if (result > 1) complain(key, fmt::format("{} is out of range; allowed: above 0, at most 1", result));
  return result;
}

int64_t FieldReader::whole_above_zero(const std::string& key) {
  const size_t problems = document_.problems.size();
  const auto result = value<int64_t>(key);
  if (result <= 0 && has(key) && document_.problems.size() == problems) {
    complain(key, fmt::format("{} is out of range; allowed: at least 1", result));
  }
  return result;
}

Figure FieldReader::one_figure(const YAML::Node& node, const std::string& name) {
  FieldReader reader(document_, node, name);
  const Figure result = {reader.above_zero("value"), reader.text("source"), reader.date("date")};
  reader.finish({"value", "source", "date"});
  return result;
}

Figure FieldReader::figure(const std::string& key, Cautious cautious) {
  const Field* field = find(key);
  if (field == nullptr) return {};
  if (!field->node.IsSequence()) {
    if (field->node.IsMap()) return one_figure(field->node, name_of(key));
    complain(key, "expected {value, source, date}, or a list of two such");
    return {};
  }
  if (field->node.size() != 2) {
    complain(key, fmt::format("expected one figure or a list of two, got {}", field->node.size()));
    return {};
  }
  const Figure a = one_figure(field->node[0], name_of(key) + "[1]"),
               b = one_figure(field->node[1], name_of(key) + "[2]");
  return (a.value <= b.value) == (cautious == Cautious::smaller) ? a : b;
}

YAML::Node FieldReader::list(const std::string& key) {
  const Field* field = find(key);
  if (field == nullptr) return {};
  if (field->node.IsSequence() && field->node.size() > 0) return field->node;
  complain(key, "expected a list with at least one entry");
  return {};
}

void FieldReader::finish(const std::vector<std::string>& known) {
  for (const auto& [key, field] : fields_) {
    if (std::ranges::find(known, key) != known.end()) continue;
    document_.complain(field.place,
                       fmt::format("{} is unknown; allowed: {}", shown(name_of(key)), fmt::join(known, ", ")));
  }
}

}  // namespace drover
