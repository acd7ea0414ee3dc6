#include "data/formats/fields.h"

#include <algorithm>
#include <array>

#include "kernels/base/error.h"

namespace drover {

void wrong(const std::string& what) { throw std::invalid_argument(what); }

bool has(const OrderedJson& object, const char* field) { return object.contains(field) && !object[field].is_null(); }

std::string text_of(const OrderedJson& object, const char* field) {
  if (!has(object, field)) return {};
  if (!object[field].is_string()) wrong(fmt::format("\"{}\" must be a string", field));
  return object[field].get<std::string>();
}

void refuse_unsupported(const OrderedJson& object, std::initializer_list<const char*> fields, const char* instead) {
  for (const char* field : fields) {
    if (has(object, field) && !object[field].empty())
      wrong(fmt::format("the field \"{}\" is not supported{}", field, instead));
  }
}

double weight_of(const OrderedJson& value) {
  if (!value.is_number() || value.get<double>() < 0 || value.get<double>() > 10)
    wrong("\"weight\" must be a number from 0 to 10");
  return value.get<double>();
}

void read_common(const OrderedJson& j, std::span<const char* const> fields, Row& row) {
  constexpr std::array<const char*, 3> kOfAll{"weight", "train", "loss"};
  refuse_unsupported(j, {"functions", "function_call"}, "; write \"tools\" and \"tool_calls\"");
  refuse_unsupported(j, {"documents", "chat_template_kwargs", "images", "videos", "audios"}, "");
  if (has(j, "weight")) row.weight = static_cast<float>(weight_of(j["weight"]));
  for (const char* field : {"train", "loss"}) {
    if (!has(j, field)) continue;
    if (!j[field].is_boolean()) wrong(fmt::format("\"{}\" of a row must be true or false", field));
    if (!j[field].get<bool>()) row.weight = 0;
  }
  for (const auto& [field, value] : j.items()) {
    const auto is_read = [&field = field](const auto& list) {
      return std::ranges::any_of(list, [&](const char* name) { return field == name; });
    };
    if (!is_read(fields) && !is_read(kOfAll) && !value.is_null()) row.ignored.push_back(field);
  }
}

void read_tools_and_system(const OrderedJson& j, Row& row) {
  if (has(j, "tools")) {
    OrderedJson tools = j["tools"];
    if (tools.is_string()) {
      const std::string text = tools.get<std::string>();
      tools = text.empty() ? OrderedJson::array() : parse_ordered_json(text, "\"tools\"");
    }
    if (!tools.is_array()) wrong("\"tools\" must be a list of functions");
    if (!tools.empty()) row.tools = std::move(tools);
  }
  const std::string system = text_of(j, "system");
  if (system.empty()) return;
  if (row.messages.front().role == "system") wrong("it has \"system\", and its dialog begins with a system message");
  row.messages.insert(row.messages.begin(), {"system", system});
}

}  // namespace drover
