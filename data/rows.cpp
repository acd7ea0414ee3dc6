#include "data/rows.h"

#include "data/file_kind.h"
#include "data/row_reader.h"
#include "kernels/base/json.h"

namespace drover {

namespace {

using json = Json;

constexpr size_t kLongestLine = size_t{64} << 20;

}  // namespace

ReadReport read_rows(const fs::path& file, RowFormat format, BadRows bad_rows,
                     const std::function<void(const Row&)>& use,
                     const std::function<void(int64_t line, const std::string& reason)>& passed_over) {
  const MappedFile mapped(file);
  std::string_view rest(reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size());
  if (rest.starts_with("\xEF\xBB\xBF")) rest.remove_prefix(3);
  refuse_other_kinds(file, rest);
  ReadReport report;
  for (int64_t number = 1; !rest.empty(); ++number) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
    std::string reason;
    try {
      if (line.size() > kLongestLine) throw std::invalid_argument("the line is longer than 64 MB");
      // The parser would take a NUL for the end of the row and pass over what follows.
      const size_t nul = line.find('\0');
      if (nul != std::string_view::npos) throw std::invalid_argument(fmt::format("byte {} of the line is NUL", nul));
      const size_t bad = first_invalid_utf8(line);
      if (bad != line.size()) throw std::invalid_argument(fmt::format("byte {} of the line is not valid UTF-8", bad));
      std::optional<Row> row = read_row(line, format);
      if (!row) {
        ++report.failed;
        if (passed_over) passed_over(number, "it says {\"error\": …}, where an answer could not be given");
        continue;
      }
      row->line = number;
      use(*row);
      for (const std::string& field : row->ignored) ++report.ignored[field];
      ++report.rows;
      continue;
    } catch (const Error& error) {
      if (error.fault() != Fault::bad_data) throw;
      reason = error.what();
    } catch (const json::parse_error& error) {
      reason = fmt::format("it is not valid JSON (at byte {} of the line); every line is a row of its own", error.byte);
    } catch (const std::exception& error) {
      reason = error.what();
    }
    const std::string complaint = fmt::format("{}:{}: {}", file.string(), number, reason);
    if (bad_rows == BadRows::error)
      fail(Fault::bad_data, "{}; fix the row{}", complaint,
           format == RowFormat::prompt ? "" : ", or set data.bad_rows: skip");
    ++report.skipped;
    if (passed_over) passed_over(number, reason);
    if (report.complaints.size() < 10) report.complaints.push_back(complaint);
  }
  return report;
}

}  // namespace drover
