// What templates call by name: filters, tests, methods of values, operators. Source: Jinja2's documentation ("List of
// Builtin Filters", "List of Builtin Tests"); huggingface/transformers for tojson.
#pragma once
#include <array>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "data/jinja/value.h"

namespace drover::jinja {

// Arguments by the order of the parameters' names.
class Bound {
 public:
  // Refusal for arguments that have no parameter, or one that has two.
  Bound(const Arguments& arguments, std::initializer_list<std::string_view> names);

  const Value* given(size_t i) const { return values_[i] ? &*values_[i] : nullptr; }
  const Value& needed(size_t i) const;  // Refusal where it is not given
  const Text& text(size_t i) const;     // needed, and a string
  bool flag(size_t i, bool otherwise) const;
  std::optional<int64_t> integer(size_t i) const;  // Refusal where it is something else

 private:
  std::vector<std::string_view> names_;
  std::vector<std::optional<Value>> values_;
};

struct Filter {
  std::string_view name;
  Value (*apply)(Interpreter& run, const Value& input, const Arguments& arguments);
};
const Filter* find_filter(std::string_view name);  // null: not supported

struct Test {
  std::string_view name;
  bool (*holds)(const Value& input, const Arguments& arguments);
};
const Test* find_test(std::string_view name);

// Refusal where this value has none.
Value call_method(Interpreter& run, const Value& value, const std::string& name, const Arguments& arguments);

// of.name and of[index]: undefined where it is not there; Refusal for what is of an undefined value.
Value attribute_of(const Value& of, const std::string& name);
Value item_of(const Value& of, const Value& index);
Value slice_of(const Value& of, const std::array<std::optional<int64_t>, 3>& begin_end_step);

enum class BinaryOperator : uint8_t { add, subtract, multiply, divide, floor_divide, remainder, power, concatenate };
Value combine(Interpreter& run, BinaryOperator which, const Value& a, const Value& b);

// The functions every template has: range, namespace, dict, raise_exception.
std::vector<std::pair<std::string, Value>> builtin_functions();

}  // namespace drover::jinja
