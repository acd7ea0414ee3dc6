// Filters of single values; those of lists are in filters_of_lists.cpp.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "data/jinja/filters_of_lists.h"
#include "data/jinja/interpreter.h"
#include "data/jinja/library.h"
#include "data/jinja/strings.h"

namespace drover::jinja {

Bound::Bound(const Arguments& arguments, std::initializer_list<std::string_view> names)
    : names_(names), values_(names_.size()) {
  if (arguments.positional.size() > names_.size())
    throw Refusal(fmt::format("at most {} arguments are taken", names_.size()));
  std::copy(arguments.positional.begin(), arguments.positional.end(), values_.begin());
  for (const auto& [name, value] : arguments.named) {
    const auto at = std::ranges::find(names_, name);
    if (at == names_.end()) throw Refusal(fmt::format("the argument {} is not supported", name));
    std::optional<Value>& slot = values_[static_cast<size_t>(at - names_.begin())];
    if (slot) throw Refusal(fmt::format("the argument {} is given twice", name));
    slot = value;
  }
}

const Value& Bound::needed(size_t i) const {
  if (!values_[i]) throw Refusal(fmt::format("the argument {} is missing", names_[i]));
  return *values_[i];
}

const Text& Bound::text(size_t i) const {
  const Text* text = needed(i).text();
  if (text == nullptr)
    throw Refusal(fmt::format("the argument {} must be a string, not {}", names_[i], kind(needed(i))));
  return *text;
}

bool Bound::flag(size_t i, bool otherwise) const { return values_[i] ? truth(*values_[i]) : otherwise; }

std::optional<int64_t> Bound::integer(size_t i) const {
  if (!values_[i] || values_[i]->none()) return std::nullopt;
  if (!values_[i]->integer())
    throw Refusal(fmt::format("the argument {} must be an integer, not {}", names_[i], kind(*values_[i])));
  return values_[i]->integer();
}

namespace {

Value trim(Interpreter&, const Value& input, const Arguments& arguments) {
  const Bound bound(arguments, {"chars"});
  const bool given = bound.given(0) != nullptr && !bound.given(0)->none();
  return stripped(str(input), given ? &bound.text(0).bytes() : nullptr, true, true);
}

template <Case which>
Value cased(Interpreter&, const Value& input, const Arguments& arguments) {
  const Bound none(arguments, {});
  return in_case(str(input), which);
}

Value replace(Interpreter& run, const Value& input, const Arguments& arguments) {
  const Bound bound(arguments, {"old", "new", "count"});
  const Text old = str(bound.needed(0)), by = str(bound.needed(1));
  Text out = replaced(str(input), old.bytes(), by, bound.integer(2).value_or(-1));
  run.check_size(out.size());
  return out;
}

Value string(Interpreter&, const Value& input, const Arguments& arguments) {
  const Bound none(arguments, {});
  return str(input);
}

Value safe(Interpreter&, const Value& input, const Arguments& arguments) {
  const Bound none(arguments, {});
  Text text = str(input);
  text.mark_safe();
  return text;
}

Value otherwise(Interpreter&, const Value& input, const Arguments& arguments) {
  const Bound bound(arguments, {"default_value", "boolean"});
  if (!input.undefined() && (!bound.flag(1, false) || truth(input))) return input;
  return bound.given(0) != nullptr ? *bound.given(0) : written("");
}

Value length(Interpreter&, const Value& input, const Arguments& arguments) {
  const Bound none(arguments, {});
  if (const Text* text = input.text()) return static_cast<int64_t>(characters(text->bytes()).size()) - 1;
  if (const List* list = input.list()) return static_cast<int64_t>(list->items.size());
  if (const Dict* dict = input.dict()) return static_cast<int64_t>(dict->items.size());
  if (input.undefined()) return int64_t{0};
  throw Refusal(fmt::format("{} has no length", kind(input)));
}

// A number's text as Python's int() and float() read it.
std::optional<double> read_number(const Text& text) {
  const Text inner = stripped(text, nullptr, true, true);
  const char *begin = inner.bytes().data(), *end = begin + inner.size();
  if (begin != end && *begin == '+') ++begin;
  double value = 0;
  const auto read = std::from_chars(begin, end, value);
  return read.ec == std::errc{} && read.ptr == end && begin != end ? std::optional(value) : std::nullopt;
}

Value to_integer(Interpreter&, const Value& input, const Arguments& arguments) {
  const Bound bound(arguments, {"default"});
  std::optional<double> number = input.number();
  if (input.integer()) return *input.integer();
  if (input.text() != nullptr) number = read_number(*input.text());
  if (!number || !(std::abs(*number) < 9e18)) return bound.given(0) != nullptr ? *bound.given(0) : Value(int64_t{0});
  return static_cast<int64_t>(*number);
}

Value to_float(Interpreter&, const Value& input, const Arguments& arguments) {
  const Bound bound(arguments, {"default"});
  const std::optional<double> number = input.text() != nullptr ? read_number(*input.text()) : input.number();
  if (number) return *number;
  return bound.given(0) != nullptr ? *bound.given(0) : Value(0.0);
}

Value absolute(Interpreter& run, const Value& input, const Arguments& arguments) {
  const Bound none(arguments, {});
  if (!input.number()) throw Refusal(fmt::format("{} has no sign", kind(input)));
  return *input.number() < 0 ? combine(run, BinaryOperator::multiply, int64_t{-1}, input) : input;
}

Value rounded(Interpreter&, const Value& input, const Arguments& arguments) {
  const Bound bound(arguments, {"precision", "method"});
  if (!input.number()) throw Refusal(fmt::format("{} cannot be rounded", kind(input)));
  const double scale = std::pow(10.0, static_cast<double>(bound.integer(0).value_or(0)));
  const std::string method = bound.given(1) != nullptr ? bound.text(1).bytes() : "common";
  const double scaled = *input.number() * scale;
  if (method == "common") return std::nearbyint(scaled) / scale;
  if (method == "ceil") return std::ceil(scaled) / scale;
  if (method == "floor") return std::floor(scaled) / scale;
  throw Refusal(fmt::format("the rounding {} is not known", method));
}

Value json(Interpreter& run, const Value& input, const Arguments& arguments) {
  const Bound bound(arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style{.indent = bound.integer(1), .sort_keys = bound.flag(3, false), .ascii = bound.flag(0, false)};
  if (style.indent) style.item.assign(1, ',');
  if (bound.given(2) != nullptr && !bound.given(2)->none()) {
    const std::vector<Value> separators = iterated(*bound.given(2));
    if (separators.size() != 2 || separators[0].text() == nullptr || separators[1].text() == nullptr)
      throw Refusal("separators must be two strings");
    style.item = separators[0].text()->bytes();
    style.key = separators[1].text()->bytes();
  }
  if (style.indent && (*style.indent < 0 || *style.indent > 64)) throw Refusal("an indent is 0 to 64");
  Text out = to_json(input, style);
  run.check_size(out.size());
  run.spend(static_cast<int64_t>(out.size() / 64));
  return out;
}

Value indent(Interpreter& run, const Value& input, const Arguments& arguments) {
  const Bound bound(arguments, {"width", "first", "blank"});
  const Value* width = bound.given(0);
  const Text by =
      width != nullptr && width->text() != nullptr
          ? *width->text()
          : Text(std::string(static_cast<size_t>(std::clamp<int64_t>(bound.integer(0).value_or(4), 0, 1000)), ' '));
  Text text = str(input);
  text.append("\n", {});
  const std::vector<Text> lines = lines_of(text);
  run.check_size(text.size() + lines.size() * by.size());
  Text out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.append("\n", {});
    if (i == 0 ? bound.flag(1, false) : bound.flag(2, false) || lines[i].size() > 0) out.append(by);
    out.append(lines[i]);
  }
  return out;
}

constexpr std::array<Filter, 18> kFilters{{{"abs", absolute},
                                           {"capitalize", cased<Case::capitalized>},
                                           {"count", length},
                                           {"d", otherwise},
                                           {"default", otherwise},
                                           {"float", to_float},
                                           {"indent", indent},
                                           {"int", to_integer},
                                           {"length", length},
                                           {"lower", cased<Case::lower>},
                                           {"replace", replace},
                                           {"round", rounded},
                                           {"safe", safe},
                                           {"string", string},
                                           {"title", cased<Case::words>},
                                           {"tojson", json},
                                           {"trim", trim},
                                           {"upper", cased<Case::upper>}}};

}  // namespace

const Filter* find_filter(std::string_view name) {
  const auto* at = std::ranges::find(kFilters, name, &Filter::name);
  return at != kFilters.end() ? at : find_list_filter(name);
}

}  // namespace drover::jinja
