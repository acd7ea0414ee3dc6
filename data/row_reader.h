// One line of a data file as a row. Source: OpenAI's chat format for fine-tuning (messages, tools, tool_calls, weight).
#pragma once
#include <optional>
#include <string_view>

#include "data/rows.h"

namespace drover {

// Nothing for a row that is only {"error": …}. std::exception or Fault::bad_data saying what is wrong with the line,
// which is valid UTF-8.
std::optional<Row> read_row(std::string_view line, RowFormat format);

// The message as a row has it.
OrderedJson to_json(const Message& message);

}  // namespace drover
