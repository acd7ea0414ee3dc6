// Operators, items and slices, as Python has them.
#include <algorithm>
#include <array>
#include <cmath>

#include "data/jinja/interpreter.h"
#include "data/jinja/library.h"
#include "data/jinja/strings.h"

namespace drover::jinja {

namespace {

[[noreturn]] void undefined(const Value& value) {
  throw Refusal(fmt::format("{} is undefined", value.undefined_name().empty() ? "a value" : value.undefined_name()));
}

// A floor division's quotient and remainder, the remainder with the divisor's sign.
std::pair<int64_t, int64_t> floor_division(int64_t a, int64_t b) {
  if (b == 0) throw Refusal("a division by zero");
  if (b == -1) {
    if (a == INT64_MIN) throw Refusal("an integer leaves 64 bits");
    return {-a, 0};
  }
  int64_t quotient = a / b, remainder = a % b;
  if (remainder != 0 && (remainder < 0) != (b < 0)) {
    --quotient;
    remainder += b;
  }
  return {quotient, remainder};
}

int64_t integer_result(BinaryOperator which, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  switch (which) {
    case BinaryOperator::add: overflow = __builtin_add_overflow(a, b, &result); break;
    case BinaryOperator::subtract: overflow = __builtin_sub_overflow(a, b, &result); break;
    case BinaryOperator::multiply: overflow = __builtin_mul_overflow(a, b, &result); break;
    case BinaryOperator::floor_divide: return floor_division(a, b).first;
    case BinaryOperator::remainder: return floor_division(a, b).second;
    default:  // power
      result = 1;
      for (int64_t i = 0; i < b && !overflow && i < 64; ++i) overflow = __builtin_mul_overflow(result, a, &result);
      overflow = overflow || (b >= 64 && (a > 1 || a < -1));
      if (b >= 64 && a == -1) result = b % 2 == 0 ? 1 : -1;
  }
  if (overflow) throw Refusal("an integer leaves 64 bits");
  return result;
}

Value number_result(BinaryOperator which, const Value& a, const Value& b) {
  const bool power_below_one = which == BinaryOperator::power && *b.number() < 0;
  if (a.integer() && b.integer() && which != BinaryOperator::divide && !power_below_one)
    return integer_result(which, *a.integer(), *b.integer());
  const double x = *a.number(), y = *b.number();
  const bool divides =
      which == BinaryOperator::divide || which == BinaryOperator::floor_divide || which == BinaryOperator::remainder;
  if (divides && y == 0) throw Refusal("a division by zero");
  switch (which) {
    case BinaryOperator::add: return x + y;
    case BinaryOperator::subtract: return x - y;
    case BinaryOperator::multiply: return x * y;
    case BinaryOperator::divide: return x / y;
    case BinaryOperator::floor_divide: return std::floor(x / y);
    case BinaryOperator::remainder: return x - y * std::floor(x / y);
    default: return std::pow(x, y);
  }
}

Value repeated(Interpreter& run, const Text& text, int64_t times) {
  const auto count = static_cast<size_t>(std::max<int64_t>(times, 0));
  if (text.size() > 0 && count > (size_t{1} << 40) / text.size()) run.check_size(SIZE_MAX);
  run.check_size(text.size() * count);
  Text out;
  for (size_t i = 0; i < count && text.size() > 0; ++i) out.append(text);
  return out;
}

Text joined(Interpreter& run, const Text& a, const Text& b) {
  run.check_size(a.size() + b.size());
  run.spend(static_cast<int64_t>((a.size() + b.size()) / 64));
  Text out;
  out.append(a);
  out.append(b);
  return out;
}

// a + b: next to a safe string the other becomes HTML.
Text sum(Interpreter& run, const Text& a, const Text& b) {
  if (!a.safe() && !b.safe()) return joined(run, a, b);
  Text out = joined(run, a.safe() ? a : as_html(a), b.safe() ? b : as_html(b));
  out.mark_safe();
  return out;
}

constexpr std::array<const char*, 8> kSymbols{"+", "-", "*", "/", "//", "%", "**", "~"};

// Where a range of Python's slices begins, given what was written.
int64_t clamped(std::optional<int64_t> at, int64_t otherwise, int64_t size, int64_t low, int64_t high) {
  if (!at) return otherwise;
  return std::clamp(*at < 0 ? *at + size : *at, low, high);
}

}  // namespace

Value combine(Interpreter& run, BinaryOperator which, const Value& a, const Value& b) {
  if (which == BinaryOperator::concatenate) return joined(run, str(a), str(b));
  if (a.undefined()) undefined(a);
  if (b.undefined()) undefined(b);
  if (a.number() && b.number()) return number_result(which, a, b);
  if (which == BinaryOperator::add && a.text() != nullptr && b.text() != nullptr) return sum(run, *a.text(), *b.text());
  if (which == BinaryOperator::add && a.list() != nullptr && b.list() != nullptr &&
      a.list()->tuple == b.list()->tuple) {
    List sum = *a.list();
    sum.items.insert(sum.items.end(), b.list()->items.begin(), b.list()->items.end());
    run.spend(static_cast<int64_t>(sum.items.size()));
    return sum;
  }
  if (which == BinaryOperator::multiply && a.text() != nullptr && b.integer())
    return repeated(run, *a.text(), *b.integer());
  if (which == BinaryOperator::multiply && b.text() != nullptr && a.integer())
    return repeated(run, *b.text(), *a.integer());
  throw Refusal(fmt::format("{} {} {} is not supported", kind(a), kSymbols[static_cast<size_t>(which)], kind(b)));
}

Value attribute_of(const Value& of, const std::string& name) {
  if (of.undefined()) undefined(of);
  const Dict* fields = of.space() != nullptr ? &of.space()->fields : of.dict();
  if (fields != nullptr) {
    if (of.dict() != nullptr &&
        (name == "items" || name == "keys" || name == "values" || name == "get" || name == "copy" || name == "pop" ||
         name == "update" || name == "clear" || name == "setdefault"))
      throw Refusal(fmt::format("{} is a method of a mapping: a field of that name is ['{}']", name, name));
    if (const Value* value = fields->find(name)) return *value;
  }
  return Undefined{fmt::format("the attribute {}", name)};
}

Value item_of(const Value& of, const Value& index) {
  if (of.undefined()) undefined(of);
  if (of.dict() != nullptr) {
    if (const Value* value = of.dict()->find(index)) return *value;
  } else if (of.space() != nullptr) {
    if (const Value* value = of.space()->fields.find(index)) return *value;
  } else if (index.integer()) {
    if (const List* list = of.list()) {
      const auto size = static_cast<int64_t>(list->items.size());
      const int64_t at = *index.integer() < 0 ? *index.integer() + size : *index.integer();
      if (at >= 0 && at < size) return list->items[static_cast<size_t>(at)];
    } else if (const Text* text = of.text()) {
      const std::vector<size_t> begins = characters(text->bytes());
      const auto size = static_cast<int64_t>(begins.size()) - 1;
      const int64_t at = *index.integer() < 0 ? *index.integer() + size : *index.integer();
      if (at >= 0 && at < size)
        return text->slice(begins[static_cast<size_t>(at)], begins[static_cast<size_t>(at) + 1]);
    }
  }
  return Undefined{index.text() != nullptr ? fmt::format("the item '{}'", clipped(index.text()->bytes())) : "an item"};
}

Value slice_of(const Value& of, const std::array<std::optional<int64_t>, 3>& begin_end_step) {
  if (of.undefined()) undefined(of);
  if (of.list() == nullptr && of.text() == nullptr) throw Refusal(fmt::format("{} cannot be sliced", kind(of)));
  const List* list = of.list();
  const std::vector<size_t> at = list == nullptr ? characters(of.text()->bytes()) : std::vector<size_t>{};
  const auto size = static_cast<int64_t>(list != nullptr ? list->items.size() : at.size() - 1);
  const int64_t step = begin_end_step[2].value_or(1);
  if (step == 0) throw Refusal("a slice's step is zero");
  const bool forward = step > 0;
  const int64_t low = forward ? 0 : -1, high = forward ? size : size - 1;
  const int64_t begin = clamped(begin_end_step[0], forward ? 0 : size - 1, size, low, high);
  const int64_t end = clamped(begin_end_step[1], forward ? size : -1, size, low, high);
  std::vector<Value> kept;
  Text out;
  for (int64_t i = begin; forward ? i < end : i > end; i += std::clamp(step, -size - 1, size + 1)) {
    const auto place = static_cast<size_t>(i);
    if (list != nullptr) {
      kept.push_back(list->items[place]);
    } else {
      out.append(of.text()->slice(at[place], at[place + 1]));
    }
  }
  return list != nullptr ? Value(List{std::move(kept), list->tuple}) : Value(std::move(out));
}

}  // namespace drover::jinja
