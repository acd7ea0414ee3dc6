#include "data/formats/row_reader.h"

#include <algorithm>
#include <array>

#include "data/formats/fields.h"
#include "kernels/base/error.h"

namespace drover {

namespace {

// Those that a row may be, in the order in which they are asked.
constexpr std::array kFormats{&kMessagesFormat,         &kShareGptFormat, &kAlpacaFormat,
                              &kPromptCompletionFormat, &kIdsFormat,      &kTextFormat};

bool may_be(const OrderedJson& row, const RowFormatSpec& format) {
  return std::ranges::all_of(format.needed, [&](const char* field) { return row.contains(field); });
}

std::string fields_of(const RowFormatSpec& format) {
  std::string text;
  for (const char* field : format.needed) text += fmt::format("{}\"{}\"", text.empty() ? "" : " and ", field);
  return text;
}

std::string known_formats() {
  std::string text;
  for (const RowFormatSpec* format : kFormats) text += (text.empty() ? "" : ", or ") + fields_of(*format);
  return text;
}

std::string names_of(const OrderedJson& row) {
  std::string text;
  for (const auto& [field, value] : row.items()) text += fmt::format("{}\"{}\"", text.empty() ? "" : ", ", field);
  return text.empty() ? "nothing" : clipped(text, 200);
}

bool is_of_turns(const std::string& field) {
  return std::ranges::find(kFieldsOfTurns, field) != std::end(kFieldsOfTurns);
}

// Of the row by itself. A text next to another format is a rendering of it, which is not read.
RowFormat shown_by(const OrderedJson& row) {
  const RowFormatSpec* found = nullptr;
  for (const RowFormatSpec* format : kFormats) {
    if (!may_be(row, *format) || (found && format == &kTextFormat)) continue;
    if (found) {
      wrong(fmt::format("it has {} and {}; say which to read: data.format, or format of its source: {} or {}",
                        fields_of(*found), fields_of(*format), word_of(found->format), word_of(format->format)));
    }
    found = format;
  }
  if (!found && row.contains("chosen") && row.contains("rejected")) {
    wrong(
        "it has \"chosen\" and \"rejected\", and there is no training by preferences; data.fields can take one of "
        "them, "
        "as in {messages: chosen}");
  }
  if (!found) {
    wrong(fmt::format("it has {}, and a row needs {}; data.fields says where the file has other names", names_of(row),
                      known_formats()));
  }
  return found->format;
}

}  // namespace

const RowFormatSpec& format_of(RowFormat format) {
  if (format == RowFormat::prompt) return kPromptFormat;
  const auto found = std::ranges::find(kFormats, format, &RowFormatSpec::format);
  require(found != kFormats.end(), "a format that reads rows");
  return **found;
}

RowReader::RowReader(RowFormat format, FieldNames fields)
    : asked_(format), format_(format), fields_(std::move(fields)), met_(fields_.size(), false) {}

// Under our names, at the row and in its turns. A field whose name is ours and that another one takes means nothing.
OrderedJson RowReader::renamed(OrderedJson row, std::vector<std::string>& unread) {
  if (fields_.empty()) return row;
  const auto rename = [&](const OrderedJson& object, bool turn, const std::string& at) {
    OrderedJson out = OrderedJson::object();
    for (const auto& [name, value] : object.items()) {
      bool taken = false;
      const std::string* ours = nullptr;
      for (size_t i = 0; i < fields_.size(); ++i) {
        if (is_of_turns(fields_[i].first) != turn) continue;
        taken = taken || fields_[i].first == name;
        if (fields_[i].second == name) ours = &fields_[i].first, met_[i] = true;
      }
      if (ours) {
        out[*ours] = value;
      } else if (!taken) {
        out[name] = value;
      } else if (std::ranges::find(unread, at + name) == unread.end()) {
        unread.push_back(at + name);
      }
    }
    return out;
  };
  row = rename(row, false, "");
  for (const char* list : {"messages", "conversations", "prompt", "completion"}) {
    if (!row.contains(list) || !row[list].is_array()) continue;
    for (OrderedJson& turn : row[list]) {
      if (turn.is_object()) turn = rename(turn, true, std::string(list) + ".");
    }
  }
  return row;
}

void RowReader::check_format(const OrderedJson& row) {
  if (asked_ == RowFormat::prompt) return;
  if (asked_ == RowFormat::automatic) {
    const RowFormat shown = shown_by(row);
    if (format_ == RowFormat::automatic) format_ = shown;
    if (format_ == shown) return;
    wrong(
        fmt::format("it is a row of {}, and the rows before it are of {}; a path holds rows of one format: give each "
                    "a path of its own, or set data.format: {} where every row has {}",
                    word_of(shown), word_of(format_), word_of(format_), fields_of(format_of(format_))));
  }
  const RowFormatSpec& format = format_of(asked_);
  for (const char* field : format.needed) {
    if (!row.contains(field))
      wrong(fmt::format("it has no \"{}\", which data.format: {} asks for", field, word_of(asked_)));
  }
}

std::optional<Row> RowReader::read(std::string_view json) {
  if (json_depth(json) > kJsonDepth) wrong(fmt::format("it is nested more than {} deep", kJsonDepth));
  const Json plain = Json::parse(json);  // says at which byte it is wrong
  if (!plain.is_object()) wrong("a row is an object, such as {\"messages\": […]} or {\"text\": …}");
  if (plain.size() == 1 && plain.contains("error") && plain["error"].is_object()) return {};
  Row row;
  // A template sees fields in the order in which they were written.
  const OrderedJson j = renamed(parse_ordered_json(json, "the row"), row.ignored);
  check_format(j);
  const RowFormatSpec& format = format_of(format_);
  read_common(j, format.fields, row);
  format.read(j, row);
  return row;
}

Row RowReader::text_file(std::string text) {
  if (format_ == RowFormat::automatic) format_ = RowFormat::text;
  return Row{.text = std::move(text)};
}

}  // namespace drover
