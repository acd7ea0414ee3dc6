// `x is name`: Jinja's tests.
#include <algorithm>
#include <array>

#include "data/jinja/library.h"
#include "data/jinja/strings.h"

namespace drover::jinja {

namespace {

const Value& operand(const Arguments& arguments) {
  if (arguments.positional.size() != 1 || !arguments.named.empty()) throw Refusal("the test takes one argument");
  return arguments.positional[0];
}

int64_t whole(const Value& value) {
  if (!value.integer()) throw Refusal(fmt::format("{} is no integer", kind(value)));
  return *value.integer();
}

bool is_case(const Value& value, Case which) {
  const Text text = str(value);
  const bool letters = std::ranges::any_of(text.bytes(), [](char c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z'; });
  return letters && in_case(text, which).bytes() == text.bytes();
}

bool defined(const Value& v, const Arguments&) { return !v.undefined(); }
bool undefined(const Value& v, const Arguments&) { return v.undefined(); }
bool none(const Value& v, const Arguments&) { return v.none(); }
bool string(const Value& v, const Arguments&) { return v.text() != nullptr; }
bool mapping(const Value& v, const Arguments&) { return v.dict() != nullptr; }
bool iterable(const Value& v, const Arguments&) {
  return v.undefined() || v.text() != nullptr || v.list() != nullptr || v.dict() != nullptr;
}
bool number(const Value& v, const Arguments&) { return v.number().has_value(); }
bool integer(const Value& v, const Arguments&) { return v.integer() && v.boolean() == nullptr; }
bool real(const Value& v, const Arguments&) { return v.real(); }
bool boolean(const Value& v, const Arguments&) { return v.boolean() != nullptr; }
bool is_true(const Value& v, const Arguments&) { return v.boolean() != nullptr && *v.boolean(); }
bool is_false(const Value& v, const Arguments&) { return v.boolean() != nullptr && !*v.boolean(); }
bool callable(const Value& v, const Arguments&) { return v.callable() != nullptr; }
bool even(const Value& v, const Arguments&) { return whole(v) % 2 == 0; }
bool odd(const Value& v, const Arguments&) { return whole(v) % 2 != 0; }
bool divisible(const Value& v, const Arguments& a) {
  const int64_t by = whole(operand(a));
  if (by == 0) throw Refusal("a division by zero");
  return by == -1 || whole(v) % by == 0;
}
bool equals(const Value& v, const Arguments& a) { return equal(v, operand(a)); }
bool differs(const Value& v, const Arguments& a) { return !equal(v, operand(a)); }
bool less(const Value& v, const Arguments& a) { return order(v, operand(a)) < 0; }
bool at_most(const Value& v, const Arguments& a) { return order(v, operand(a)) <= 0; }
bool greater(const Value& v, const Arguments& a) { return order(v, operand(a)) > 0; }
bool at_least(const Value& v, const Arguments& a) { return order(v, operand(a)) >= 0; }
bool in(const Value& v, const Arguments& a) { return contains(operand(a), v); }
bool lower(const Value& v, const Arguments&) { return is_case(v, Case::lower); }
bool upper(const Value& v, const Arguments&) { return is_case(v, Case::upper); }

// `is sameas true`: for true, false, none and numbers; whether two lists are one object is not known here.
bool same(const Value& v, const Arguments& a) {
  const Value& other = operand(a);
  if ((v.boolean() == nullptr) != (other.boolean() == nullptr)) return false;
  if (v.list() != nullptr || v.dict() != nullptr) throw Refusal("sameas of a list or mapping is not supported");
  return equal(v, other);
}

constexpr std::array kTests{Test{"boolean", boolean},
                            Test{"callable", callable},
                            Test{"defined", defined},
                            Test{"divisibleby", divisible},
                            Test{"eq", equals},
                            Test{"equalto", equals},
                            Test{"even", even},
                            Test{"false", is_false},
                            Test{"float", real},
                            Test{"ge", at_least},
                            Test{"greaterthan", greater},
                            Test{"gt", greater},
                            Test{"in", in},
                            Test{"integer", integer},
                            Test{"iterable", iterable},
                            Test{"le", at_most},
                            Test{"lessthan", less},
                            Test{"lower", lower},
                            Test{"lt", less},
                            Test{"mapping", mapping},
                            Test{"ne", differs},
                            Test{"none", none},
                            Test{"number", number},
                            Test{"odd", odd},
                            Test{"sameas", same},
                            Test{"sequence", iterable},
                            Test{"string", string},
                            Test{"true", is_true},
                            Test{"undefined", undefined},
                            Test{"upper", upper}};

}  // namespace

const Test* find_test(std::string_view name) {
  const auto* at = std::ranges::find(kTests, name, &Test::name);
  return at != kTests.end() ? at : nullptr;
}

}  // namespace drover::jinja
