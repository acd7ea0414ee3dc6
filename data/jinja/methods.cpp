// Methods of Python's str, list and dict, and the functions that templates have.
#include <algorithm>
#include <array>

#include "data/jinja/interpreter.h"
#include "data/jinja/library.h"
#include "data/jinja/strings.h"

namespace drover::jinja {

namespace {

List texts(const std::vector<Text>& parts) {
  List list;
  for (const Text& part : parts) list.items.emplace_back(part);
  return list;
}

template <bool left, bool right>
Value strip_method(Interpreter&, const Text& text, const Arguments& arguments) {
  const Bound bound(arguments, {"chars"});
  const bool given = bound.given(0) != nullptr && !bound.given(0)->none();
  return stripped(text, given ? &bound.text(0).bytes() : nullptr, left, right);
}

template <bool from_right>
Value split_method(Interpreter& run, const Text& text, const Arguments& arguments) {
  const Bound bound(arguments, {"sep", "maxsplit"});
  const bool given = bound.given(0) != nullptr && !bound.given(0)->none();
  const std::vector<Text> parts =
      split(text, given ? &bound.text(0).bytes() : nullptr, bound.integer(1).value_or(-1), from_right);
  run.spend(static_cast<int64_t>(parts.size()));
  return texts(parts);
}

template <bool at_end>
Value affix(Interpreter&, const Text& text, const Arguments& arguments) {
  const Bound bound(arguments, {"affix"});
  const auto fits = [&](const Value& value) {
    if (value.text() == nullptr) throw Refusal(fmt::format("{} is no string to begin or end with", kind(value)));
    const std::string& part = value.text()->bytes();
    return at_end ? text.bytes().ends_with(part) : text.bytes().starts_with(part);
  };
  if (bound.needed(0).list() != nullptr) return std::ranges::any_of(bound.needed(0).list()->items, fits);
  return fits(bound.needed(0));
}

template <bool at_end>
Value without_affix(Interpreter&, const Text& text, const Arguments& arguments) {
  const Bound bound(arguments, {"affix"});
  const std::string& part = bound.text(0).bytes();
  if (at_end) return text.slice(0, text.size() - (text.bytes().ends_with(part) ? part.size() : 0));
  return text.slice(text.bytes().starts_with(part) ? part.size() : 0, text.size());
}

template <Case which>
Value case_method(Interpreter&, const Text& text, const Arguments& arguments) {
  const Bound none(arguments, {});
  return in_case(text, which);
}

Value replace_method(Interpreter& run, const Text& text, const Arguments& arguments) {
  const Bound bound(arguments, {"old", "new", "count"});
  Text out = replaced(text, bound.text(0).bytes(), bound.text(1), bound.integer(2).value_or(-1));
  run.check_size(out.size());
  return out;
}

// The characters before a byte offset, or -1.
int64_t character_at(const Text& text, size_t at) {
  if (at == std::string::npos) return -1;
  return static_cast<int64_t>(characters(std::string_view(text.bytes()).substr(0, at)).size()) - 1;
}

template <bool from_right, bool needed>
Value find_method(Interpreter&, const Text& text, const Arguments& arguments) {
  const Bound bound(arguments, {"sub"});
  const std::string& part = bound.text(0).bytes();
  const int64_t at = character_at(text, from_right ? text.bytes().rfind(part) : text.bytes().find(part));
  if (needed && at < 0) throw Refusal("the part is not in the string");
  return at;
}

Value count_method(Interpreter&, const Text& text, const Arguments& arguments) {
  const Bound bound(arguments, {"sub"});
  const std::string& part = bound.text(0).bytes();
  if (part.empty()) return static_cast<int64_t>(characters(text.bytes()).size());
  int64_t count = 0;
  for (size_t at = 0; (at = text.bytes().find(part, at)) != std::string::npos; at += part.size()) ++count;
  return count;
}

Value join_method(Interpreter& run, const Text& text, const Arguments& arguments) {
  const Bound bound(arguments, {"parts"});
  Text out;
  bool first = true;
  for (const Value& part : iterated(bound.needed(0))) {
    if (part.text() == nullptr) throw Refusal(fmt::format("{} cannot be joined to a string", kind(part)));
    if (!std::exchange(first, false)) out.append(text);
    out.append(*part.text());
    run.check_size(out.size());
  }
  return out;
}

Value lines_method(Interpreter&, const Text& text, const Arguments& arguments) {
  const Bound none(arguments, {});
  return texts(lines_of(text));
}

// isdigit and its like, for ASCII; Refusal for text beyond it.
template <int (*holds)(int)>
Value all_method(Interpreter&, const Text& text, const Arguments& arguments) {
  const Bound none(arguments, {});
  for (const char c : text.bytes()) {
    if (static_cast<unsigned char>(c) >= 0x80) throw Refusal("kinds of characters beyond ASCII are not supported");
    if (holds(c) == 0) return false;
  }
  return text.size() > 0;
}

// '{} {1} {name}'.format(…), without conversions and widths.
Value format_method(Interpreter& run, const Text& text, const Arguments& arguments) {
  Text out;
  size_t next = 0;
  const std::string& bytes = text.bytes();
  for (size_t at = 0; at < bytes.size();) {
    const size_t brace = std::min(bytes.find_first_of("{}", at), bytes.size());
    out.append(text.slice(at, brace));
    if (brace == bytes.size()) break;
    if (brace + 1 < bytes.size() && bytes[brace + 1] == bytes[brace]) {
      out.append(text.slice(brace, brace + 1));
      at = brace + 2;
      continue;
    }
    const size_t close = bytes.find('}', brace);
    if (bytes[brace] == '}' || close == std::string::npos) throw Refusal("a brace of the format stands alone");
    const std::string field = bytes.substr(brace + 1, close - brace - 1);
    const auto named = std::ranges::find(arguments.named, field, [](const auto& argument) { return argument.first; });
    const bool number =
        field.empty() || (field.size() < 4 && std::ranges::all_of(field, [](char c) { return c >= '0' && c <= '9'; }));
    const size_t place = field.empty() ? next++ : number ? std::stoul(field) : arguments.positional.size();
    if (named == arguments.named.end() && place >= arguments.positional.size())
      throw Refusal(fmt::format("the format's field {{{}}} has no value, or is not supported", field));
    out.append(str(named != arguments.named.end() ? named->second : arguments.positional[place]));
    run.check_size(out.size());
    at = close + 1;
  }
  return out;
}

struct TextMethod {
  std::string_view name;
  Value (*call)(Interpreter& run, const Text& text, const Arguments& arguments);
};

constexpr std::array kTextMethods{TextMethod{"capitalize", case_method<Case::capitalized>},
                                  TextMethod{"count", count_method},
                                  TextMethod{"endswith", affix<true>},
                                  TextMethod{"find", find_method<false, false>},
                                  TextMethod{"format", format_method},
                                  TextMethod{"index", find_method<false, true>},
                                  TextMethod{"isalnum", all_method<std::isalnum>},
                                  TextMethod{"isalpha", all_method<std::isalpha>},
                                  TextMethod{"isdigit", all_method<std::isdigit>},
                                  TextMethod{"isspace", all_method<std::isspace>},
                                  TextMethod{"join", join_method},
                                  TextMethod{"lower", case_method<Case::lower>},
                                  TextMethod{"lstrip", strip_method<true, false>},
                                  TextMethod{"removeprefix", without_affix<false>},
                                  TextMethod{"removesuffix", without_affix<true>},
                                  TextMethod{"replace", replace_method},
                                  TextMethod{"rfind", find_method<true, false>},
                                  TextMethod{"rsplit", split_method<true>},
                                  TextMethod{"rstrip", strip_method<false, true>},
                                  TextMethod{"split", split_method<false>},
                                  TextMethod{"splitlines", lines_method},
                                  TextMethod{"startswith", affix<false>},
                                  TextMethod{"strip", strip_method<true, true>},
                                  TextMethod{"title", case_method<Case::title>},
                                  TextMethod{"upper", case_method<Case::upper>}};

// What would change a list or mapping: transformers forbids it too.
constexpr std::array<std::string_view, 10> kChanging{"append", "clear", "extend", "insert",     "pop",
                                                     "remove", "sort",  "update", "setdefault", "popitem"};

Value of_list(const List& list, const std::string& name, const Arguments& arguments) {
  const Bound bound(arguments, {"value"});
  if (name == "count") {
    return int64_t{std::ranges::count_if(list.items, [&](const Value& item) { return equal(item, bound.needed(0)); })};
  }
  if (name == "index") {
    const auto at = std::ranges::find_if(list.items, [&](const Value& item) { return equal(item, bound.needed(0)); });
    if (at != list.items.end()) return int64_t{at - list.items.begin()};
    throw Refusal("the value is not in the list");
  }
  throw Refusal(fmt::format("a list has no method {}", name));
}

Value of_dict(const Dict& dict, const std::string& name, const Arguments& arguments) {
  const Bound bound(arguments, {"key", "default"});
  if (name == "get") {
    const Value* value = dict.find(bound.needed(0));
    return value != nullptr ? *value : bound.given(1) != nullptr ? *bound.given(1) : Value(None{});
  }
  List list;
  for (const auto& [key, value] : dict.items) {
    if (name == "items") {
      list.items.emplace_back(List{{key, value}, true});
    } else if (name == "keys" || name == "values") {
      list.items.push_back(name == "keys" ? key : value);
    } else {
      throw Refusal(fmt::format("a mapping has no method {}", name));
    }
  }
  return list;
}

Value range(Interpreter& run, const Arguments& arguments) {
  const Bound bound(arguments, {"start", "stop", "step"});
  const bool one = bound.given(1) == nullptr;
  const int64_t begin = one ? 0 : bound.integer(0).value_or(0), step = bound.integer(2).value_or(1);
  const int64_t end = bound.integer(one ? 0 : 1).value_or(0);
  if (step == 0) throw Refusal("a range's step is zero");
  List list;
  for (int64_t i = begin; step > 0 ? i < end : i > end;) {
    run.spend(1);
    list.items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return list;
}

Dict fields_of(const Arguments& arguments) {
  Dict fields;
  if (arguments.positional.size() > 1 ||
      (arguments.positional.size() == 1 && arguments.positional[0].dict() == nullptr))
    throw Refusal("only one mapping, or named values, are taken");
  if (!arguments.positional.empty()) fields = *arguments.positional[0].dict();
  for (const auto& [name, value] : arguments.named) fields.set(written(name), value);
  return fields;
}

Value make_namespace(Interpreter& run, const Arguments& arguments) {
  auto space = std::make_shared<Namespace>(Namespace{fields_of(arguments)});
  run.keep(space);
  return space;
}
Value make_dict(Interpreter&, const Arguments& arguments) { return fields_of(arguments); }

Value raise(Interpreter&, const Arguments& arguments) {
  throw Raised(str(Bound(arguments, {"message"}).needed(0)).bytes());
}

}  // namespace

Value call_method(Interpreter& run, const Value& value, const std::string& name, const Arguments& arguments) {
  if (value.undefined()) throw Refusal(fmt::format("{} is undefined", value.undefined_name()));
  if (value.text() == nullptr && std::ranges::find(kChanging, name) != kChanging.end())
    throw Refusal(fmt::format("{} would change {}, which a template may not", name, kind(value)));
  if (const Text* text = value.text()) {
    const auto* method = std::ranges::find(kTextMethods, name, &TextMethod::name);
    if (method == kTextMethods.end()) throw Refusal(fmt::format("a string has no method {}", name));
    return method->call(run, *text, arguments);
  }
  if (const List* list = value.list()) return of_list(*list, name, arguments);
  if (const Dict* dict = value.dict()) return of_dict(*dict, name, arguments);
  throw Refusal(fmt::format("{} has no method {}", kind(value), name));
}

std::vector<std::pair<std::string, Value>> builtin_functions() {
  return {{"range", Callable{"range", range}},
          {"namespace", Callable{"namespace", make_namespace}},
          {"dict", Callable{"dict", make_dict}},
          {"raise_exception", Callable{"raise_exception", raise}}};
}

}  // namespace drover::jinja
