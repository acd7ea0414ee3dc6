#include "data/jinja/value.h"

#include <algorithm>

namespace drover::jinja {

namespace {

void add(Extent& whole, const Value& item) {
  size_t bytes = 8;
  if (const Text* text = item.text()) bytes += text->size();
  const Extent* inner = item.list() != nullptr   ? &item.list()->extent
                        : item.dict() != nullptr ? &item.dict()->extent
                                                 : nullptr;
  if (inner != nullptr) {
    bytes += inner->bytes;
    whole.depth = std::max(whole.depth, inner->depth + 1);
  }
  whole.bytes += bytes;
  if (whole.depth > kDeepestValue)
    throw Refusal(fmt::format("it makes a list or mapping of more than {} levels", kDeepestValue));
  if (whole.bytes > kLargestValue)
    throw Refusal(fmt::format("it makes a list or mapping of more than {} bytes", kLargestValue));
}

List measured(List list) {
  list.extent = {};
  for (const Value& item : list.items) add(list.extent, item);
  return list;
}

Dict measured(Dict dict) {
  dict.extent = {};
  for (const auto& [key, item] : dict.items) {
    add(dict.extent, key);
    add(dict.extent, item);
  }
  return dict;
}

}  // namespace

Value::Value(List list) : held_(std::make_shared<const List>(measured(std::move(list)))) {}
Value::Value(Dict dict) : held_(std::make_shared<const Dict>(measured(std::move(dict)))) {}

const Value* Dict::find(const Value& key) const {
  const auto at = std::ranges::find_if(items, [&](const auto& item) { return equal(item.first, key); });
  return at == items.end() ? nullptr : &at->second;
}

const Value* Dict::find(std::string_view key) const {
  const auto named = [&](const auto& item) {
    return item.first.text() != nullptr && item.first.text()->bytes() == key;
  };
  const auto at = std::ranges::find_if(items, named);
  return at == items.end() ? nullptr : &at->second;
}

void Dict::set(const Value& key, const Value& value) {
  for (auto& [old_key, old_value] : items) {
    if (!equal(old_key, key)) continue;
    old_value = value;
    return;
  }
  items.emplace_back(key, value);
}

std::optional<int64_t> Value::integer() const {
  if (const bool* b = std::get_if<bool>(&held_)) return *b ? 1 : 0;
  if (const int64_t* i = std::get_if<int64_t>(&held_)) return *i;
  return std::nullopt;
}

std::optional<double> Value::number() const {
  if (const double* d = std::get_if<double>(&held_)) return *d;
  if (const auto i = integer()) return static_cast<double>(*i);
  return std::nullopt;
}

Namespace* Value::space() const {
  const auto* held = std::get_if<std::shared_ptr<Namespace>>(&held_);
  return held != nullptr ? held->get() : nullptr;
}

Value written(std::string_view bytes) { return Text(bytes); }

Value from_json(const OrderedJson& json, const Origin& origin) {
  using Kind = OrderedJson::value_t;
  switch (json.type()) {
    case Kind::boolean: return json.get<bool>();
    case Kind::number_integer: return json.get<int64_t>();
    case Kind::number_unsigned: {
      const uint64_t number = json.get<uint64_t>();
      if (number > static_cast<uint64_t>(INT64_MAX)) return static_cast<double>(number);
      return static_cast<int64_t>(number);
    }
    case Kind::number_float: return json.get<double>();
    case Kind::string: return Text(json.get_ref<const std::string&>(), origin);
    case Kind::array: {
      List list;
      for (const OrderedJson& item : json) list.items.push_back(from_json(item, origin));
      return list;
    }
    case Kind::object: {
      Dict dict;
      for (const auto& [key, item] : json.items()) dict.items.emplace_back(Text(key, origin), from_json(item, origin));
      return dict;
    }
    default: return None{};
  }
}

bool truth(const Value& value) {
  if (value.undefined() || value.none()) return false;
  if (const auto number = value.number()) return *number != 0;
  if (const Text* text = value.text()) return text->size() > 0;
  if (const List* list = value.list()) return !list->items.empty();
  if (const Dict* dict = value.dict()) return !dict->items.empty();
  return true;
}

namespace {

bool equal_lists(const List& a, const List& b) {
  return a.tuple == b.tuple &&
         std::ranges::equal(a.items, b.items, [](const Value& x, const Value& y) { return equal(x, y); });
}

bool equal_dicts(const Dict& a, const Dict& b) {
  if (a.items.size() != b.items.size()) return false;
  return std::ranges::all_of(a.items, [&](const auto& item) {
    const Value* other = b.find(item.first);
    return other != nullptr && equal(item.second, *other);
  });
}

}  // namespace

bool equal(const Value& a, const Value& b) {
  if (a.integer() && b.integer()) return *a.integer() == *b.integer();
  if (a.number() && b.number()) return *a.number() == *b.number();
  if (a.text() != nullptr && b.text() != nullptr) return a.text()->bytes() == b.text()->bytes();
  if (a.list() != nullptr && b.list() != nullptr) return equal_lists(*a.list(), *b.list());
  if (a.dict() != nullptr && b.dict() != nullptr) return equal_dicts(*a.dict(), *b.dict());
  if (a.space() != nullptr || a.callable() != nullptr) return a.space() == b.space() && a.callable() == b.callable();
  return (a.none() && b.none()) || (a.undefined() && b.undefined());
}

int order(const Value& a, const Value& b) {
  if (a.number() && b.number()) {
    if (a.integer() && b.integer()) return *a.integer() < *b.integer() ? -1 : *a.integer() > *b.integer();
    return *a.number() < *b.number() ? -1 : *a.number() > *b.number();
  }
  if (a.text() != nullptr && b.text() != nullptr) return a.text()->bytes().compare(b.text()->bytes());
  if (a.list() != nullptr && b.list() != nullptr) {
    const auto &x = a.list()->items, &y = b.list()->items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!equal(x[i], y[i])) return order(x[i], y[i]);
    }
    return x.size() < y.size() ? -1 : x.size() > y.size();
  }
  throw Refusal(fmt::format("{} and {} have no order", kind(a), kind(b)));
}

bool contains(const Value& container, const Value& item) {
  if (const Text* text = container.text()) {
    if (item.text() == nullptr) throw Refusal(fmt::format("{} cannot be in a string", kind(item)));
    return text->bytes().find(item.text()->bytes()) != std::string::npos;
  }
  if (const Dict* dict = container.dict()) return dict->find(item) != nullptr;
  const std::vector<Value> items = iterated(container);
  return std::ranges::any_of(items, [&](const Value& other) { return equal(other, item); });
}

void check_parts(size_t parts) {
  if (parts > kMostParts) throw Refusal(fmt::format("a string falls into more than {} parts", kMostParts));
}

std::vector<Value> iterated(const Value& value) {
  if (value.undefined()) return {};
  if (const List* list = value.list()) return list->items;
  std::vector<Value> items;
  if (const Dict* dict = value.dict()) {
    for (const auto& [key, ignored] : dict->items) items.push_back(key);
    return items;
  }
  if (const Text* text = value.text()) {
    const std::vector<size_t> at = characters(text->bytes());
    check_parts(at.size());
    for (size_t i = 0; i + 1 < at.size(); ++i) items.emplace_back(text->slice(at[i], at[i + 1]));
    return items;
  }
  throw Refusal(fmt::format("{} cannot be iterated over", kind(value)));
}

const char* kind(const Value& value) {
  if (value.undefined()) return "an undefined value";
  if (value.none()) return "none";
  if (value.boolean() != nullptr) return "a boolean";
  if (value.integer()) return "an integer";
  if (value.number()) return "a number";
  if (value.text() != nullptr) return "a string";
  if (value.list() != nullptr) return value.list()->tuple ? "a tuple" : "a list";
  if (value.dict() != nullptr) return "a mapping";
  return value.space() != nullptr ? "a namespace" : "a function";
}

}  // namespace drover::jinja
