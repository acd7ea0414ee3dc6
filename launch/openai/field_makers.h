// Entries of the field tables, each by its kind.
#pragma once
#include <initializer_list>

#include "launch/openai/field_table.h"

namespace drover::openai {

inline constexpr int64_t kMostInt = std::numeric_limits<int32_t>::max();

inline Field integer(const char* name, int64_t low, int64_t high, const char* about) {
  return {.name = name, .kind = FieldKind::integer, .about = about, .low = low, .high = high};
}
inline Field number(const char* name, double least, double most, const char* about) {
  return {.name = name, .kind = FieldKind::number, .about = about, .least = least, .most = most};
}
inline Field boolean(const char* name, const char* about) {
  return {.name = name, .kind = FieldKind::boolean, .about = about};
}
inline Field text(const char* name, int64_t low, int64_t high, const char* about) {
  return {.name = name, .kind = FieldKind::text, .about = about, .low = low, .high = high};
}
// Of letters, digits and `punctuation`.
inline Field word(const char* name, const char* punctuation, const char* about) {
  Field field = text(name, 1, 64, about);
  field.punctuation = punctuation;
  return field;
}
inline Field one_of(const char* name, std::vector<std::string> choices, const char* about) {
  return {.name = name, .kind = FieldKind::text, .about = about, .choices = std::move(choices)};
}
inline Field object(const char* name, const FieldTable* of, const char* about) {
  return {.name = name, .kind = FieldKind::object, .about = about, .of = of};
}
// low to high entries of a kind that has some.
inline Field entries(const char* name, FieldKind kind, int64_t low, int64_t high, const char* about) {
  return {.name = name, .kind = kind, .about = about, .low = low, .high = high};
}
inline Field objects(const char* name, int64_t low, int64_t high, const FieldTable* of, const char* about) {
  Field field = entries(name, FieldKind::objects, low, high, about);
  field.of = of;
  return field;
}
inline Field required(Field field) {
  field.required = true;
  return field;
}
inline Field ignored(Field field) {
  field.ignored = true;
  return field;
}

template <typename T>
std::vector<T> joined(std::initializer_list<std::vector<T>> lists) {
  std::vector<T> all;
  for (const std::vector<T>& list : lists) all.insert(all.end(), list.begin(), list.end());
  return all;
}

}  // namespace drover::openai
