// Rows of a data file: a dialog, a text or a prompt each, from JSON lines ({"messages": […], "tools": …}, {"text": …}
// or
// {"prompt": …}), with the line they came from.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "configs/choices.h"
#include "data/chat_template.h"

namespace drover {

struct Row {
  std::vector<Message> messages;  // empty for a text
  OrderedJson tools = {};         // functions that the dialog may call: a list, or null
  std::string text = {};
  std::string adapter = {};               // of a prompt: by which it is to be answered; empty: the row names none
  float weight = 1;                       // of its trained tokens
  int64_t line = 0;                       // from 1
  std::vector<std::string> ignored = {};  // fields that mean nothing here
};

struct ReadReport {
  int64_t rows = 0, skipped = 0;
  int64_t failed = 0;  // {"error": …}: what `drover generate` writes in the place of an answer; passed over
  std::vector<std::string> complaints;     // the first few skipped rows: "file:line: reason"
  std::map<std::string, int64_t> ignored;  // fields that mean nothing here, and how many rows have them
};

// Calls `use` for every row in file order. What `use` refuses with Fault::bad_data counts as a bad row too. A bad row
// is an error (bad_data, naming file and line) or is skipped and reported; what `use` refuses with another code ends
// the reading. UTF-8 with or without a byte-order mark, LF or CRLF (what else a file may be is said: file_kind.h);
// empty lines are passed over; lines up to 64 MB. `passed_over`, where given, gets the line of every row that is
// skipped, or is only {"error": …}, and the reason.
ReadReport read_rows(const fs::path& file, RowFormat format, BadRows bad_rows,
                     const std::function<void(const Row&)>& use,
                     const std::function<void(int64_t line, const std::string& reason)>& passed_over = {});

}  // namespace drover
