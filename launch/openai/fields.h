// A JSON object of a request, read by its table: checked as a whole when it is opened, then taken field by field.
#pragma once
#include <optional>
#include <set>

#include "launch/openai/api_error.h"
#include "launch/openai/field_table.h"

namespace drover::openai {

// The body of a request: an object. 400 where it is not JSON, or not an object.
OrderedJson parse_body(std::string_view body);

class Fields {
 public:
  // `place` stands in front of every name in messages, as in "messages[2]". Absent and null are the same; fields that
  // the table does not have are passed over. 400 naming the first field that is refused, missing, of another type or
  // out of range. Both arguments stay while the object is read.
  Fields(const OrderedJson& object, const FieldTable& table, std::string place = "");

  bool has(const std::string& name) const { return find(name) != nullptr; }
  std::optional<int64_t> integer(const std::string& name) const;
  std::optional<double> number(const std::string& name) const;
  std::optional<bool> boolean(const std::string& name) const;
  std::optional<std::string> text(const std::string& name) const;
  std::vector<std::string> texts(const std::string& name) const;  // one is a list of one
  const OrderedJson* json(const std::string& name) const;         // of any kind; null: absent
  std::string path_of(const std::string& name) const { return place_.empty() ? name : place_ + "." + name; }

  // That each field of the table was asked for, but for those that are ignored: an invariant of ours.
  void expect_all_read() const;

 private:
  const OrderedJson* find(const std::string& name) const;
  const OrderedJson* find(const std::string& name, FieldKind kind) const;
  void check_refused(const Refused& refused) const;

  const OrderedJson& object_;
  const FieldTable& table_;
  std::string place_;
  mutable std::set<std::string> read_;
};

// Token ids in a list: integers that the vocabulary has. 400 naming `path`.
std::vector<int32_t> token_ids_of(const OrderedJson& list, int64_t vocab_size, const std::string& path);

}  // namespace drover::openai
