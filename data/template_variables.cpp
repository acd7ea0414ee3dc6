#include "data/template_variables.h"

#include <ctime>
#include <iomanip>
#include <sstream>

#include "data/jinja/library.h"

namespace drover {

namespace {

using jinja::Origin;
using jinja::Value;

// What a field of a message gives to the text: its label, what is said, or what is called.
Origin::Source source_of(const std::string& field) {
  if (field == "role" || field == "name" || field == "tool_call_id" || field == "id") return Origin::Source::label;
  return field == "tool_calls" ? Origin::Source::call : Origin::Source::content;
}

Value message_value(const Message& message, int32_t index) {
  const auto origin = [&](const std::string& field) { return Origin{source_of(field), index}; };
  jinja::Dict dict;
  dict.set(jinja::written("role"), jinja::Text(message.role, origin("role")));
  dict.set(jinja::written("content"), jinja::Text(message.content, origin("content")));
  for (const auto& [field, value] : message.more.items())
    dict.set(jinja::written(field), jinja::from_json(value, origin(field)));
  return dict;
}

// The date in another format, as strftime writes it in the C locale.
std::string formatted(const std::string& date, const std::string& format) {
  if (format == "%d %b %Y") return date;
  std::tm time{};
  std::istringstream in(date);
  in.imbue(std::locale::classic());
  in >> std::get_time(&time, "%d %b %Y");
  if (in.fail()) {
    throw jinja::Refusal(
        fmt::format("the template writes a date as {}, and data.template_date \"{}\" is not like \"{}\"", format, date,
                    RenderOptions::kDate));
  }
  time.tm_isdst = 0;
  const std::time_t seconds = timegm(&time);
  gmtime_r(&seconds, &time);
  std::ostringstream out;
  out.imbue(std::locale::classic());
  out << std::put_time(&time, format.c_str());
  return out.str();
}

Value date_function(const std::string& date) {
  return jinja::Callable{"strftime_now", [date](jinja::Interpreter&, const jinja::Arguments& arguments) {
                           const jinja::Bound bound(arguments, {"format"});
                           return jinja::Text(formatted(date, bound.text(0).bytes()), {Origin::Source::outside});
                         }};
}

}  // namespace

jinja::Template::Variables template_variables(std::span<const Message> dialog, const RenderOptions& options,
                                              bool generation_prompt,
                                              std::span<const std::pair<std::string, std::string>> special_tokens) {
  const Origin outside{Origin::Source::outside};
  jinja::List messages;
  for (size_t i = 0; i < dialog.size(); ++i)
    messages.items.push_back(message_value(dialog[i], static_cast<int32_t>(i)));
  jinja::Template::Variables variables{{"messages", messages},
                                       {"tools", jinja::from_json(options.tools, outside)},
                                       {"documents", jinja::None{}},
                                       {"add_generation_prompt", generation_prompt},
                                       {"strftime_now", date_function(options.date)}};
  for (const auto& [name, spelling] : special_tokens) variables.emplace_back(name, jinja::written(spelling));
  if (options.date != RenderOptions::kDate) variables.emplace_back("date_string", jinja::Text(options.date, outside));
  return variables;
}

}  // namespace drover
