// HTML and SVG as a value that is made of escaped texts only: what comes from files reaches a page through `text` and
// `attributes`, and both escape.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace drover {

class Html {
 public:
  using Attributes = std::vector<std::pair<std::string_view, std::string>>;

  Html() = default;
  static Html text(std::string_view text);
  // Names are ours, and not escaped. An element without content closes itself in SVG's way unless `content` is given.
  static Html element(std::string_view name, const Attributes& attributes, const Html& content);
  static Html element(std::string_view name, const Attributes& attributes = {});
  static Html element(std::string_view name, const Attributes& attributes, std::string_view text);
  static Html document(const Html& head, const Html& body);
  static Html style(std::string_view css);  // ours, as it is

  Html& operator+=(const Html& more);
  const std::string& string() const { return markup_; }
  bool empty() const { return markup_.empty(); }

 private:
  std::string markup_;
};

Html operator+(Html a, const Html& b);

// A table with a row of headings; every cell is a text.
enum class TableLook : uint8_t {
  numbers,  // all columns but the first are set to the right
  texts,
  long_texts,  // in columns of equal width
};
struct TableText {
  std::vector<std::string> headings;
  std::vector<std::vector<std::string>> rows;
  TableLook look = TableLook::numbers;
};
Html table(const TableText& table);
// A <details> with the table, and a link to all of its rows as CSV; of more than kTableRows rows the table shows some,
// evenly chosen, and says so.
inline constexpr size_t kTableRows = 60;
Html details_table(const std::string& summary, const TableText& table, const std::string& csv_name);
std::string csv_of(const TableText& table);

}  // namespace drover
