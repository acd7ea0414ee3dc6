#include "trainer/report/html.h"

#include <fmt/format.h>

#include "kernels/base/unicode.h"

namespace drover {

namespace {

// Control characters have no place in XML, and bytes that are no UTF-8 none in a page.
std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : repair_utf8(std::string(text))) {
    switch (c) {
      case '&': result += "&amp;"; break;
      case '<': result += "&lt;"; break;
      case '>': result += "&gt;"; break;
      case '"': result += "&quot;"; break;
      case '\'': result += "&#39;"; break;
      default: result += static_cast<unsigned char>(c) >= 0x20 || c == '\n' || c == '\t' ? std::string(1, c) : "\uFFFD";
    }
  }
  return result;
}

std::string opening(std::string_view name, const Html::Attributes& attributes) {
  std::string tag = fmt::format("<{}", name);
  for (const auto& [key, value] : attributes) tag += fmt::format(" {}=\"{}\"", key, escaped(value));
  return tag;
}

std::string percent_encoded(std::string_view text) {
  std::string result;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       std::string_view("-_.,").find(c) != std::string_view::npos;
    result += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return result;
}

std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + '"';
}

const char* class_of(TableLook look) {
  switch (look) {
    case TableLook::numbers: return "numbers";
    case TableLook::texts: return "texts";
    case TableLook::long_texts: return "texts long";
  }
  return "";
}

std::string csv_line(const std::vector<std::string>& cells) {
  std::string line;
  for (size_t i = 0; i < cells.size(); ++i) line += (i == 0 ? "" : ",") + csv_cell(cells[i]);
  return line + "\n";
}

}  // namespace

Html Html::text(std::string_view text) {
  Html html;
  html.markup_ = escaped(text);
  return html;
}

Html Html::element(std::string_view name, const Attributes& attributes, const Html& content) {
  Html html;
  html.markup_ = fmt::format("{}>{}</{}>", opening(name, attributes), content.markup_, name);
  return html;
}

Html Html::element(std::string_view name, const Attributes& attributes) {
  Html html;
  html.markup_ = opening(name, attributes) + "/>";
  return html;
}

Html Html::element(std::string_view name, const Attributes& attributes, std::string_view text) {
  return element(name, attributes, Html::text(text));
}

Html Html::document(const Html& head, const Html& body) {
  Html html;
  html.markup_ = "<!DOCTYPE html>\n" +
                 element("html", {{"lang", "en"}}, element("head", {}, head) + element("body", {}, body)).markup_ +
                 "\n";
  return html;
}

Html Html::style(std::string_view css) {
  Html html;
  html.markup_ = fmt::format("<style>\n{}</style>", css);
  return html;
}

Html& Html::operator+=(const Html& more) {
  markup_ += more.markup_;
  return *this;
}

Html operator+(Html a, const Html& b) { return a += b; }

Html table(const TableText& table) {
  Html head, body;
  for (const std::string& heading : table.headings) head += Html::element("th", {{"scope", "col"}}, heading);
  for (const auto& row : table.rows) {
    Html cells;
    for (const std::string& cell : row) cells += Html::element("td", {}, cell);
    body += Html::element("tr", {}, cells);
  }
  Html all = Html::element("thead", {}, Html::element("tr", {}, head)) + Html::element("tbody", {}, body);
  return Html::element("div", {{"class", "scroll"}, {"tabindex", "0"}},
                       Html::element("table", {{"class", class_of(table.look)}}, all));
}

std::string csv_of(const TableText& table) {
  std::string csv = csv_line(table.headings);
  for (const auto& row : table.rows) csv += csv_line(row);
  return csv;
}

Html details_table(const std::string& summary, const TableText& all, const std::string& csv_name) {
  const Html link = Html::element(
      "a", {{"download", csv_name}, {"href", "data:text/csv;charset=utf-8," + percent_encoded(csv_of(all))}},
      fmt::format("{} ({} rows)", csv_name, all.rows.size()));
  TableText shown{.headings = all.headings, .look = all.look};
  const size_t every = (all.rows.size() + kTableRows - 1) / kTableRows;
  for (size_t i = 0; i < all.rows.size(); i += every) shown.rows.push_back(all.rows[i]);
  const std::string of = every > 1 ? fmt::format(" The table shows one row of {}; all: ", every) : " As a file: ";
  return Html::element("details", {},
                       Html::element("summary", {}, summary) +
                           Html::element("p", {{"class", "note"}}, Html::text(of) + link) + table(shown));
}

}  // namespace drover
