#include "data/rows.h"

#include "kernels/base/json.h"

namespace drover {

namespace {

using json = Json;

constexpr size_t kLongestLine = size_t{64} << 20;

std::string content_of(const json& content) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array())
    throw std::invalid_argument("\"content\" must be a string, or a list of {\"type\": \"text\", \"text\": …}");
  std::string text;
  for (const json& part : content) {
    if (!part.is_object() || part.value("type", "") != "text" || !part.contains("text") || !part["text"].is_string()) {
      throw std::invalid_argument("a part of \"content\" is not {\"type\": \"text\", \"text\": …}");
    }
    text += part["text"].get<std::string>();
  }
  return text;
}

// Empty for a row that is only {"error": …}.
std::optional<Row> row_of(std::string_view line, RowFormat format) {
  if (json_depth(line) > kJsonDepth)
    throw std::invalid_argument(fmt::format("it is nested more than {} deep", kJsonDepth));
  const json j = json::parse(line);
  if (!j.is_object()) throw std::invalid_argument("a row is an object with \"messages\" or \"text\"");
  const bool messages = j.contains("messages"), text = j.contains("text");
  if (j.size() == 1 && j.contains("error") && j["error"].is_object()) return {};
  Row row;
  if (format == RowFormat::prompt) {
    if (j.contains("adapter")) {
      if (!j["adapter"].is_string() || j["adapter"].get<std::string>().empty()) {
        throw std::invalid_argument("\"adapter\" must be the name of one");
      }
      row.adapter = j["adapter"].get<std::string>();
    }
    if (j.contains("prompt")) {
      if (!j["prompt"].is_string()) throw std::invalid_argument("\"prompt\" must be a string");
      row.messages = {{"user", j["prompt"].get<std::string>()}};
      return row;
    }
    if (!messages) throw std::invalid_argument("it has neither \"prompt\" nor \"messages\"");
  }
  if (format == RowFormat::messages && !messages)
    throw std::invalid_argument("it has no \"messages\", which data.format: messages asks for");
  if (format == RowFormat::text && !text)
    throw std::invalid_argument("it has no \"text\", which data.format: text asks for");
  if (!messages && !text) throw std::invalid_argument("it has neither \"messages\" nor \"text\"");
  if (messages && format != RowFormat::text) {
    const json& list = j["messages"];
    if (!list.is_array() || list.empty())
      throw std::invalid_argument("\"messages\" must be a list with at least one message");
    for (const json& m : list) {
      if (!m.is_object() || !m.contains("role") || !m["role"].is_string() || !m.contains("content")) {
        throw std::invalid_argument("a message needs \"role\" and \"content\"");
      }
      row.messages.push_back({m["role"].get<std::string>(), content_of(m["content"])});
    }
  } else {
    if (!j["text"].is_string()) throw std::invalid_argument("\"text\" must be a string");
    row.text = j["text"].get<std::string>();
  }
  return row;
}

}  // namespace

ReadReport read_rows(const fs::path& file, RowFormat format, BadRows bad_rows,
                     const std::function<void(const Row&)>& use,
                     const std::function<void(int64_t line, const std::string& reason)>& passed_over) {
  const MappedFile mapped(file);
  std::string_view rest(reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size());
  if (rest.starts_with("\xEF\xBB\xBF")) rest.remove_prefix(3);
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
      std::optional<Row> row = row_of(line, format);
      if (!row) {
        ++report.failed;
        if (passed_over) passed_over(number, "it says {\"error\": …}, where an answer could not be given");
        continue;
      }
      row->line = number;
      use(*row);
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
