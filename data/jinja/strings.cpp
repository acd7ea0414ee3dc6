#include "data/jinja/strings.h"

#include <algorithm>
#include <array>

#include "data/jinja/letters.h"
#include "kernels/base/unicode.h"

namespace drover::jinja {

namespace {

bool blank(std::string_view character) { return strip(character).empty(); }

// [begin, end) of what stays.
std::pair<size_t, size_t> without(std::string_view text, const std::string& characters_, bool left, bool right) {
  const std::vector<size_t> at = characters(text), wanted = characters(characters_);
  const auto taken = [&](size_t i) {
    const std::string_view c = text.substr(at[i], at[i + 1] - at[i]);
    for (size_t k = 0; k + 1 < wanted.size(); ++k) {
      if (std::string_view(characters_).substr(wanted[k], wanted[k + 1] - wanted[k]) == c) return true;
    }
    return false;
  };
  size_t begin = 0, end = at.size() - 1;
  while (left && begin < end && taken(begin)) ++begin;
  while (right && end > begin && taken(end - 1)) --end;
  return {at[begin], at[end]};
}

std::vector<Text> split_blanks(const Text& text, int64_t limit) {
  const std::vector<size_t> at = characters(text.bytes());
  const auto is_blank = [&](size_t i) {
    return blank(std::string_view(text.bytes()).substr(at[i], at[i + 1] - at[i]));
  };
  std::vector<Text> parts;
  for (size_t i = 0; i + 1 < at.size();) {
    if (is_blank(i)) {
      ++i;
      continue;
    }
    if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
      parts.push_back(stripped(text.slice(at[i], text.size()), nullptr, false, true));
      break;
    }
    size_t end = i;
    while (end + 1 < at.size() && !is_blank(end)) ++end;
    parts.push_back(text.slice(at[i], at[end]));
    check_parts(parts.size());
    i = end;
  }
  return parts;
}

}  // namespace

Text stripped(const Text& text, const std::string* characters, bool left, bool right) {
  if (characters != nullptr) {
    const auto [begin, end] = without(text.bytes(), *characters, left, right);
    return text.slice(begin, end);
  }
  const std::string_view inner = strip(text.bytes());
  if (inner.empty()) return {};
  const size_t begin = static_cast<size_t>(inner.data() - text.bytes().data());
  return text.slice(left ? begin : 0, right ? begin + inner.size() : text.size());
}

Text replaced(const Text& text, const std::string& what, const Text& by, int64_t limit) {
  if (what.empty()) throw Refusal("an empty string cannot be replaced");
  if (text.safe()) throw Refusal("what replaces a part of a safe string would be escaped, which is not supported");
  Text out;
  size_t from = 0;
  for (int64_t count = 0; limit < 0 || count < limit; ++count) {
    const size_t at = text.bytes().find(what, from);
    if (at == std::string::npos) break;
    out.append(text.slice(from, at));
    out.append(by);
    from = at + what.size();
    if (out.size() > kLargestValue) throw Refusal(fmt::format("it makes a text of more than {} bytes", kLargestValue));
  }
  out.append(text.slice(from, text.size()));
  return out;
}

Text as_html(const Text& text) {
  static constexpr std::string_view plain = "&<>\"'";
  static constexpr std::array<std::string_view, 5> entities{"&amp;", "&lt;", "&gt;", "&#34;", "&#39;"};
  Text out;
  size_t from = 0;
  const std::string& bytes = text.bytes();
  for (size_t at = 0; (at = bytes.find_first_of(plain, at)) != std::string::npos; from = ++at) {
    out.append(text.slice(from, at));
    out.append(entities[plain.find(bytes[at])], text.origin_at(at));
  }
  out.append(text.slice(from, text.size()));
  out.mark_safe();
  return out;
}

std::vector<Text> split(const Text& text, const std::string* separator, int64_t limit, bool from_right) {
  if (separator == nullptr) {
    if (from_right && limit >= 0) throw Refusal("rsplit() at white space with a limit is not supported");
    return split_blanks(text, limit);
  }
  if (separator->empty()) throw Refusal("an empty string separates nothing");
  std::vector<size_t> cuts;
  for (size_t at = 0; (at = text.bytes().find(*separator, at)) != std::string::npos; at += separator->size())
    cuts.push_back(at);
  if (limit >= 0 && cuts.size() > static_cast<size_t>(limit)) {
    const auto keep = static_cast<std::ptrdiff_t>(limit);
    cuts = from_right ? std::vector<size_t>(cuts.end() - keep, cuts.end())
                      : std::vector<size_t>(cuts.begin(), cuts.begin() + keep);
  }
  check_parts(cuts.size());
  std::vector<Text> parts;
  size_t from = 0;
  for (const size_t cut : cuts) {
    parts.push_back(text.slice(from, cut));
    from = cut + separator->size();
  }
  parts.push_back(text.slice(from, text.size()));
  return parts;
}

std::vector<Text> lines_of(const Text& text) {
  std::vector<Text> lines;
  const std::string& bytes = text.bytes();
  size_t from = 0;
  while (from < bytes.size()) {
    const size_t end = std::min(bytes.find_first_of("\n\r\v\f\x1c\x1d\x1e", from), bytes.size());
    lines.push_back(text.slice(from, end));
    check_parts(lines.size());
    from = end + 1 + (end + 1 < bytes.size() && bytes[end] == '\r' && bytes[end + 1] == '\n');
  }
  return lines;
}

Text in_case(const Text& text, Case which) {
  Text out;
  const std::vector<size_t> at = characters(text.bytes());
  bool word = false;  // the letter before belongs to the same word
  for (size_t i = 0; i + 1 < at.size(); ++i) {
    const std::string_view character = std::string_view(text.bytes()).substr(at[i], at[i + 1] - at[i]);
    const uint32_t code = code_point(character);
    const bool upper = which == Case::upper || (which == Case::capitalized && i == 0) ||
                       ((which == Case::title || which == Case::words) && !word);
    word = which == Case::words
               ? !blank(character) && std::string_view("-({[<").find(character) == std::string_view::npos
               : is_cased(code);
    const std::optional<uint32_t> other = upper ? upper_case(code) : lower_case(code);
    if (!other)
      throw Refusal(fmt::format("the other case of {} is not one character, which is not supported", character));
    std::string bytes;
    append_utf8(*other, bytes);
    out.append(bytes, text.origin_at(at[i]));
  }
  return out;
}

}  // namespace drover::jinja
