#include "data/rows.h"

#include <algorithm>
#include <optional>

#include "data/data_files.h"
#include "data/file_kind.h"
#include "data/gzip.h"
#include "data/raw_rows.h"
#include "kernels/base/json.h"
#include "kernels/base/json_problem.h"
#include "kernels/base/spill_file.h"
#include "kernels/base/unicode.h"

namespace drover {

namespace {

constexpr size_t kLongestRow = size_t{64} << 20;
constexpr size_t kReadBytes = size_t{4} << 20;  // of the file that stay in the process

// Takes the rows of one file, and keeps count of what becomes of them.
class FileReader {
 public:
  FileReader(const fs::path& file, RowReader& reader, BadRows bad_rows, const UseRow& use,
             const PassedOver& passed_over)
      : file_(file), reader_(reader), bad_rows_(bad_rows), use_(use), passed_over_(passed_over) {}

  ReadReport read() {
    const MappedFile mapped(file_);
    std::string_view text(reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size());
    std::optional<SpillFile> unpacked;
    if (is_gzip(text)) text = unpack(text, mapped, unpacked.emplace(temporary_directory()));
    const char* begin = text.data();
    if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
    refuse_other_kinds(file_, text);
    text_ = text;
    if (is_text_file(file_) && take_text(text)) return std::move(report_);
    size_t done = 0;
    for_each_raw_row(file_, text, [&](const RawRow& raw) {
      take(raw);
      const auto at = static_cast<size_t>(raw.text.data() - begin);
      if (at < done + kReadBytes) return;
      unpacked ? unpacked->advise_done() : mapped.advise_done(done, at - done);
      done = at;
    });
    return std::move(report_);
  }

 private:
  fs::path temporary_directory() const {
    std::error_code error;
    const fs::path directory = fs::temp_directory_path(error);
    if (error) fail(Fault::io, "{}: is unpacked in TMPDIR, which is no directory", file_.string());
    return directory;
  }

  std::string_view unpack(std::string_view packed, const MappedFile& mapped, SpillFile& to) const {
    gunzip(file_, packed, [&](std::string_view piece) {
      to.write(piece.data(), piece.size());
      mapped.advise_done(0, packed.size());
    });
    return {reinterpret_cast<const char*>(to.bytes().data()), to.size()};
  }

  // The whole file as one row; false where its lines are rows.
  bool take_text(std::string_view text) {
    const RawRow whole{.text = text, .line = 1};
    if (reader_.asked() != RowFormat::automatic && reader_.asked() != RowFormat::text) return false;
    if (reader_.asked() == RowFormat::automatic) refuse_rows(text);
    attempt(whole, [&] {
      check_bytes(text, "text");
      return std::optional(reader_.text_file(with_line_feeds(text)));
    });
    return true;
  }

  static std::string with_line_feeds(std::string_view text) {
    std::string lines;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\r' || i + 1 == text.size() || text[i + 1] != '\n') lines += text[i];
    }
    return lines;
  }

  void refuse_rows(std::string_view text) {
    const size_t begin = text.find_first_not_of(" \t\r\n");
    if (begin == std::string_view::npos || text.size() > kLongestRow) return;
    const std::string_view first = text[begin] == '[' ? text : text.substr(0, text.find('\n', begin));
    const Json json = Json::parse(first.begin(), first.end(), nullptr, false);
    if (!json.is_object() && !(json.is_array() && !json.empty() && json[0].is_object())) return;
    fail(Fault::bad_data,
         "{}: a .txt file is one text, and this one holds rows of JSON; rename it to .jsonl, or set data.format "
         "(format of its source): text, where it is a text",
         file_.string());
  }

  void take(const RawRow& raw) {
    const char* unit = raw.element > 0 ? "element" : "line";
    attempt(raw, [&] {
      if (raw.text.size() > kLongestRow) throw std::invalid_argument(fmt::format("the {} is longer than 64 MB", unit));
      check_bytes(raw.text, unit);
      return reader_.read(raw.text);
    });
  }

  static void check_bytes(std::string_view text, const char* unit) {
    // The parser would take a NUL for the end of the row and pass over what follows.
    const size_t nul = text.find('\0');
    if (nul != std::string_view::npos) throw std::invalid_argument(fmt::format("byte {} of the {} is NUL", nul, unit));
    const size_t bad = first_invalid_utf8(text);
    if (bad != text.size()) throw std::invalid_argument(fmt::format("byte {} of the {} is not valid UTF-8", bad, unit));
  }

  template <typename Read>
  void attempt(const RawRow& raw, Read&& read) {
    int64_t line = raw.line;
    std::string reason;
    try {
      std::optional<Row> row = read();
      if (!row) {
        ++report_.failed;
        if (passed_over_) passed_over_(line, "it says {\"error\": …}, where an answer could not be given");
        return;
      }
      row->line = line;
      use_(*row);
      for (const std::string& field : row->ignored) ++report_.ignored[field];
      ++report_.rows;
      return;
    } catch (const Error& error) {
      if (error.fault() != Fault::bad_data) throw;
      reason = error.what();
    } catch (const Json::parse_error& error) {
      reason = raw.element > 0 ? fmt::format("it is not valid JSON (at byte {} of the element)", error.byte)
                               : fmt::format(
                                     "it is not valid JSON (at byte {} of the line); every line is a row of "
                                     "its own",
                                     error.byte);
      if (is_one_object(raw))
        reason += ". The file is one object over several lines: make it a list, [ … ], or one line";
      line += std::ranges::count(raw.text.substr(0, error.byte), '\n');
    } catch (const Json::exception& error) {
      reason = json_problem(error);
    } catch (const std::exception& error) {
      reason = error.what();
    }
    complain(line, raw, reason);
  }

  // Asked at the first row that cannot be read.
  bool is_one_object(const RawRow& raw) const {
    return raw.element == 0 && report_.rows + report_.skipped == 0 && text_.size() > raw.text.size() + 1 &&
           text_.size() <= kLongestRow && json_depth(text_) <= kJsonDepth && Json::accept(text_);
  }

  void complain(int64_t line, const RawRow& raw, const std::string& reason) {
    const std::string element = raw.element > 0 ? fmt::format("element {}: ", raw.element) : "";
    const std::string complaint = fmt::format("{}:{}: {}{}", file_.string(), line, element, reason);
    if (bad_rows_ == BadRows::error)
      fail(Fault::bad_data, "{}; fix the row{}", complaint,
           reader_.format() == RowFormat::prompt ? "" : ", or set data.bad_rows: skip");
    ++report_.skipped;
    if (passed_over_) passed_over_(line, reason);
    if (report_.complaints.size() < 10) report_.complaints.push_back(complaint);
  }

  const fs::path& file_;
  RowReader& reader_;
  BadRows bad_rows_;
  const UseRow& use_;
  const PassedOver& passed_over_;
  std::string_view text_;  // of the file, while it is read
  ReadReport report_;
};

}  // namespace

ReadReport read_rows(const fs::path& file, RowReader& reader, BadRows bad_rows, const UseRow& use,
                     const PassedOver& passed_over) {
  return FileReader(file, reader, bad_rows, use, passed_over).read();
}

ReadReport read_rows(const fs::path& file, RowFormat format, BadRows bad_rows, const UseRow& use,
                     const PassedOver& passed_over) {
  RowReader reader(format);
  return read_rows(file, reader, bad_rows, use, passed_over);
}

}  // namespace drover
