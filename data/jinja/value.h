// The values that a chat template computes with, and what Python would make of them: truth, equality, order, str(),
// repr(). Values are immutable and shared, but for a namespace's fields. Source: Jinja2's documentation; Python's
// language reference for str, int, float, list and dict.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "data/jinja/text.h"
#include "kernels/base/json.h"

namespace drover::jinja {

class Value;
class Interpreter;

// A template that asks for what it cannot have: Interpreter adds the place.
class Refusal : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// What a value may be, so that printing, comparing and freeing it ends: a template can make lists of lists in a loop,
// and hold one list a thousand times in another.
inline constexpr int kDeepestValue = 200;                  // lists and mappings in one another
inline constexpr size_t kLargestValue = size_t{64} << 20;  // bytes, each counted as often as it would be printed
inline constexpr size_t kMostParts = 1'000'000;            // that one string is taken apart into

struct Extent {
  int depth = 1;
  size_t bytes = 0;
};

struct Undefined {
  std::string what;  // is undefined: 'x', or "an attribute 'x'"
};
struct None {};

struct List {
  std::vector<Value> items;
  bool tuple = false;
  Extent extent;  // of the items, from when it became a Value
};

struct Dict {
  std::vector<std::pair<Value, Value>> items;  // in the order of insertion; a key stands once
  Extent extent;
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  void set(const Value& key, const Value& value);
};

struct Namespace {  // what namespace() makes: its fields can be set from inner scopes; Interpreter ends its life
  Dict fields;
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

struct Callable {  // a macro or a global function
  std::string name;
  std::function<Value(Interpreter&, const Arguments&)> call;
};

class Value {
 public:
  Value() : held_(Undefined{}) {}
  Value(Undefined undefined) : held_(std::move(undefined)) {}
  Value(None) : held_(None{}) {}
  Value(bool b) : held_(b) {}
  Value(int64_t i) : held_(i) {}
  Value(double d) : held_(d) {}
  Value(Text text) : held_(std::make_shared<const Text>(std::move(text))) {}
  Value(const char*) = delete;  // would be a bool
  // Refusal for what is nested too deeply or too large.
  Value(List list);
  Value(Dict dict);
  Value(std::shared_ptr<Namespace> space) : held_(std::move(space)) {}
  Value(Callable function) : held_(std::make_shared<const Callable>(std::move(function))) {}

  bool undefined() const { return std::holds_alternative<Undefined>(held_); }
  bool none() const { return std::holds_alternative<None>(held_); }
  const bool* boolean() const { return std::get_if<bool>(&held_); }
  std::optional<int64_t> integer() const;  // a bool counts as 0 or 1, as in Python
  std::optional<double> number() const;    // integers and bools too
  bool real() const { return std::holds_alternative<double>(held_); }
  const Text* text() const { return shared<const Text>(); }
  const List* list() const { return shared<const List>(); }
  const Dict* dict() const { return shared<const Dict>(); }
  const Callable* callable() const { return shared<const Callable>(); }
  Namespace* space() const;
  const std::string& undefined_name() const { return std::get<Undefined>(held_).what; }

 private:
  template <typename T>
  const T* shared() const {
    const auto* held = std::get_if<std::shared_ptr<T>>(&held_);
    return held != nullptr ? held->get() : nullptr;
  }
  std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>, std::shared_ptr<const List>,
               std::shared_ptr<const Dict>, std::shared_ptr<Namespace>, std::shared_ptr<const Callable>>
      held_;
};

Value written(std::string_view bytes);  // a string of the template's own
// A file's value, its strings of the one origin.
Value from_json(const OrderedJson& json, const Origin& origin);

bool truth(const Value& value);
bool equal(const Value& a, const Value& b);
// Negative, 0 or positive; Refusal for what Python does not order.
int order(const Value& a, const Value& b);
// Whether `item` is in a string, list or dict. Refusal for other containers.
bool contains(const Value& container, const Value& item);

void check_parts(size_t parts);  // Refusal for more than kMostParts

// What iterating over it yields: characters, items or keys; nothing for undefined. Refusal for what cannot be iterated.
std::vector<Value> iterated(const Value& value);

Text str(const Value& value);   // as {{ }} prints it
Text repr(const Value& value);  // as it stands within a printed list
std::string python_float(double value);
const char* kind(const Value& value);  // "a string", "a list", …

// json.dumps(value, ensure_ascii=False, …). Refusal for what JSON does not have.
struct JsonStyle {
  std::optional<int64_t> indent = {};
  std::string item = ", ", key = ": ";  // separators
  bool sort_keys = false, ascii = false;
};
Text to_json(const Value& value, const JsonStyle& style = {});

}  // namespace drover::jinja
