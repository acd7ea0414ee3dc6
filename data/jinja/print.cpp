// Values as text: Python's str() and repr(), and json.dumps().
#include <algorithm>
#include <charconv>
#include <cmath>

#include "data/jinja/letters.h"
#include "data/jinja/value.h"

namespace drover::jinja {

namespace {

// What stands around a string's own bytes in its printed form (quotes, escapes) has the string's origin, so that a
// message's text stays one piece; around lists and dicts it is the template's.
Origin origin_of(const Text& text) { return text.size() > 0 ? text.runs().front().origin : Origin{}; }

// Text with every byte of it replaced by what `escape` appends for it.
template <typename Escape>
Text escaped(const Text& text, const Escape& escape) {
  Text out;
  size_t begin = 0;
  for (const Text::Run& run : text.runs()) {
    std::string bytes;
    escape(std::string_view(text.bytes()).substr(begin, run.end - begin), bytes);
    out.append(bytes, run.origin);
    begin = run.end;
  }
  return out;
}

Text quoted(const Text& inner, char quote, const Origin& origin) {
  Text out(std::string_view(&quote, 1), origin);
  out.append(inner);
  out.append(std::string_view(&quote, 1), origin);
  return out;
}

Text repr_of(const Text& text) {
  const bool single = text.bytes().find('\'') != std::string::npos, both = text.bytes().find('"') != std::string::npos;
  const char quote = single && !both ? '"' : '\'';
  const Text inner = escaped(text, [&](std::string_view part, std::string& out) {
    for (const char c : part) {
      const auto byte = static_cast<unsigned char>(c);
      if (c == '\\' || c == quote) {
        out += {'\\', c};
      } else if (c == '\n' || c == '\t' || c == '\r') {
        out += {'\\', c == '\n' ? 'n' : c == '\t' ? 't' : 'r'};
      } else if (byte < 0x20 || byte == 0x7F) {
        out += fmt::format("\\x{:02x}", byte);
      } else {
        out += c;
      }
    }
  });
  return quoted(inner, quote, origin_of(text));
}

void escape_json(std::string_view part, bool ascii, std::string& out) {
  constexpr std::string_view plain = "\"\\\b\f\n\r\t", letters = "\"\\bfnrt";
  for (size_t i = 0; i < part.size();) {
    const size_t which = plain.find(part[i]);
    const auto byte = static_cast<unsigned char>(part[i]);
    if (which != std::string_view::npos) {
      out += {'\\', letters[which]};
      ++i;
    } else if (byte < 0x20) {
      out += fmt::format("\\u{:04x}", byte);
      ++i;
    } else if (byte < 0x80 || !ascii) {
      out += part[i++];
    } else {
      const size_t begin = i++;
      while (i < part.size() && (static_cast<unsigned char>(part[i]) & 0xC0) == 0x80) ++i;
      const uint32_t code = code_point(part.substr(begin, i - begin));
      if (code < 0x10000) {
        out += fmt::format("\\u{:04x}", code);
      } else {
        out +=
            fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + ((code - 0x10000) >> 10), 0xDC00 + ((code - 0x10000) & 0x3FF));
      }
    }
  }
}

class JsonPrinter {
 public:
  explicit JsonPrinter(const JsonStyle& style) : style_(style) {}

  Text print(const Value& value, int64_t depth) {
    if (value.none()) return Text("null");
    if (const bool* b = value.boolean()) return Text(*b ? "true" : "false");
    if (const auto i = value.integer()) return Text(std::to_string(*i));
    if (const auto d = value.number()) return Text(std::isfinite(*d) ? python_float(*d) : not_finite(*d));
    if (const Text* text = value.text()) return string(*text);
    if (value.list() == nullptr && value.dict() == nullptr)
      throw Refusal(fmt::format("{} has no form in JSON", kind(value)));
    std::vector<Text> parts;
    if (const List* list = value.list()) {
      for (const Value& item : list->items) parts.push_back(print(item, depth + 1));
    } else {
      for (const auto& [key, item] : sorted(*value.dict())) {
        Text part = key.text() != nullptr ? string(*key.text()) : string(Text(bare_key(key)));
        take(style_.key.size());
        part.append(style_.key, {});
        part.append(print(item, depth + 1));
        parts.push_back(std::move(part));
      }
    }
    return enclosed(parts, value.list() != nullptr ? "[" : "{", value.list() != nullptr ? "]" : "}", depth);
  }

 private:
  static std::string not_finite(double d) { return std::isnan(d) ? "NaN" : d > 0 ? "Infinity" : "-Infinity"; }
  std::string bare_key(const Value& key) { return print(key, 0).bytes(); }
  Text string(const Text& text) {
    const auto escape = [&](std::string_view part, std::string& out) { escape_json(part, style_.ascii, out); };
    return quoted(escaped(text, escape), '"', origin_of(text));
  }
  std::vector<std::pair<Value, Value>> sorted(const Dict& dict) {
    auto items = dict.items;
    if (style_.sort_keys)
      std::ranges::stable_sort(items, [](const auto& a, const auto& b) { return order(a.first, b.first) < 0; });
    return items;
  }
  Text enclosed(const std::vector<Text>& parts, const char* open, const char* close, int64_t depth) {
    Text out(open);
    std::string separator = style_.item;
    if (style_.indent && !parts.empty()) {
      const auto line = [&](int64_t level) {
        return "\n" + std::string(static_cast<size_t>(*style_.indent * level), ' ');
      };
      out.append(line(depth + 1), {});
      separator = style_.item + line(depth + 1);
    }
    take(separator.size() * (parts.size() + 1));
    for (size_t i = 0; i < parts.size(); ++i) {
      if (i > 0) out.append(separator, {});
      out.append(parts[i]);
    }
    if (style_.indent && !parts.empty())
      out.append("\n" + std::string(static_cast<size_t>(*style_.indent * depth), ' '), {});
    out.append(close, {});
    return out;
  }

  // The bytes of separators and indents; those of the values are bounded (kLargestValue).
  void take(size_t bytes) {
    between_ += bytes;
    if (between_ > kLargestValue) throw Refusal(fmt::format("it makes a text of more than {} bytes", kLargestValue));
  }

  const JsonStyle& style_;
  size_t between_ = 0;
};

}  // namespace

std::string python_float(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[64];
  const double size = std::abs(value);
  if (size != 0 && (size < 1e-4 || size >= 1e16)) {
    const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
    return {buffer, end};
  }
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed).ptr;
  std::string digits(buffer, end);
  return digits.find('.') == std::string::npos ? digits + ".0" : digits;
}

Text str(const Value& value) {
  if (value.undefined()) return {};
  return value.text() != nullptr ? *value.text() : repr(value);
}

Text repr(const Value& value) {
  if (value.undefined()) return Text("Undefined");
  if (value.none()) return Text("None");
  if (const bool* b = value.boolean()) return Text(*b ? "True" : "False");
  if (const auto i = value.integer()) return Text(std::to_string(*i));
  if (const auto d = value.number()) return Text(python_float(*d));
  if (const Text* text = value.text()) return repr_of(*text);
  if (const List* list = value.list()) {
    Text out(list->tuple ? "(" : "[");
    for (size_t i = 0; i < list->items.size(); ++i) {
      if (i > 0) out.append(", ", {});
      out.append(repr(list->items[i]));
    }
    out.append(!list->tuple ? "]" : list->items.size() == 1 ? ",)" : ")", {});
    return out;
  }
  if (const Dict* dict = value.dict()) {
    Text out("{");
    for (size_t i = 0; i < dict->items.size(); ++i) {
      if (i > 0) out.append(", ", {});
      out.append(repr(dict->items[i].first));
      out.append(": ", {});
      out.append(repr(dict->items[i].second));
    }
    out.append("}", {});
    return out;
  }
  throw Refusal(fmt::format("{} cannot be printed", kind(value)));
}

Text to_json(const Value& value, const JsonStyle& style) { return JsonPrinter(style).print(value, 0); }

}  // namespace drover::jinja
