// Rows of a data file, with the line that they came from: JSON lines, one JSON list, or a text; also compressed.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "data/formats/row_reader.h"
#include "kernels/base/file.h"

namespace drover {

struct ReadReport {
  int64_t rows = 0, skipped = 0;
  int64_t failed = 0;  // {"error": …}: what `drover generate` writes in the place of an answer; passed over
  std::vector<std::string> complaints;     // the first few skipped rows: "file:line: reason"
  std::map<std::string, int64_t> ignored;  // fields that mean nothing here, and how many rows have them
};

using UseRow = std::function<void(const Row&)>;
using PassedOver = std::function<void(int64_t line, const std::string& reason)>;

// Calls `use` for every row in file order. What `use` refuses with Fault::bad_data counts as a bad row too. A bad row
// is an error (bad_data, naming file and line) or is skipped and reported; what `use` refuses with another code ends
// the reading. UTF-8 with or without a byte-order mark, LF or CRLF (what else a file may be is said: file_kind.h), also
// compressed by gzip. A row is a line (empty ones are passed over) or an element of the one list that the file is, of
// up to 64 MB; a .txt file is one row, its line ends LF. `passed_over`, where given, gets the line of every row that is
// skipped, or is only {"error": …}, and the reason.
ReadReport read_rows(const fs::path& file, RowReader& reader, BadRows bad_rows, const UseRow& use,
                     const PassedOver& passed_over = {});
// Of one file alone.
ReadReport read_rows(const fs::path& file, RowFormat format, BadRows bad_rows, const UseRow& use,
                     const PassedOver& passed_over = {});

}  // namespace drover
