#include "data/template_text.h"

#include <algorithm>
#include <vector>

namespace drover {

namespace {

bool blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// Splits at `separator`, not inside quotes.
std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts(1);
  char quote = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quote == 0 && c == separator) {
      parts.emplace_back();
      continue;
    }
    if (quote != 0 && c == '\\' && i + 1 < text.size()) parts.back() += text[i++];
    if (quote == 0 && (c == '\'' || c == '"')) {
      quote = c;
    } else if (c == quote) {
      quote = 0;
    }
    parts.back() += text[i];
  }
  return parts;
}

std::string trimmed(const std::string& text) {
  const auto begin = std::find_if_not(text.begin(), text.end(), blank),
             end = std::find_if_not(text.rbegin(), text.rend(), blank).base();
  return begin < end ? std::string(begin, end) : "";
}

// 'a\n' → its characters; false where the text is no single literal.
bool read_literal(const std::string& text, std::string& value) {
  if (text.size() < 2 || (text.front() != '\'' && text.front() != '"') || text.back() != text.front()) return false;
  value.clear();
  for (size_t i = 1; i + 1 < text.size(); ++i) {
    if (text[i] == text.front()) return false;
    if (text[i] == '\\' && i + 2 < text.size()) {
      const char c = text[++i];
      value += c == 'n' ? '\n' : c == 't' ? '\t' : c;
    } else {
      value += text[i];
    }
  }
  return true;
}

// White space outside quotes away (between words one blank stays), one kind of quote, fields by index.
std::string squeezed(const std::string& text) {
  std::string out;
  char quote = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quote == 0 && blank(c)) {
      const auto word = [](char w) { return std::isalnum(static_cast<unsigned char>(w)) != 0 || w == '_'; };
      const size_t next = static_cast<size_t>(
          std::find_if_not(text.begin() + static_cast<std::ptrdiff_t>(i), text.end(), blank) - text.begin());
      if (!out.empty() && word(out.back()) && next < text.size() && word(text[next])) out += ' ';
      i = next - 1;
      continue;
    }
    if (quote == 0 && (c == '\'' || c == '"')) {
      quote = c;
      out += '\'';
    } else if (c == quote) {
      quote = 0;
      out += '\'';
    } else {
      out += c;
    }
  }
  for (const char* field : {"role", "content"}) {
    for (const char* owner : {"message", "messages[0]"}) {
      const std::string dotted = std::string(owner) + "." + field, indexed = std::string(owner) + "['" + field + "']";
      for (size_t at = 0; (at = out.find(dotted, at)) != std::string::npos; at += indexed.size())
        out.replace(at, dotted.size(), indexed);
    }
  }
  return out;
}

struct Item {
  bool literal = false;
  std::string text;
};

void append(std::vector<Item>& items, bool literal, const std::string& text) {
  if (literal && text.empty()) return;
  if (literal && !items.empty() && items.back().literal) {
    items.back().text += text;
  } else {
    items.push_back({literal, text});
  }
}

void append_sum(std::vector<Item>& items, const std::string& expression) {
  for (const std::string& part : split(expression, '+')) {
    std::string value;
    const bool literal = read_literal(trimmed(part), value);
    append(items, literal, literal ? value : squeezed(part));
  }
}

std::string joined(const std::vector<Item>& items) {
  std::string out;
  for (const Item& item : items) out += (out.empty() ? "" : "+") + (item.literal ? "'" + item.text + "'" : item.text);
  return out;
}

}  // namespace

std::string canonical_template(const std::string& text) {
  std::string out;
  std::vector<Item> output;  // of neighbouring {{ }} and text
  const auto flush = [&] {
    if (!output.empty()) out += "{{" + joined(output) + "}}";
    output.clear();
  };
  size_t at = 0;
  bool trim_left = false;
  while (at < text.size()) {
    size_t open = text.find('{', at);
    while (open != std::string::npos &&
           (open + 1 >= text.size() || (text[open + 1] != '{' && text[open + 1] != '%' && text[open + 1] != '#')))
      open = text.find('{', open + 1);
    std::string between = text.substr(at, open == std::string::npos ? open : open - at);
    if (trim_left)
      between.erase(0, static_cast<size_t>(std::find_if_not(between.begin(), between.end(), blank) - between.begin()));
    if (open == std::string::npos) {
      append(output, true, between);
      break;
    }
    const char kind = text[open + 1];
    const std::string closing = kind == '{' ? "}}" : kind == '%' ? "%}" : "#}";
    const size_t close = text.find(closing, open + 2);
    if (close == std::string::npos) return text;
    std::string inside = text.substr(open + 2, close - open - 2);
    const bool dash_before = inside.starts_with('-'), dash_after = inside.ends_with('-');
    if (dash_before) inside.erase(0, 1);
    if (dash_after && !inside.empty()) inside.pop_back();
    if (dash_before) {
      between.erase(
          static_cast<size_t>(std::find_if_not(between.rbegin(), between.rend(), blank).base() - between.begin()));
    } else if (kind != '{') {  // lstrip_blocks
      const size_t line = between.find_last_of('\n') + 1;
      if ((line > 0 || at == 0) &&
          std::all_of(between.begin() + static_cast<std::ptrdiff_t>(line), between.end(), blank))
        between.erase(line);
    }
    append(output, true, between);
    at = close + 2;
    trim_left = dash_after;
    if (kind != '{' && !dash_after && at < text.size() && text[at] == '\n') ++at;  // trim_blocks
    if (kind == '{') append_sum(output, inside);
    if (kind != '%') continue;
    flush();
    const size_t equals = inside.find('=');
    if (trimmed(inside).starts_with("set ") && equals != std::string::npos) {
      std::vector<Item> value;
      append_sum(value, inside.substr(equals + 1));
      out += "{%" + squeezed(inside.substr(0, equals)) + "=" + joined(value) + "%}";
    } else {
      out += "{%" + squeezed(inside) + "%}";
    }
  }
  flush();
  return out;
}

}  // namespace drover
