#include "data/jinja/filters_of_lists.h"

#include <algorithm>
#include <array>

#include "data/jinja/interpreter.h"
#include "data/jinja/strings.h"

namespace drover::jinja {

namespace {

// item.a.b for the attribute "a.b"; digits are an index.
Value field_of(const Value& item, const Value& attribute) {
  if (attribute.integer()) return item_of(item, attribute);
  if (attribute.text() == nullptr) throw Refusal(fmt::format("{} is no attribute's name", kind(attribute)));
  Value value = item;
  const std::string dot = ".";
  for (const Text& part : split(*attribute.text(), &dot, -1)) {
    const std::string& name = part.bytes();
    const bool digits =
        !name.empty() && name.size() < 10 && std::ranges::all_of(name, [](char c) { return c >= '0' && c <= '9'; });
    value = item_of(value, digits ? Value(int64_t{std::stoll(name)}) : Value(part));
  }
  return value;
}

Arguments behind(const Arguments& arguments, size_t begin) {
  return {{arguments.positional.begin() + static_cast<std::ptrdiff_t>(begin), arguments.positional.end()},
          arguments.named};
}

const std::string& name_at(const Arguments& arguments, size_t i, const char* what) {
  if (arguments.positional.size() <= i || arguments.positional[i].text() == nullptr)
    throw Refusal(fmt::format("{} is missing", what));
  return arguments.positional[i].text()->bytes();
}

Value map(Interpreter& run, const Value& input, const Arguments& arguments) {
  List out;
  if (!truth(input)) return out;
  if (arguments.positional.empty()) {
    const Bound bound(arguments, {"attribute", "default"});
    for (const Value& item : iterated(input)) {
      const Value field = field_of(item, bound.needed(0));
      out.items.push_back(field.undefined() && bound.given(1) != nullptr ? *bound.given(1) : field);
    }
    return out;
  }
  const std::string& name = name_at(arguments, 0, "the filter's name");
  const Filter* filter = find_filter(name);
  if (filter == nullptr) throw Refusal(fmt::format("the filter {} is not supported", name));
  const Arguments rest = behind(arguments, 1);
  for (const Value& item : iterated(input)) {
    run.spend(1);
    out.items.push_back(filter->apply(run, item, rest));
  }
  return out;
}

// select, reject, selectattr, rejectattr
template <bool wanted, bool of_attribute>
Value chosen(Interpreter& run, const Value& input, const Arguments& arguments) {
  const size_t at = of_attribute ? 1 : 0;
  if (of_attribute && arguments.positional.empty()) throw Refusal("the attribute's name is missing");
  const Test* test = nullptr;
  if (arguments.positional.size() > at) {
    const std::string& name = name_at(arguments, at, "the test's name");
    test = find_test(name);
    if (test == nullptr) throw Refusal(fmt::format("the test {} is not supported", name));
  }
  const Arguments rest = test != nullptr ? behind(arguments, at + 1) : Arguments{};
  List out;
  if (!truth(input)) return out;
  for (const Value& item : iterated(input)) {
    run.spend(1);
    const Value value = of_attribute ? field_of(item, arguments.positional[0]) : item;
    if ((test != nullptr ? test->holds(value, rest) : truth(value)) == wanted) out.items.push_back(item);
  }
  return out;
}

Value join(Interpreter& run, const Value& input, const Arguments& arguments) {
  const Bound bound(arguments, {"d", "attribute"});
  const Text between = bound.given(0) != nullptr ? str(*bound.given(0)) : Text();
  Text out;
  bool first = true;
  for (const Value& item : iterated(input)) {
    if (!std::exchange(first, false)) out.append(between);
    out.append(str(bound.given(1) != nullptr ? field_of(item, *bound.given(1)) : item));
    run.check_size(out.size());
  }
  return out;
}

Value first(Interpreter&, const Value& input, const Arguments& arguments) {
  const Bound none(arguments, {});
  const std::vector<Value> items = iterated(input);
  return items.empty() ? Value(Undefined{"the first item of nothing"}) : items.front();
}

Value last(Interpreter&, const Value& input, const Arguments& arguments) {
  const Bound none(arguments, {});
  const std::vector<Value> items = iterated(input);
  return items.empty() ? Value(Undefined{"the last item of nothing"}) : items.back();
}

Value list(Interpreter&, const Value& input, const Arguments& arguments) {
  const Bound none(arguments, {});
  return List{iterated(input)};
}

Value pairs_of(const Dict& dict) {
  List pairs;
  for (const auto& [key, value] : dict.items) pairs.items.emplace_back(List{{key, value}, true});
  return pairs;
}

Value items(Interpreter&, const Value& input, const Arguments& arguments) {
  const Bound none(arguments, {});
  if (input.undefined()) return List{};
  if (input.dict() == nullptr) throw Refusal(fmt::format("{} has no items", kind(input)));
  return pairs_of(*input.dict());
}

// What items are compared by: strings without their case unless it counts.
Value sort_key(const Value& value, bool case_sensitive) {
  return value.text() != nullptr && !case_sensitive ? Value(in_case(*value.text(), Case::lower)) : value;
}

std::vector<Value> sorted_by(const std::vector<Value>& values, const std::vector<Value>& keys, bool reverse) {
  std::vector<size_t> at(values.size());
  for (size_t i = 0; i < at.size(); ++i) at[i] = i;
  std::ranges::stable_sort(
      at, [&](size_t a, size_t b) { return reverse ? order(keys[b], keys[a]) < 0 : order(keys[a], keys[b]) < 0; });
  std::vector<Value> out;
  for (const size_t i : at) out.push_back(values[i]);
  return out;
}

Value sort(Interpreter& run, const Value& input, const Arguments& arguments) {
  const Bound bound(arguments, {"reverse", "case_sensitive", "attribute"});
  const std::vector<Value> values = iterated(input);
  run.spend(static_cast<int64_t>(values.size()));
  std::vector<Value> keys;
  for (const Value& value : values) {
    keys.push_back(
        sort_key(bound.given(2) != nullptr ? field_of(value, *bound.given(2)) : value, bound.flag(1, false)));
  }
  return List{sorted_by(values, keys, bound.flag(0, false))};
}

Value dictsort(Interpreter&, const Value& input, const Arguments& arguments) {
  const Bound bound(arguments, {"case_sensitive", "by", "reverse"});
  if (input.dict() == nullptr) throw Refusal(fmt::format("{} has no items", kind(input)));
  const std::string by = bound.given(1) != nullptr ? bound.text(1).bytes() : "key";
  if (by != "key" && by != "value") throw Refusal("dictsort sorts by key or value");
  std::vector<Value> keys;
  for (const auto& [key, value] : input.dict()->items)
    keys.push_back(sort_key(by == "key" ? key : value, bound.flag(0, false)));
  return List{sorted_by(pairs_of(*input.dict()).list()->items, keys, bound.flag(2, false))};
}

Value unique(Interpreter& run, const Value& input, const Arguments& arguments) {
  const Bound bound(arguments, {"case_sensitive", "attribute"});
  std::vector<Value> seen;
  List out;
  for (const Value& item : iterated(input)) {
    const Value key =
        sort_key(bound.given(1) != nullptr ? field_of(item, *bound.given(1)) : item, bound.flag(0, false));
    run.spend(static_cast<int64_t>(seen.size()) + 1);
    if (std::ranges::any_of(seen, [&](const Value& other) { return equal(other, key); })) continue;
    seen.push_back(key);
    out.items.push_back(item);
  }
  return out;
}

Value reverse(Interpreter&, const Value& input, const Arguments& arguments) {
  const Bound none(arguments, {});
  return slice_of(input, {std::nullopt, std::nullopt, -1});
}

Value sum(Interpreter& run, const Value& input, const Arguments& arguments) {
  const Bound bound(arguments, {"attribute", "start"});
  const bool attribute = bound.given(0) != nullptr && !bound.given(0)->none();
  Value total = bound.given(1) != nullptr ? *bound.given(1) : Value(int64_t{0});
  for (const Value& item : iterated(input))
    total = combine(run, BinaryOperator::add, total, attribute ? field_of(item, *bound.given(0)) : item);
  return total;
}

template <int sign>
Value extreme(Interpreter&, const Value& input, const Arguments& arguments) {
  const Bound bound(arguments, {"case_sensitive", "attribute"});
  std::optional<std::pair<Value, Value>> best;  // key, item
  for (const Value& item : iterated(input)) {
    const Value key =
        sort_key(bound.given(1) != nullptr ? field_of(item, *bound.given(1)) : item, bound.flag(0, false));
    if (!best || sign * order(key, best->first) > 0) best = {key, item};
  }
  return best ? best->second : Value(Undefined{"the extreme of nothing"});
}

constexpr std::array<Filter, 17> kFilters{{{"dictsort", dictsort},
                                           {"first", first},
                                           {"items", items},
                                           {"join", join},
                                           {"last", last},
                                           {"list", list},
                                           {"map", map},
                                           {"max", extreme<1>},
                                           {"min", extreme<-1>},
                                           {"reject", chosen<false, false>},
                                           {"rejectattr", chosen<false, true>},
                                           {"reverse", reverse},
                                           {"select", chosen<true, false>},
                                           {"selectattr", chosen<true, true>},
                                           {"sort", sort},
                                           {"sum", sum},
                                           {"unique", unique}}};

}  // namespace

const Filter* find_list_filter(std::string_view name) {
  const auto* at = std::ranges::find(kFilters, name, &Filter::name);
  return at != kFilters.end() ? at : nullptr;
}

}  // namespace drover::jinja
